"""Declarations of all metrics: heading, unit, better direction, and the views that show them.

Tables, figures, loggers and the dashboard follow them. The module imports only the standard library, so that a report
does not need torch. Tables show a metric without a declaration under its name, without conversion.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

Unit = Literal["fraction", "number"]
Better = Literal["higher", "lower", "neither"]
# console: the table that a run prints; report: those of ltr-report and of a sweep; published: those of docs/results.md;
# curve: figures over the values of a sweep; dashboard, calibration, monitored: the sections of ltr-dashboard, the last
# one of the split that is monitored while training
View = Literal["console", "report", "published", "curve", "dashboard", "calibration", "monitored"]
VIEWS: tuple[View, ...] = get_args(View)
EVERYWHERE: tuple[View, ...] = ("console", "report", "published")

_STORED = ("name", "protocol", "heading", "title", "unit", "better")  # in result.json, with ``shown``

# words in the name of an undeclared metric that mark an error, a loss or a false alarm
_LOWER_WORDS = frozenset({"loss", "error", "errors", "nll", "ece", "fpr", "aurc", "brier", "alarms"})


@dataclass(frozen=True)
class Metric:
    """Declaration of a metric.

    Attributes:
        name: name in ``result.json``. A variable part is ``{k}`` for a number or ``{of}`` for words, as in
            ``recall_at_{k}``.
        protocol: protocol that measures it.
        heading: heading of its column, in which ``{k}`` and ``{of}`` are filled in. Empty: the name.
        title: title in words, for figures and dashboards. Empty: the heading.
        unit: ``fraction`` is shown in percent, ``number`` without conversion.
        better: ``higher`` or ``lower`` if such values are better; ``neither`` for counts and intervals.
        shown: views that show it.
        per_class: column of ``per_class.parquet`` whose mean it is, if not the accuracy.
    """

    name: str
    protocol: str = ""
    heading: str = ""
    title: str = ""
    unit: Unit = "fraction"
    better: Better = "higher"
    shown: tuple[View, ...] = ()
    per_class: str = "accuracy"

    def __post_init__(self) -> None:
        object.__setattr__(self, "heading", self.heading or self.name)
        object.__setattr__(self, "title", self.title or self.heading)

    @property
    def is_fraction(self) -> bool:
        """True for a value in [0, 1], which tables show in percent."""
        return self.unit == "fraction"

    @property
    def is_lower_better(self) -> bool:
        """True for errors, losses and false alarms."""
        return self.better == "lower"

    @property
    def is_ranked(self) -> bool:
        """True if values can be better or worse, unlike counts and intervals."""
        return self.better != "neither"

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.name).replace(r"\{k\}", r"(?P<k>\d+)").replace(r"\{of\}", "(?P<of>.+)"))

    @property
    def varies(self) -> bool:
        """True if the name has a variable part."""
        return "{" in self.name

    def named(self, name: str) -> Metric | None:
        """Return the metric under a full name, or None if the name does not match."""
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        if not self.varies:
            return self
        parts = {key: part.replace("_", " ") for key, part in match.groupdict().items()}
        return replace(self, name=name, heading=self.heading.format(**parts), title=self.title.format(**parts))

    def to_dict(self) -> dict[str, Any]:
        """Return the declaration in the form of ``result.json``."""
        return {key: getattr(self, key) for key in _STORED} | {"shown": list(self.shown)}

    @classmethod
    def from_dict(cls, declaration: Mapping[str, Any]) -> Metric:
        """Build the metric from the result of `to_dict`; unknown keys are ignored."""
        return cls(**{key: declaration[key] for key in _STORED}, shown=tuple(declaration["shown"]))


class MetricTable:
    """Declarations of metrics, in the order of the columns of tables.

    Args:
        metrics: the declarations. If several fit a name, an exact name wins, then the longest pattern, then the first.
    """

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = tuple(metrics)
        places = enumerate(self.metrics)
        self._in_order = sorted(places, key=lambda pair: (pair[1].varies, -len(pair[1].name)))
        self._protocols = frozenset(metric.protocol for metric in self.metrics)
        self._known: dict[tuple[str, str | None, bool], tuple[int, Metric] | None] = {}

    def find(self, name: str, protocol: str = "") -> Metric:
        """Return the declaration of a metric for the protocol, else for another protocol, else the default one.

        By default the heading is the name, values are shown without conversion, and higher is better, unless the name
        contains a word such as ``loss`` or ``error``.
        """
        # names with a variable part only match their own protocol, unless the protocol is unknown
        match = self._declared(name, protocol) or self._declared(name, None, exact=bool(protocol))
        return match[1] if match else _undeclared(name, protocol)

    def columns(self, view: View, protocol: str, names: Iterable[str]) -> list[Metric]:
        """Return the metrics of a protocol that a view shows, in the order of their columns.

        Metrics without a declaration for the protocol come last, in the order of ``names``, and are shown `EVERYWHERE`.

        Args:
            view: one of `VIEWS`.
            protocol: protocol of the rows.
            names: names of the metrics in the rows.
        """
        declared: list[tuple[int, Metric]] = []
        undeclared = []
        for name in dict.fromkeys(names):
            match = self._declared(name, protocol)
            if match is None and view in EVERYWHERE:
                undeclared.append(self.find(name, protocol))
            elif match is not None and view in match[1].shown:
                declared.append(match)
        # sorting is stable: metrics of one pattern keep their order in the rows
        return [*(metric for _, metric in sorted(declared, key=lambda pair: pair[0])), *undeclared]

    def declared(self, view: View, protocol: str) -> list[Metric]:
        """Return the metrics of a protocol that a view shows, without names with a variable part."""
        metrics = (metric for metric in self.metrics if metric.protocol == protocol and view in metric.shown)
        return [metric for metric in metrics if not metric.varies]

    def has_protocol(self, protocol: str) -> bool:
        """Return whether a metric of this protocol is declared."""
        return protocol in self._protocols

    def extended(self, declarations: Sequence[Mapping[str, Any]]) -> MetricTable:
        """Return a table with further declarations in the form of `Metric.to_dict`."""
        new = [Metric.from_dict(one) for one in declarations]
        return MetricTable([*self.metrics, *new]) if new else self

    def _declared(self, name: str, protocol: str | None, exact: bool = False) -> tuple[int, Metric] | None:
        """Return the position and the declaration that match a name, for one protocol or for any."""
        key = (name, protocol, exact)
        if key not in self._known:
            fitting = (
                (position, match)
                for position, metric in self._in_order
                if protocol in (None, metric.protocol) and not (exact and metric.varies)
                if (match := metric.named(name)) is not None
            )
            self._known[key] = next(fitting, None)
        return self._known[key]


def _undeclared(name: str, protocol: str) -> Metric:
    words = re.split(r"[_\d/]+", name.lower())
    better: Better = "lower" if _LOWER_WORDS & set(words) else "higher"
    return Metric(name, protocol, name.replace("_", " "), unit="number", better=better, shown=EVERYWHERE)


_ACCURACY = Metric("accuracy", heading="all", title="accuracy")
_BALANCED = Metric("balanced_accuracy", heading="bACC", title="balanced accuracy")
_MANY, _MEDIUM, _FEW = (Metric(name) for name in ("many", "medium", "few"))
_F1 = Metric("macro_f1", heading="F1", title="macro F1")
_GROUPS = (_MANY, _MEDIUM, _FEW)
_TABLES: tuple[View, ...] = (*EVERYWHERE, "curve")
_RESULT: tuple[View, ...] = (*_TABLES, "dashboard")
_REPORTED: tuple[View, ...] = ("report", "published")


def _of(protocol: str, *metrics: Metric, shown: tuple[View, ...] | None = None) -> list[Metric]:
    """Return copies of metrics for a protocol, all shown in the views ``shown`` if it is set."""
    return [replace(metric, protocol=protocol, shown=metric.shown if shown is None else shown) for metric in metrics]


_CLOSED_SET = [
    *_of("closed_set", _ACCURACY, shown=(*EVERYWHERE, "dashboard")),
    *_of("closed_set", *_GROUPS, _BALANCED, shown=(*_RESULT, "monitored")),
    *_of(
        "closed_set",
        Metric("geometric_mean", heading="GM", title="geometric mean", shown=("console",)),
        replace(_F1, shown=("console",)),
        Metric("top{k}", heading="top-{k}"),
        Metric("ece", heading="ECE", title="calibration error", better="lower", shown=("console", "calibration")),
        Metric("ece_few", heading="ECE few", title="calibration error of few", better="lower", shown=("calibration",)),
        Metric(
            "nll",
            heading="NLL",
            title="negative log-likelihood",
            unit="number",
            better="lower",
            shown=("calibration", "monitored"),
        ),
        # for networks that select locations, on data sets with bounding boxes:
        # see `ltr.runs.evaluation.location_stats`
        Metric("selected_in_box", heading="selected in box", shown=_REPORTED),
        Metric("all_in_box", heading="all in box", better="neither", shown=_REPORTED),
        Metric("dropped_in_box", heading="dropped in box", better="lower", shown=_REPORTED),
        Metric("selected_in_box_{of}", heading="selected in box {of}"),
        Metric("all_in_box_{of}", heading="all in box {of}", better="neither"),
        Metric("dropped_in_box_{of}", heading="dropped in box {of}", better="lower"),
        Metric("dropped_tanh", heading="dropped tanh", unit="number", better="lower", shown=_REPORTED),
    ),
]

_BACKGROUND = _of(
    "background",
    Metric("map", heading="mAP", title="mAP", shown=_RESULT, per_class="average_precision"),
    Metric("map_{of}", heading="mAP {of}", shown=("report",), per_class="average_precision"),
    replace(_F1, shown=_RESULT),
    Metric("macro_f1_{of}", heading="F1 {of}", title="macro F1 of {of}"),
    Metric("macro_precision", heading="precision", title="macro precision", shown=("console", "published", "curve")),
    Metric("macro_precision_{of}", heading="precision {of}"),
    Metric("macro_recall", heading="recall", title="macro recall", shown=_RESULT),
    Metric("macro_recall_{of}", heading="recall {of}"),
    Metric("precision_at_10", heading="P@10", shown=("console", "published")),
    Metric("precision_at_{k}", heading="P@{k}"),
    Metric("recall_at_precision_90", heading="R@P90", shown=("console",)),
    Metric("recall_at_precision_{k}", heading="R@P{k}"),
    Metric("r_precision", heading="R-precision"),
    Metric(
        "false_alarms_per_thousand",
        heading="alarms ‰",
        title="false alarms per thousand",
        unit="number",
        better="lower",
        shown=("console", "report", "dashboard"),
    ),
    _ACCURACY,
    *_GROUPS,
)

_OPEN_SET = [
    *_of(
        "open_set",
        Metric(
            "closed_set_accuracy",
            heading="known",
            title="closed-set accuracy",
            shown=(*EVERYWHERE, "dashboard"),
        ),
        Metric("auroc", heading="AUROC", shown=(*EVERYWHERE, "dashboard")),
        Metric("oscr", heading="OSCR", shown=(*EVERYWHERE, "dashboard")),
        Metric("aupr_known", heading="AUPR known", shown=EVERYWHERE),
        Metric("aupr_unknown", heading="AUPR unknown", shown=EVERYWHERE),
        Metric(
            "fpr95_id_pos",
            heading="FPR95 id+",
            title="FPR at 95 % TPR, known positive",
            better="lower",
            shown=("console", "report", "dashboard"),
        ),
        Metric(
            "fpr95_ood_pos",
            heading="FPR95 ood+",
            title="FPR at 95 % TPR, unknown positive",
            better="lower",
            shown=("console", "report"),
        ),
        Metric(
            "open_macro_f1_validation",
            heading="F1 val",
            title="macro F1 at the threshold of validation images",
            shown=("console",),
        ),
        Metric("open_macro_f1_{of}", heading="F1 {of}"),
        Metric("open_f_measure_{of}", heading="F-measure {of}"),
        Metric("open_accuracy_{of}", heading="known {of}"),
        Metric("unknown_rejected_{of}", heading="rejected {of}"),
        Metric("threshold_{of}", heading="threshold {of}", unit="number", better="neither"),
        Metric("detection_accuracy", heading="detection", title="detection accuracy"),
        Metric("oscr_arpl", heading="OSCR ARPL", title="OSCR as the code of ARPL counts it"),
        _ACCURACY,
        *(Metric(f"{group}_{{of}}", heading=f"{group} {{of}}") for group in ("many", "medium", "few")),
    ),
    *_of("open_set", _BALANCED, *_GROUPS, shown=("curve",)),
]

_RETRIEVAL = _of(
    "retrieval",
    Metric("recall_at_1", heading="R@1", title="recall at 1", shown=_RESULT),
    Metric("recall_at_{k}", heading="R@{k}", title="recall at {k}", shown=_TABLES),
    Metric("map_at_r", heading="MAP@R", shown=(*EVERYWHERE, "dashboard")),
    Metric("r_precision", heading="R-precision", shown=("console", "report")),
    Metric("nmi", heading="NMI", shown=("console", "report", "dashboard")),
    Metric("queries", unit="number", better="neither"),
)

_FEW_SHOT = _of(
    "few_shot",
    replace(_ACCURACY, shown=_TABLES),
    Metric("accuracy_ci95", heading="± 95 %", better="neither", shown=("console", "report")),
    Metric("episodes", unit="number", better="neither"),
)

_LABEL_SHIFT = _of(
    "label_shift",
    replace(_ACCURACY, shown=_TABLES),
    *(replace(group, shown=EVERYWHERE) for group in _GROUPS),
    replace(_BALANCED, shown=("console",)),
    Metric("unadjusted_accuracy", heading="unadjusted", title="accuracy of unadjusted scores", shown=EVERYWHERE),
    Metric("known_prior_accuracy", heading="known prior", title="accuracy with the known prior", shown=EVERYWHERE),
    Metric("prior_exponent", heading="exponent", unit="number", better="neither", shown=("console", "report")),
    Metric("images", unit="number", better="neither"),
)

# of networks of several experts: see `ltr.methods.multi_expert`
_TEST_TIME = _of(
    "test_time_aggregation",
    replace(_ACCURACY, shown=_TABLES),
    *(replace(group, shown=EVERYWHERE) for group in _GROUPS),
    replace(_BALANCED, shown=("console",)),
    Metric("equal_weights_accuracy", heading="equal weights", title="accuracy with equal weights", shown=EVERYWHERE),
    Metric("weight_{k}", heading="weight {k}", unit="number", better="neither", shown=("console", "report")),
    Metric("epochs", unit="number", better="neither"),
    Metric("images", unit="number", better="neither"),
)

_ROUTING = _of(
    "routing",
    Metric("experts", title="experts of an image", unit="number", better="lower", shown=_TABLES),
    Metric("share_{k}", heading="{k} asked", better="neither", shown=("console", "report")),
    Metric("macs", heading="MMACs", title="million MACs of an image", unit="number", better="lower", shown=EVERYWHERE),
    Metric("macs_of_one", heading="MMACs of one", unit="number", better="neither", shown=("report",)),
    Metric("macs_of_all", heading="MMACs of all", unit="number", better="neither", shown=("report",)),
)

METRICS = MetricTable(
    [*_CLOSED_SET, *_BACKGROUND, *_OPEN_SET, *_RETRIEVAL, *_FEW_SHOT, *_LABEL_SHIFT, *_TEST_TIME, *_ROUTING]
)
"""The metrics of the shipped protocols."""
