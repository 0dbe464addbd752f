"""Spread of results over training subsets and seeds: variance components of each method and of each difference.

The factors are a setting that samples other training images (``dataset.split_seed``) or other classes
(``dataset.trial``), and the run's seed. Runs that differ only in these two form one line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from ltr.configuration.tables import table_rows
from ltr.errors import ConfigError, DataError
from ltr.evaluation.metrics import METRICS, Metric
from ltr.report.columns import metric_table
from ltr.report.comparison import Line, headline_rows, labelled_lines
from ltr.report.conditions import Conditions
from ltr.report.paired_tests import BEST, unknown_reference
from ltr.report.read_run import number
from ltr.report.read_runs import FinishedRun, settings
from ltr.report.variance_components import VarianceComponents, deviation, variance_components

FACTORS = ("dataset.split_seed", "dataset.trial")  # besides the seed
_NORMAL_95 = 1.959963984540054  # 95 % of a normal distribution lie within so many standard deviations
_ACCURACIES = ("accuracy", "balanced_accuracy")  # equal on the balanced test sets of published numbers

Cells = dict[tuple[Any, int], float]  # (level of the factor, seed) -> value


@dataclass(frozen=True)
class SpreadLine:
    """Runs that differ only in the factor and in the seed.

    Attributes:
        label: name of the line.
        cells: value of each run.
        components: None for fewer than two levels that share two seeds.
        limited: reason why the numbers are not those of the method, see `ltr.report.limits`; empty if there is none.
    """

    label: str
    cells: Cells
    components: VarianceComponents | None
    limited: str = ""


@dataclass(frozen=True)
class SpreadPair:
    """Difference of two lines, run by run: the same subset and seed.

    Attributes:
        first, second: labels; the difference is first minus second, and its mean is not negative.
        components: None for fewer than two levels and two seeds that both lines have.
    """

    first: str
    second: str
    components: VarianceComponents | None


@dataclass(frozen=True)
class Gap:
    """Gap between two published numbers of one data set.

    Attributes:
        first, second: names of the experiments; the first number is the larger.
        numbers: both numbers in percent.
    """

    first: str
    second: str
    numbers: tuple[float, float]

    @property
    def points(self) -> float:
        return self.numbers[0] - self.numbers[1]


@dataclass(frozen=True)
class Spread:
    """Spread of the lines of one data set and protocol.

    Attributes:
        dataset, protocol: their names.
        factor: the setting besides the seed.
        metric: the analysed metric.
        lines: best first.
        pairs: all pairs of lines, or those with the reference.
        gaps: gaps between published numbers of the same data; empty for metrics that are not accuracies.
    """

    dataset: str
    protocol: str
    factor: str
    metric: Metric
    lines: tuple[SpreadLine, ...]
    pairs: tuple[SpreadPair, ...]
    gaps: tuple[Gap, ...] = ()

    @property
    def single_run_spread(self) -> float:
        """The 95 % spread of a difference of single runs on the same subset, pooled over the pairs.

        1.96 times the root of the mean total variance of the pairs; NaN without one.
        """
        return _NORMAL_95 * _pooled([pair.components.total.estimate for pair in self.pairs if pair.components])

    @property
    def seed_spread(self) -> float:
        """The 95 % spread on a given subset: without the variance of the subset's main effect."""
        variances = [
            max(0.0, pair.components.seed.estimate) + pair.components.rest.estimate
            for pair in self.pairs
            if pair.components
        ]
        return _NORMAL_95 * _pooled(variances)

    @property
    def gaps_inside(self) -> tuple[Gap, ...]:
        """The published gaps that are smaller than the spread of a difference of single runs, smallest first."""
        inside = [gap for gap in self.gaps if gap.points < 100 * self.single_run_spread]
        return tuple(sorted(inside, key=lambda gap: (gap.points, gap.first, gap.second)))


def _pooled(variances: Sequence[float]) -> float:
    return deviation(math.fsum(variances) / len(variances)) if variances else math.nan


