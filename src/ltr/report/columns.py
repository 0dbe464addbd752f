"""Headings and values of metrics as tables show them; what each metric is stands in `ltr.evaluation.metrics`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltr.escaping import name as short_name
from ltr.evaluation.metrics import METRICS, Metric, MetricTable
from ltr.report.style import NOTHING


def metric_table(declarations: Iterable[Sequence[Mapping[str, Any]]]) -> MetricTable:
    """Return the shipped metrics and further ones.

    Args:
        declarations: of each run, what its ``result.json`` declares: the metrics of protocols that are not ltr's own.
    """
    declared = {(one["name"], one["protocol"]): one for of_run in declarations for one in of_run}
    return METRICS.extended(list(declared.values()))


def heading(metric: Metric) -> str:
    """Return the heading of a metric's column, with an arrow where smaller is better."""
    return f"{short_name(metric.heading)}{' ↓' if metric.is_lower_better else ''}"


def value_text(metric: Metric, mean: float, deviation: float = math.nan) -> str:
    """Return a value as tables show it, with ± the deviation where there is one.

    Fractions are in percent with one decimal; other numbers have three digits, or are whole from 1,000.
    """
    if mean != mean:
        return NOTHING
    if metric.is_fraction:
        text, spread = f"{100 * mean:.1f}", f"{100 * deviation:.1f}"
    else:
        text, spread = f"{mean:,.0f}" if abs(mean) >= 1000 else f"{mean:.3g}", f"{deviation:.2g}"
    return text if deviation != deviation else f"{text} ± {spread}"


def unit_note(metrics: Iterable[Metric]) -> str:
    """Return a table's unit in words: percent, and which columns are not."""
    others = [short_name(metric.heading) for metric in metrics if not metric.is_fraction]
    return f"percent ({', '.join(others)} as they are)" if others else "percent"
