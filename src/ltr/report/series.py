"""Sweeps as curves: accuracies over the one number in which lines differ, or that one run evaluated."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ltr.evaluation.metrics import Metric
from ltr.report.comparison import Line, Section, deviation
from ltr.report.read_run import number
from ltr.report.read_runs import settings, shown_value
from ltr.report.variants import number_of

SWEPT = ("tau", "beta", "b0")  # the last parts of keys that are looked for
_LEAST = 3  # values of a curve
_MOST = 5  # metrics of a curve
_ALIASES = {"loss.beta": ("dataset.beta",)}  # set by the same override


@dataclass(frozen=True)
class Point:
    """One value of a sweep: means and standard deviations (NaN for one seed) of the metrics, as fractions."""

    value: str
    means: dict[str, float]
    deviations: dict[str, float]
    seeds: int
    is_headline: bool = False


@dataclass(frozen=True)
class Curve:
    """A sweep over one number.

    Attributes:
        key: its name.
        title: of what else is the same in all points.
        metrics: those drawn, in order; points have their values by name.
        points: in order of their values; ``null`` last.
    """

    key: str
    title: str
    metrics: tuple[Metric, ...]
    points: tuple[Point, ...]


def curves(section: Section, more: Sequence[str] = ()) -> list[Curve]:
    """Return the sweeps among a section's lines.

    Args:
        more: keys beside those whose last part is tau, beta or b0.
    """
    sweeps = _across_lines(section, more)
    return sweeps + [curve for line in section.lines if (curve := _within_a_line(section, line)) is not None]


def _shown(section: Section, lines: Sequence[Line]) -> tuple[Metric, ...]:
    known = dict.fromkeys(name for line in lines for name in line.rows[0]["metrics"])
    return tuple((section.table.columns("curve", section.protocol, known) or section.metrics())[:_MOST])


def _across_lines(section: Section, more: Sequence[str]) -> list[Curve]:
    candidates = dict.fromkeys(
        key
        for line in section.lines
        for key in line.config
        if key in more or (key.rpartition(".")[2] in SWEPT and not key.startswith(("dataset.", "recipe.")))
    )
    metrics = _shown(section, section.lines)
    sweeps = []
    plain = [settings(line.config) for line in section.lines]
    for key in candidates:
        if len({repr(config.get(key)) for config in plain}) < _LEAST:
            continue
        alike: dict[str, list[Line]] = {}
        for line, config in zip(section.lines, plain):
            if key in config:
                left_out = (key, *_ALIASES.get(key, ()))
                rest = {name: value for name, value in config.items() if name not in left_out}
                same = json.dumps([rest, line.selection, line.scorer], sort_keys=True, default=str)
                alike.setdefault(same, []).append(line)
        for lines in alike.values():
            if len({repr(line.config[key]) for line in lines}) >= _LEAST:
                lines.sort(key=lambda line: _order(line.config[key]))
                points = tuple(_point(shown_value(line.config[key]), [line], metrics) for line in lines)
                sweeps.append(Curve(key, _title(lines[0]), metrics, points))
    return sweeps


def _title(line: Line) -> str:
    config = line.config
    parts = [config.get("method.name", "?"), shown_value(config.get("loss._target_", ""))]
    return " · ".join(str(part) for part in parts if part)


def _order(value: object) -> tuple[bool, float, str]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (not is_number, float(value) if is_number else 0.0, str(value))  # type: ignore[arg-type]


def _point(value: str, lines: Sequence[Line], metrics: Sequence[Metric], is_headline: bool = False) -> Point:
    line = lines[0]
    return Point(
        value,
        {metric.name: line.mean(metric.name) for metric in metrics},
        {metric.name: line.deviation(metric.name) for metric in metrics},
        len(line.runs),
        is_headline,
    )


def _within_a_line(section: Section, line: Line) -> Curve | None:
    """Return the values that every run of a line evaluated on test, such as those of ``method.tau=auto``."""
    rows_of = [
        {row["variant"]: row for row in run.rows if row["split"] == "test" and row["selection"] == line.selection}
        for run in line.runs
    ]
    shared = [variant for variant in rows_of[0] if all(variant in rows for rows in rows_of)]
    values = [variant for variant in shared if not math.isnan(number_of(variant))]
    names = {variant.partition("=")[0] for variant in values}
    if len(names) != 1 or len(values) < _LEAST:
        return None
    metrics = _shown(section, [line])
    chosen = {str(row.get("variant")) for row in line.rows}
    points = []
    for variant in sorted(values, key=number_of):
        shown = [metric.name for metric in metrics]
        numbers = {name: [number(rows[variant]["metrics"].get(name)) for rows in rows_of] for name in shown}
        points.append(
            Point(
                variant.partition("=")[2],
                {name: statistics.fmean(values) for name, values in numbers.items()},
                {name: deviation(values) for name, values in numbers.items()},
                len(line.runs),
                variant in chosen,
            )
        )
    return Curve(names.pop(), line.label, metrics, tuple(points))