def spreads(
    runs: Iterable[FinishedRun],
    by: Sequence[str] = ("name",),
    *,
    metric: str = "",
    against: str = "",
    level: float = 0.95,
) -> list[Spread]:
    """Return the spread of each data set and protocol whose runs have several levels of a factor.

    Args:
        by: settings that name a line.
        metric: name of the metric; by default the one that selects checkpoints.
        against: label of a reference line, or ``best``; empty compares all pairs of lines.
        level: confidence level of the intervals.

    Raises:
        ConfigError: no line has the label ``against``.
        DataError: no line has two levels of a factor with two seeds each, or all levels have the same images.
    """
    groups: dict[tuple[str, ...], dict[str, list[tuple[FinishedRun, dict[str, Any]]]]] = {}
    for run in runs:
        for row in headline_rows(run):
            if row["headline"] and row["selection"] != "best_test":
                key, line_key = _keys(run, row)
                groups.setdefault(key, {}).setdefault(line_key, []).append((run, row))
    _check_values(groups.values(), metric)
    all_spreads = [
        spread
        for members in groups.values()
        if (spread := _spread(list(members.values()), by, metric, against, level)) is not None
    ]
    if against and against != BEST and all_spreads and not any(spread.pairs for spread in all_spreads):
        labels = [line.label for spread in all_spreads for line in spread.lines]
        raise ConfigError(unknown_reference(against, labels))
    if not any(line.components for spread in all_spreads for line in spread.lines):
        raise DataError(
            f"--spread: no method has runs of two or more values of {' or '.join(FACTORS)} with the same two or more "
            "seeds. Train such runs, e.g. ltr-train -m dataset.subset=seeded dataset.split_seed=0,1,2 seed=0,1,2"
        )
    return sorted(all_spreads, key=lambda spread: (spread.dataset, spread.protocol))


def _check_values(groups: Iterable[Mapping[str, Sequence[tuple[FinishedRun, dict[str, Any]]]]], metric: str) -> None:
    """Raise DataError if no run has a value of the metric, such as that of a shot group without classes."""
    pairs = [pair for members in groups for line in members.values() for pair in line]
    values = [number(row["metrics"].get(metric or run.metric)) for run, row in pairs]
    if values and all(value != value for value in values):
        raise DataError(
            f"--spread: no run has a value of {metric or pairs[0][0].metric}; there is nothing to average, as in a "
            "shot group without classes. Name another metric: --metric NAME"
        )


