"""Headings and values of metrics in tables; `ltr.evaluation.metrics` declares the metrics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltr.escaping import name as short_name
from ltr.evaluation.metrics import METRICS, Metric, MetricTable
from ltr.report.style import NOTHING


def metric_table(declarations: Iterable[Sequence[Mapping[str, Any]]]) -> MetricTable:
    """Return the shipped metrics, extended by those that runs declare.

    Args:
        declarations: for each run the ``declared_metrics`` of its ``result.json``: metrics of a user's own protocols.
    """
    declared = {(metric["name"], metric["protocol"]): metric for metrics in declarations for metric in metrics}
    return METRICS.extended(list(declared.values()))


def heading(metric: Metric) -> str:
    """Return the heading of a metric's column, with an arrow if smaller is better."""
    return f"{short_name(metric.heading)}{' ↓' if metric.is_lower_better else ''}"


def value_text(metric: Metric, mean: float, deviation: float = math.nan) -> str:
    """Return the text of a value, with ± the deviation if it is not NaN.

    Fractions are in percent with one decimal; other numbers have three digits, or are whole from 1,000.
    """
    if mean != mean:
        return NOTHING
    if metric.is_fraction:
        text, spread = f"{100 * mean:.1f}", f"{100 * deviation:.1f}"
    else:
        text, spread = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.3g}", f"{deviation:.2g}"
    return text if deviation != deviation else f"{text} ± {spread}"


def sample_deviation(values: Sequence[float]) -> float:
    """Return the standard deviation (n - 1); NaN for fewer than two values, or if one is NaN."""
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)  # statistics.stdev works in fractions, a hundred times slower
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def mean_text(metric: Metric, values: Sequence[float]) -> str:
    """Return the text of a mean, with ± the standard deviation (n - 1) of two or more values; a dash if one is NaN."""
    return value_text(metric, statistics.fmean(values), sample_deviation(values))


def zero_if_nan(value: float) -> float:
    """Return the value, or 0 for NaN."""
    return 0.0 if value != value else value


def unit_note(metrics: Iterable[Metric]) -> str:
    """Return the unit of some columns: percent, and the names of those that are not in percent."""
    other_units = [short_name(metric.heading) for metric in metrics if not metric.is_fraction]
    return f"percent ({', '.join(other_units)} as they are)" if other_units else "percent"
