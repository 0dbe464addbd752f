"""What a dashboard of runs shows: sections of panels, each by the keys that runs log. Data alone, for any service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["line", "bar", "scatter", "picture"]


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: of it.
        kind: ``line`` over epochs, ``bar`` of final values, ``scatter`` of two final values, ``picture`` of a run.
        keys: what is shown, as `ltr-train` logs it; of a scatter x, then y. Of a line's keys a run has some: it
            watches the validation split, or the test split where that was asked for, or none.
    """

    title: str
    kind: Kind
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Panels under one heading.

    Attributes:
        name: the heading.
        panels: in order.
        protocols: whose runs log these keys.
        is_open: unfolded at first.
    """

    name: str
    panels: tuple[Panel, ...]
    protocols: tuple[str, ...] = ("closed_set",)
    is_open: bool = True


def _watched(title: str, *metrics: str) -> Panel:
    keys = tuple(f"{split}/{metric}" for split in ("val", "test") for metric in metrics)
    return Panel(title, "line", keys)


def _final(title: str, *metrics: str) -> Panel:
    return Panel(title, "bar", tuple(f"final/{metric}" for metric in metrics))


def _pictures(*names: str) -> tuple[Panel, ...]:
    return tuple(Panel(name.replace("_", " "), "picture", (f"figures/{name}",)) for name in names)


EVERY_PROTOCOL = ("closed_set", "background", "open_set", "retrieval")

SECTIONS: tuple[Section, ...] = (
    Section(
        "Result",
        (
            _final("balanced accuracy", "balanced_accuracy"),
            _final("accuracy", "accuracy"),
            _final("many", "many"),
            _final("medium", "medium"),
            _final("few", "few"),
            Panel("few against many", "scatter", ("final/many", "final/few")),
        ),
    ),
    Section(
        "While training",
        (
            Panel("training loss", "line", ("train/loss",)),
            Panel("training accuracy", "line", ("train/accuracy",)),
            Panel("learning rate", "line", ("lr",)),
            Panel("training images a second", "line", ("images_per_second",)),
        ),
        EVERY_PROTOCOL,
    ),
    Section(
        "Watched split",
        (
            _watched("balanced accuracy", "balanced_accuracy"),
            _watched("many", "many"),
            _watched("medium", "medium"),
            _watched("few", "few"),
            _watched("negative log-likelihood", "nll"),
        ),
    ),
    Section(
        "Calibration",
        (_final("calibration error", "ece"), _final("calibration error of few", "ece_few"), _final("NLL", "nll")),
        is_open=False,
    ),
    Section(
        "Background",
        (
            _final("mAP", "map"),
            _final("macro F1", "macro_f1"),
            _final("macro recall", "macro_recall"),
            _final("false alarms per thousand", "false_alarms_per_thousand"),
        ),
        ("background",),
        is_open=False,
    ),
    Section(
        "Open set",
        (
            _final("AUROC", "auroc"),
            _final("OSCR", "oscr"),
            _final("closed-set accuracy", "closed_set_accuracy"),
            _final("FPR at 95 % TPR, known positive", "fpr95_id_pos"),
        ),
        ("open_set",),
        is_open=False,
    ),
    Section(
        "Retrieval",
        (_final("recall at 1", "recall_at_1"), _final("MAP@R", "map_at_r"), _final("NMI", "nmi")),
        ("retrieval",),
        is_open=False,
    ),
    # with figures=two a run has the first two
    Section(
        "Figures",
        _pictures(
            "accuracy_by_frequency",
            "training_curves",
            "confusion",
            "predicted_prior",
            "weight_norms",
            "reliability",
            "draws",
        ),
    ),
)