def _keys(run: FinishedRun, row: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return the keys by which runs are grouped into spreads, and into lines of a spread."""
    data = run.data
    shared = (run.config.get("dataset.name", "?"), row["protocol"], data.get("test_images"), data.get("classes"))
    parts = {key: value for key, value in settings(run.config).items() if key not in FACTORS}
    variant = str(row.get("variant", "default")).partition("=")[0]
    line = [parts, data.get("fingerprint"), row["selection"], row.get("scorer"), variant]
    return tuple(map(str, shared)), json.dumps(line, sort_keys=True, default=str)


def _check_subsets(runs: Sequence[FinishedRun], factor: str) -> None:
    """Raise DataError if runs with different values of a factor were trained and tested on the same images."""
    levels = {_level(run, factor) for run in runs}
    digests = {run.data.get("split_digest") for run in runs}
    if len(digests) == 1 and None not in digests:
        raise DataError(
            f"--spread: the runs have {len(levels)} values of {factor} and all the same images, so that nothing can be "
            "said about subsets. Only some splits depend on it, dataset.subset=seeded for example, and not the "
            "published subset dataset.subset=cao"
        )


def _spread(
    members: Sequence[Sequence[tuple[FinishedRun, dict[str, Any]]]],
    by: Sequence[str],
    metric: str,
    against: str,
    level: float,
) -> Spread | None:
    """Return the spread of lines of comparable runs; None if no factor varies or no run has a value of the metric."""
    runs = [run for line in members for run, _ in line]
    levels_of_lines = {key: [{_level(run, key) for run, _ in line} for line in members] for key in FACTORS}
    factor = next((key for key, levels in levels_of_lines.items() if max(map(len, levels)) > 1), "")
    table = metric_table(run.declared_metrics for run in runs)
    name = metric or runs[0].metric
    if not factor or not any(name in row["metrics"] for line in members for _, row in line):
        return None
    _check_subsets(runs, factor)
    protocol = str(members[0][0][1]["protocol"])
    cells = [_cells(line, factor, name) for line in members]
    labelled = labelled_lines([_without_factors(line) for line in members], by)
    line_of_run = {line.runs[0].run_hash: line for line in labelled}  # labelling may change the order
    lines = [
        SpreadLine(line.label, cells_of_line, _components(cells_of_line, level), line.limited)
        for cells_of_line, pairs_of_line in zip(cells, members)
        if cells_of_line and (line := line_of_run[pairs_of_line[0][0].run_hash])
    ]
    if not lines:
        return None
    is_lower_better = table.find(name, protocol).is_lower_better
    lines.sort(key=lambda line: (_mean(line) if is_lower_better else -_mean(line), line.label))
    chosen = list(combinations(lines, 2))
    if against:
        label = lines[0].label if against == BEST else against
        chosen = [pair for pair in chosen if label in (pair[0].label, pair[1].label)]
    pairs = [_pair(first, second, level) for first, second in chosen]
    gaps = published_gaps(runs[0].config) if protocol == "closed_set" and name in _ACCURACIES else ()
    dataset = str(runs[0].config.get("dataset.name", "?"))
    return Spread(dataset, protocol, factor, table.find(name, protocol), tuple(lines), tuple(pairs), gaps)


def _level(run: FinishedRun, factor: str) -> Any:
    value = run.config.get(factor)
    return value if isinstance(value, (int, float, str)) else None


def _cells(line: Iterable[tuple[FinishedRun, dict[str, Any]]], factor: str, metric: str) -> Cells:
    return {
        (_level(run, factor), run.seed): value
        for run, row in line
        if (value := number(row["metrics"].get(metric))) == value
    }


def _without_factors(line: Sequence[tuple[FinishedRun, dict[str, Any]]]) -> Line:
    """Return a line whose label cannot name the factors, which differ between its runs."""
    plain = [replace(run, config={k: v for k, v in run.config.items() if k not in FACTORS}) for run, _ in line]
    return Line(tuple(plain), tuple(row for _, row in line))


def _mean(line: SpreadLine) -> float:
    return math.fsum(line.cells.values()) / len(line.cells)


def _pair(first: SpreadLine, second: SpreadLine, level: float) -> SpreadPair:
    shared = [cell for cell in first.cells if cell in second.cells]
    if shared and math.fsum(first.cells[cell] - second.cells[cell] for cell in shared) < 0:
        first, second = second, first
    differences = {cell: first.cells[cell] - second.cells[cell] for cell in shared}
    return SpreadPair(first.label, second.label, _components(differences, level))


def _components(cells: Cells, level: float) -> VarianceComponents | None:
    levels, seeds = complete_grid(cells)
    if len(levels) < 2 or len(seeds) < 2:
        return None
    return variance_components(np.array([[cells[one, seed] for seed in seeds] for one in levels]), level)


def complete_grid(cells: Iterable[tuple[Any, int]]) -> tuple[list[Any], list[int]]:
    """Return the levels and seeds, in order, of the largest complete grid: each level has a value for each seed.

    The analysis needs a complete grid, so levels or seeds with gaps are left out. The seeds of each level are tried.
    """
    seeds_of: dict[Any, set[int]] = {}
    for level, seed in cells:
        seeds_of.setdefault(level, set()).add(seed)
    best: tuple[list[Any], list[int]] = ([], [])
    for pattern in {frozenset(seeds) for seeds in seeds_of.values()}:
        levels = [level for level, seeds in seeds_of.items() if pattern <= seeds]
        if (len(levels) * len(pattern), len(levels)) > (len(best[0]) * len(best[1]), len(best[0])):
            best = (sorted(levels, key=lambda level: (str(type(level)), level)), sorted(pattern))
    return best


def published_gaps(config: dict[str, Any]) -> tuple[Gap, ...]:
    """Return the gaps between all pairs of published accuracies of experiments on a run's data set.

    The data set has the run's name, imbalance and profile; the choice of its images may differ.
    """
    rows = []
    for row in table_rows():
        if row.published is None or row.metric != "accuracy" or METRICS.find(row.metric).protocol != "closed_set":
            continue
        values = dict(Conditions.of(row).values)
        wanted = {key: value for key, value in values.items() if key.startswith("dataset.") and key != "dataset.subset"}
        if wanted.get("dataset.name") is not None and all(config.get(key) == value for key, value in wanted.items()):
            rows.append(row)
    rows.sort(key=lambda row: row.published or 0, reverse=True)
    return tuple(
        Gap(first.config, second.config, (first.published or 0, second.published or 0))
        for first, second in combinations(rows, 2)
    )
