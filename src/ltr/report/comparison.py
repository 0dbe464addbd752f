"""Grouping of runs: averages over seeds, tables of comparable lines, and the best lines of a table.

Runs are averaged if they differ only in their seed. The lines of a table are measured on the same test images. Results
that were selected on the test set are listed last and never marked as best.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ltr.escaping import name as short_name
from ltr.evaluation.metrics import METRICS, Metric, MetricTable
from ltr.report.columns import metric_table, sample_deviation, zero_if_nan
from ltr.report.limits import limits_of, longer_schedule
from ltr.report.naming import check_keys, differences, setting, with_later_options
from ltr.report.read_run import number
from ltr.report.read_runs import FinishedRun, shown_value

_MAX_COLUMNS = 8  # columns of protocols that declare no metrics


@dataclass(frozen=True)
class Line:
    """Runs that differ only in their seed, under one protocol, in order of their seeds.

    Attributes:
        runs: the runs.
        rows: each run's row of ``result.json``.
        label: name of the line in its table.
    """

    runs: tuple[FinishedRun, ...]
    rows: tuple[dict[str, Any], ...]
    label: str = ""

    @property
    def config(self) -> dict[str, Any]:
        return self.runs[0].config

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def scorer(self) -> str | None:
        return self.rows[0].get("scorer")

    @property
    def variant(self) -> str:
        """``default`` or ``tau=0.35``; ``tau chosen`` if seeds selected different values."""
        variants = {str(row.get("variant", "default")) for row in self.rows}
        return variants.pop() if len(variants) == 1 else f"{variants.pop().partition('=')[0]} chosen"

    @property
    def selection(self) -> str:
        return str(self.rows[0]["selection"])

    @property
    def on_test(self) -> bool:
        """True if the weights were selected on the test set."""
        return self.selection == "best_test"

    def values(self, metric: str) -> list[float]:
        """Return one value per run, NaN if there was nothing to average."""
        return [number(row["metrics"].get(metric)) for row in self.rows]

    def mean(self, metric: str) -> float:
        """Return the mean over runs; NaN if one run has no value, because such means are not comparable."""
        return statistics.fmean(self.values(metric))

    def deviation(self, metric: str) -> float:
        """Return the standard deviation over seeds (n - 1); NaN for one run."""
        return sample_deviation(self.values(metric))

    @cached_property
    def limited(self) -> str:
        """Reason why the numbers are not those of the method; empty if there is none. See `ltr.report.limits`."""
        return limits_of((run.config, run.data) for run in self.runs)

    @cached_property
    def longer(self) -> str:
        """Note about a schedule that is longer than the recipe's; empty for others. See `ltr.report.limits`."""
        return longer_schedule(self.config)

    @property
    def caveat(self) -> str:
        """The footnote of the line: a limit, or a longer schedule; empty without one."""
        return self.limited or self.longer

    @cached_property
    def seconds(self) -> float:
        """Seconds of all stages, including reused ones; mean over seeds, NaN if the stages of a run are unknown."""
        costs = [sum(number(stage.get("seconds")) for stage in run.stages) for run in self.runs if run.stages]
        return statistics.fmean(costs) if len(costs) == len(self.runs) else math.nan

    @cached_property
    def images_per_second(self) -> float:
        """Training images per second of the first stage, median over seeds; NaN if unknown.

        It is the images sampled per epoch times ``trainer.max_epochs``, divided by the stage's seconds, which include
        validation and saving.
        """
        rates = [rate for run in self.runs if (rate := _rate(run)) == rate]
        return statistics.median(rates) if rates else math.nan


def _rate(run: FinishedRun) -> float:
    config = run.config
    if not run.stages or f"method.{run.stages[0].get('name')}.epochs" in config or config.get("method.start_from"):
        return math.nan
    images = config.get("sampler.num_samples") or run.data.get("train_images")
    epochs, seconds = config.get("trainer.max_epochs"), number(run.stages[0].get("seconds"))
    if not images or not epochs or not seconds > 0:
        return math.nan
    limit = config.get("trainer.limit_train_batches")
    if limit is not None:
        images = min(images, limit * config.get("batch_size", 0))
    return images * epochs / seconds


