"""Curves of sweeps: metrics over a setting that differs between lines, or over values that one run evaluated."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ltr.evaluation.metrics import Metric
from ltr.report.columns import sample_deviation
from ltr.report.comparison import Line, Section
from ltr.report.read_run import number
from ltr.report.read_runs import settings, shown_value
from ltr.report.variants import number_of

_SWEPT = ("tau", "beta", "b0")  # last parts of swept keys
MIN_VALUES = 3
_MAX_METRICS = 5  # metrics per curve
_ALIASES = {"loss.beta": ("dataset.beta",)}  # set by the same override


@dataclass(frozen=True)
class Point:
    """Value of a sweep, with mean and standard deviation (NaN for one seed) of each metric by name, as fractions."""

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
        title: method and loss of the points, or the label of their line.
        metrics: the drawn metrics, in order.
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
        if key in extra_keys or (key.rpartition(".")[2] in _SWEPT and not key.startswith(("dataset.", "recipe.")))
    )
    metrics = _curve_metrics(section, section.lines)
    sweeps = []
    settings_of_lines = [settings(line.config) for line in section.lines]
    for key in candidates:
        if len({repr(config.get(key)) for config in settings_of_lines}) < MIN_VALUES:
            continue
        lines_by_rest: dict[str, list[Line]] = {}
        for line, config in zip(section.lines, settings_of_lines):
            if key in config:
                left_out = (key, *_ALIASES.get(key, ()))
                rest = {name: value for name, value in config.items() if name not in left_out}
                rest_key = json.dumps([rest, line.selection, line.scorer], sort_keys=True, default=str)
                lines_by_rest.setdefault(rest_key, []).append(line)
        for lines in lines_by_rest.values():
            if len({repr(line.config[key]) for line in lines}) >= MIN_VALUES:
                lines.sort(key=lambda line: _sort_key(line.config[key]))
                points = tuple(_point(shown_value(line.config[key]), line, metrics) for line in lines)
                config = lines[0].config
                title = [str(config.get("method.name", "?")), shown_value(config.get("loss._target_", ""))]
                sweeps.append(Curve(key, " · ".join(filter(None, title)), metrics, points))
    return sweeps


def _sort_key(value: object) -> tuple[bool, float, str]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (not is_number, float(value) if is_number else 0.0, str(value))  # type: ignore[arg-type]


def _point(value: str, line: Line, metrics: Sequence[Metric]) -> Point:
    names = [metric.name for metric in metrics]
    means, deviations = {name: line.mean(name) for name in names}, {name: line.deviation(name) for name in names}
    return Point(value, means, deviations, len(line.runs))


def _within_a_line(section: Section, line: Line) -> Curve | None:
    """Return the curve over values that every run evaluated on test (``method.tau=auto``); None without any."""
    rows_of_runs = [
        {row["variant"]: row for row in run.rows if row["split"] == "test" and row["selection"] == line.selection}
        for run in line.runs
    ]
    shared = [variant for variant in rows_of_runs[0] if all(variant in rows for rows in rows_of_runs)]
    variants = [variant for variant in shared if not math.isnan(number_of(variant))]
    parameters = {variant.partition("=")[0] for variant in variants}
    if len(parameters) != 1 or len(variants) < MIN_VALUES:
        return None
    metrics = _curve_metrics(section, [line])
    headline_variants = {str(row.get("variant")) for row in line.rows}
    points = []
    for variant in sorted(variants, key=number_of):
        values = {m.name: [number(rows[variant]["metrics"].get(m.name)) for rows in rows_of_runs] for m in metrics}
        means = {name: statistics.fmean(numbers) for name, numbers in values.items()}
        deviations = {name: sample_deviation(numbers) for name, numbers in values.items()}
        is_headline = variant in headline_variants
        points.append(Point(variant.partition("=")[2], means, deviations, len(line.runs), is_headline))
    return Curve(parameters.pop(), line.label, metrics, tuple(points))
