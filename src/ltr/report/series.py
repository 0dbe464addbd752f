"""Curves of sweeps: metrics over a number that differs between lines, or that a run evaluated at several values."""

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

SWEPT = ("tau", "beta", "b0")  # last parts of swept keys
_MIN_VALUES = 3  # a curve needs this many values
_MAX_METRICS = 5  # metrics per curve
_ALIASES = {"loss.beta": ("dataset.beta",)}  # set by the same override


@dataclass(frozen=True)
class Point:
    """Value of a sweep with means and standard deviations (NaN for one seed) of the metrics, as fractions."""

    value: str
    means: dict[str, float]
    deviations: dict[str, float]
    seeds: int
    is_headline: bool = False


@dataclass(frozen=True)
class Curve:
    """Sweep over one number.

    Attributes:
        key: the swept key.
        title: method and loss, or the line, that all points share.
        metrics: the drawn metrics, in order; points hold their values by name.
        points: points in order of their values; ``null`` last.
    """

    key: str
    title: str
    metrics: tuple[Metric, ...]
    points: tuple[Point, ...]


def curves(section: Section, extra_keys: Sequence[str] = ()) -> list[Curve]:
    """Return the sweeps among a section's lines.

    Args:
        extra_keys: swept keys in addition to those whose last part is tau, beta or b0.
    """
    sweeps = _across_lines(section, extra_keys)
    return sweeps + [curve for line in section.lines if (curve := _within_a_line(section, line)) is not None]


def _curve_metrics(section: Section, lines: Sequence[Line]) -> tuple[Metric, ...]:
    known = dict.fromkeys(name for line in lines for name in line.rows[0]["metrics"])
    return tuple((section.table.columns("curve", section.protocol, known) or section.metrics())[:_MAX_METRICS])


def _across_lines(section: Section, extra_keys: Sequence[str]) -> list[Curve]:
    candidates = dict.fromkeys(
        key
        for line in section.lines
        for key in line.config
        if key in extra_keys or (key.rpartition(".")[2] in SWEPT and not key.startswith(("dataset.", "recipe.")))
    )
    metrics = _curve_metrics(section, section.lines)
    sweeps = []
    settings_of_lines = [settings(line.config) for line in section.lines]
    for key in candidates:
        if len({repr(config.get(key)) for config in settings_of_lines}) < _MIN_VALUES:
            continue
        lines_by_rest: dict[str, list[Line]] = {}
        for line, config in zip(section.lines, settings_of_lines):
            if key in config:
                left_out = (key, *_ALIASES.get(key, ()))
                rest = {name: value for name, value in config.items() if name not in left_out}
                rest_key = json.dumps([rest, line.selection, line.scorer], sort_keys=True, default=str)
                lines_by_rest.setdefault(rest_key, []).append(line)
        for lines in lines_by_rest.values():
            if len({repr(line.config[key]) for line in lines}) >= _MIN_VALUES:
                lines.sort(key=lambda line: _sort_key(line.config[key]))
                points = tuple(_point(shown_value(line.config[key]), [line], metrics) for line in lines)
                sweeps.append(Curve(key, _title(lines[0]), metrics, points))
    return sweeps


def _title(line: Line) -> str:
    config = line.config
    parts = [config.get("method.name", "?"), shown_value(config.get("loss._target_", ""))]
    return " · ".join(str(part) for part in parts if part)


def _sort_key(value: object) -> tuple[bool, float, str]:
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
    """Return the curve over values that every run evaluated on test (``method.tau=auto``); None if there is none."""
    rows_of = [
        {row["variant"]: row for row in run.rows if row["split"] == "test" and row["selection"] == line.selection}
        for run in line.runs
    ]
    shared = [variant for variant in rows_of[0] if all(variant in rows for rows in rows_of)]
    values = [variant for variant in shared if not math.isnan(number_of(variant))]
    names = {variant.partition("=")[0] for variant in values}
    if len(names) != 1 or len(values) < _MIN_VALUES:
        return None
    metrics = _curve_metrics(section, [line])
    headline_variants = {str(row.get("variant")) for row in line.rows}
    points = []
    for variant in sorted(values, key=number_of):
        names_of_metrics = [metric.name for metric in metrics]
        numbers = {name: [number(rows[variant]["metrics"].get(name)) for rows in rows_of] for name in names_of_metrics}
        points.append(
            Point(
                variant.partition("=")[2],
                {name: statistics.fmean(values) for name, values in numbers.items()},
                {name: deviation(values) for name, values in numbers.items()},
                len(line.runs),
                variant in headline_variants,
            )
        )
    return Curve(names.pop(), line.label, metrics, tuple(points))