@dataclass(frozen=True)
class Section:
    """Comparable lines: one data set, one protocol, the same test images.

    Attributes:
        dataset, protocol, split: their names.
        digest: digest of the split.
        lines: best first; limited lines last.
        selected_on_test: lines whose weights were selected on the test set; listed last and not compared.
        metric: name of the metric that selects checkpoints.
        test_images, classes: their numbers.
        table: all metrics, including those that the runs declare.
    """

    dataset: str
    protocol: str
    split: str
    digest: str
    lines: tuple[Line, ...]
    selected_on_test: tuple[Line, ...] = ()
    metric: str = "balanced_accuracy"
    test_images: int = 0
    classes: int = 0
    table: MetricTable = METRICS

    @property
    def title(self) -> str:
        return " · ".join(map(short_name, (self.dataset, self.protocol, self.split or "unnamed split")))

    @property
    def all_lines(self) -> tuple[Line, ...]:
        """The lines, those that were selected on the test set last."""
        return (*self.lines, *self.selected_on_test)

    def metrics(self, requested: Sequence[str] = ()) -> list[Metric]:
        """Return the columns: requested metrics with values; by default those that reports show for the protocol."""
        reported = list(dict.fromkeys(name for line in self.all_lines for name in line.rows[0]["metrics"]))
        if requested:
            names = reported if "all" in requested else [name for name in requested if name in reported]
            return [self.table.find(name, self.protocol) for name in names]
        columns = self.table.columns("report", self.protocol, reported)
        if self.table.has_protocol(self.protocol):
            return columns
        return sorted(columns, key=lambda metric: metric.name != self.metric)[:_MAX_COLUMNS]


@dataclass(frozen=True)
class Marks:
    """Indices of the best lines by one metric, and of the lines that tie with them."""

    best: frozenset[int] = field(default_factory=frozenset)
    ties: frozenset[int] = field(default_factory=frozenset)


def marks(lines: Sequence[Line], metric: Metric) -> Marks:
    """Return the indices of the best lines and of their ties.

    A line ties if its mean is at most one standard deviation away from the best mean, the larger one of the two lines'.
    Single runs have no deviation and tie only if they are equal. Limited lines are not compared, and a single line is
    not marked.
    """
    means = {index: lines[index].mean(metric.name) for index in ranked(lines)}
    means = {index: mean for index, mean in means.items() if mean == mean}
    if len(means) < 2 or not metric.is_ranked:
        return Marks()
    deviations = {index: zero_if_nan(lines[index].deviation(metric.name)) for index in means}
    best_mean = min(means.values()) if metric.is_lower_better else max(means.values())
    best = frozenset(index for index, mean in means.items() if mean == best_mean)
    best_deviation = max(deviations[index] for index in best)
    near = (i for i, mean in means.items() if abs(mean - best_mean) <= max(best_deviation, deviations[i]))
    return Marks(best, frozenset(near) - best)


def ranked(lines: Sequence[Line]) -> list[int]:
    """Return the indices of the lines that are compared: not limited, and without longer schedules unless all are."""
    unlimited = [index for index, line in enumerate(lines) if not line.limited]
    if len({lines[index].longer for index in unlimited}) == 1:
        return unlimited
    return [index for index in unlimited if not lines[index].longer]


def sections(runs: Iterable[FinishedRun], by: Sequence[str] = ("name",), sort_by: str = "") -> list[Section]:
    """Group all runs into tables.

    Args:
        by: the settings that name a line: ``name``, ``method``, ``loss``, or any key of the configuration.
        sort_by: the metric that orders the lines; by default the one that selects checkpoints.

    Raises:
        ConfigError: no run has a key of ``by``.
    """
    runs = list({(run.group, run.run_hash): run for run in runs}.values())  # a run counts once
    check_keys(runs, by, "--by")
    tables: dict[tuple[str, str, str, str], dict[tuple, list[tuple[FinishedRun, dict[str, Any]]]]] = {}
    fingerprints = _fingerprints(runs)
    for run in runs:
        dataset, digest = _test_split(run)
        images = "" if len(fingerprints[dataset, digest]) == 1 else str(run.data.get("fingerprint") or "unknown")
        for row in headline_rows(run):
            lines_of_table = tables.setdefault((dataset, row["protocol"], digest, images), {})
            # seeds may select different values of a number
            variant = str(row.get("variant", "default")).partition("=")[0]
            line_key = (run.group, row["selection"], row.get("scorer"), variant)
            lines_of_table.setdefault(line_key, []).append((run, row))
    result: list[Section] = []
    for (dataset, protocol, digest, images), groups in tables.items():
        lines = []
        for members in groups.values():
            members.sort(key=lambda pair: pair[0].seed)
            lines.append(Line(tuple(run for run, _ in members), tuple(row for _, row in members)))
        first = lines[0].runs[0]
        metric = first.metric if any(first.metric in line.rows[0]["metrics"] for line in lines) else ""
        table = metric_table(run.declared_metrics for line in lines for run in line.runs)
        ordered = _sorted_lines(labelled_lines(lines, by), table.find(sort_by or metric, protocol))
        compared = tuple(line for line in ordered if not line.on_test)
        on_test = tuple(line for line in ordered if line.on_test)
        test_images, classes = int(first.data.get("test_images", 0)), int(first.data.get("classes", 0))
        split = str(first.data.get("split", "")) + (f", data {images[:8]}" if images else "")
        result.append(Section(dataset, protocol, split, digest, compared, on_test, metric, test_images, classes, table))
    return sorted(result, key=lambda section: (section.dataset, section.protocol, section.split))


def _test_split(run: FinishedRun) -> tuple[str, str]:
    """Return the names of a run's data set and of its split."""
    return str(run.config.get("dataset.name", "?")), str(run.data.get("split_digest", ""))


def _fingerprints(runs: Iterable[FinishedRun]) -> dict[tuple[str, str], set[str | None]]:
    """Return the fingerprints of the data of each data set and split.

    The digest of a split is one of positions and labels, which other images may have, too. Runs of earlier versions
    have no fingerprint; they count as measured on the same images where all other runs have one fingerprint.
    """
    fingerprints: dict[tuple[str, str], set[str | None]] = {}
    for run in runs:
        fingerprints.setdefault(_test_split(run), set()).add(run.data.get("fingerprint"))
    return {
        split: known - {None} if len(known) == 2 and None in known else known for split, known in fingerprints.items()
    }


def headline_rows(run: FinishedRun) -> list[dict[str, Any]]:
    """Return the headline row and the rows of other protocols and scorers with the same split, weights and variant."""
    on_test = [row for row in run.rows if row["split"] != "val"]
    headline = next((row for row in on_test if row["headline"]), on_test[0] if on_test else None)
    if headline is None:
        return []
    shared_keys = ("split", "checkpoint", "selection", "variant")
    return [row for row in on_test if all(row.get(key) == headline.get(key) for key in shared_keys)]


def _sorted_lines(lines: Sequence[Line], metric: Metric) -> list[Line]:
    def sort_key(line: Line) -> tuple[bool, bool, float, str]:
        mean = line.mean(metric.name)
        value = zero_if_nan(mean if metric.is_lower_better else -mean)
        return bool(line.limited), mean != mean, value, line.label

    return sorted(lines, key=sort_key)


def labelled_lines(lines: Sequence[Line], by: Sequence[str]) -> list[Line]:
    """Return lines with labels made of the settings ``by``; settings that differ tell equal labels apart."""
    variants, scorers = ({line.variant for line in lines}, {line.scorer for line in lines})
    lines_by_label: dict[str, list[Line]] = {}
    for line in lines:
        parts = [shown_value(setting(line.config, key)) for key in by]
        if len(variants) > 1 and line.variant != "default":
            parts.append(line.variant)
        if len(scorers) > 1 and line.scorer:
            parts.append(line.scorer)
        lines_by_label.setdefault(" ".join(parts), []).append(line)
    labelled = []
    for label, lines_of_label in lines_by_label.items():
        suffixes = [""]
        if len(lines_of_label) > 1:
            suffixes = differences(with_later_options([line.config for line in lines_of_label]))
        if len(set(suffixes)) < len(lines_of_label):
            suffixes = [f"{text} {line.runs[0].group[:8]}".strip() for text, line in zip(suffixes, lines_of_label)]
        for line, text in zip(lines_of_label, suffixes):
            labelled.append(Line(line.runs, line.rows, f"{label} {text}".strip()))
    return labelled
