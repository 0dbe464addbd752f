"""Plots of an HTML report as inline SVG: sweeps, and cost against accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ltr.evaluation.groups import GROUPS
from ltr.evaluation.metrics import Metric
from ltr.report.columns import heading, value_text, zero_if_nan
from ltr.report.html_page import text
from ltr.report.series import Curve

_LETTER = 7.6  # pixels, width of a letter of the plots' 13 px type in wide fonts
_LINE = 15  # pixels, height of a line of text
_LONGEST_LABEL = 30  # letters
_MAX_LABELS = 40  # so many points have labels: the first lines of a table
_LEAST_SPAN = math.log(2)  # logarithm of the least ratio of the ends of the axis of costs
Box = tuple[float, float, float, float]  # left, top, right, bottom


def curve_drawing(curve: Curve) -> str:
    """Return plots of metrics over the values of a sweep, one of fractions in percent and one of other numbers.

    The values of the sweep are in equal steps; bars are one standard deviation.
    """
    units = ([metric for metric in curve.metrics if metric.is_fraction is is_fraction] for is_fraction in (True, False))
    return "".join(_curve_drawing(curve, metrics) for metrics in units if metrics)


def _curve_drawing(curve: Curve, metrics: Sequence[Metric]) -> str:
    """Return a plot of metrics of one unit."""
    left, right, top, bottom = 50, 660, 14, 300
    step = (right - left - 30) / max(1, len(curve.points) - 1)
    scale = _scale(metrics[0])
    low, high, rule = _nice_range(
        [
            scale * (point.means[metric.name] + side * zero_if_nan(point.deviations[metric.name]))
            for point in curve.points
            for metric in metrics
            for side in (-1, 1)
        ]
    )

    def y(value: float) -> float:
        return bottom - (bottom - top) * (scale * value - low) / (high - low)

    parts = _rules(low, high, rule, left, right, lambda level: y(level / scale))
    label_step = -(-len(curve.points) // 12)
    for index, point in enumerate(curve.points):
        x = left + 15 + index * step
        if index % label_step == 0:
            parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{text(point.value)}</text>')
        if point.is_headline:
            parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 40}" text-anchor="middle">{text(curve.key)}</text>')
    for metric in metrics:
        parts.append(_series(curve, metric, left + 15, step, y))
    legend = " ".join(
        f'<span class="{_colour(metric)}">{"━━" if metric.name in GROUPS else "━ ━"} {text(heading(metric))}</span>'
        for metric in metrics
    )
    return (
        f'<svg viewBox="0 0 680 350" role="img" aria-label="{text(curve.title)} over {text(curve.key)}">'
        f'{"".join(parts)}</svg><p class="note">{legend}</p>'
    )


def _scale(metric: Metric) -> float:
    """Return the factor of a metric's values on an axis, whose grid multiplies them by 100."""
    return 1.0 if metric.is_fraction else 0.01


def _rules(low: float, high: float, rule: float, left: float, right: float, y: Callable[[float], float]) -> list[str]:
    decimals = max(0, -math.floor(math.log10(100 * rule) + 1e-9))
    return [
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>'
        f'<text x="{left - 7}" y="{y(level) + 4:.1f}" text-anchor="end">{_number(100 * level, decimals)}</text>'
        for level in np.arange(low, high + rule / 2, rule)
    ]


def _number(value: float, decimals: int) -> str:
    """Return a number as text, where sums of steps that round to -0 are 0."""
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


def _series(curve: Curve, metric: Metric, start: float, step: float, y: Callable[[float], float]) -> str:
    points, marks = [], []
    for index, point in enumerate(curve.points):
        mean, deviation = point.means[metric.name], point.deviations[metric.name]
        if mean != mean:
            continue
        x = start + index * step
        points.append(f"{x:.1f},{y(mean):.1f}")
        value = f"{heading(metric)}: {value_text(metric, mean, deviation)}"
        tooltip = text(f"{curve.key} = {point.value}, {value}, n = {point.seeds}")
        marks.append(
            f'{_bar(x, mean, deviation, y)}<circle cx="{x:.1f}" cy="{y(mean):.1f}" r="4" data-tip="{tooltip}"/>'
        )
    dashes = "" if metric.name in GROUPS else ' stroke-dasharray="7 4"'
    line = f'<polyline points="{" ".join(points)}" fill="none" stroke-width="2.2"{dashes}/>'
    return f'<g class="{_colour(metric)}">{line}{"".join(marks)}</g>'


def _bar(x: float, mean: float, deviation: float, y: Callable[[float], float]) -> str:
    """Return the bar of a standard deviation; empty for NaN."""
    if deviation != deviation:
        return ""
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(mean - deviation):.1f}" y2="{y(mean + deviation):.1f}"/>'


def _colour(metric: Metric) -> str:
    """Return the CSS class of a metric's colour."""
    return metric.name if metric.name in GROUPS else "other"


@dataclass(frozen=True)
class CostPoint:
    """Line of a table as a point of the plot: cost in seconds, mean and s.d. (NaN for one seed) of a metric."""

    label: str
    seconds: float
    mean: float
    deviation: float
    seeds: int
    is_limited: bool = False


def cost_scatter(points: Sequence[CostPoint], metric: Metric) -> str:
    """Return a plot of a metric over the cost (log scale); "" for fewer than two points.

    The first points have labels if these fit; tooltips name every point.
    """
    points = [point for point in points if point.seconds > 0 and math.isfinite(point.mean)]
    if len(points) < 2:
        return ""
    left, right, top, bottom = 50, 660, 24, 300
    scale = _scale(metric)
    values = [scale * (point.mean + side * zero_if_nan(point.deviation)) for point in points for side in (-1, 1)]
    low, high, rule = _nice_range(values)
    first, last = (math.log(end(point.seconds for point in points)) for end in (min, max))
    margin = max(0.0, (_LEAST_SPAN - (last - first)) / 2)  # keeps nearly equal costs close together
    first, last = first - margin, last + margin

    def x(seconds: float) -> float:
        return left + 25 + (right - left - 50) * (math.log(seconds) - first) / (last - first)

    def y(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    parts = _rules(low, high, rule, left, right, y)
    ticks = _log_ticks(math.exp(first), math.exp(last))
    parts += [
        f'<text x="{x(tick):.1f}" y="{bottom + 20}" text-anchor="middle">{_seconds(tick)}</text>' for tick in ticks
    ]
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 40}" text-anchor="middle">cost (s, log scale)</text>')
    unit = " (%)" if metric.is_fraction else ""
    parts.append(f'<text x="{left}" y="12">{text(heading(metric))}{unit}</text>')
    boxes = [box for point in points for box in _boxes(point, x(point.seconds), y, scale)]
    for rank, point in enumerate(points):
        parts.append(_cost_mark(point, metric, x(point.seconds), y, scale))
        if rank >= _MAX_LABELS:
            continue
        position = _place_label(
            point.label, x(point.seconds), y(scale * point.mean), boxes, (left, top - 10, right, bottom)
        )
        if position is not None:
            label, box, anchor = position
            boxes.append(box)
            edge = {"start": box[0], "middle": (box[0] + box[2]) / 2, "end": box[2]}[anchor]
            parts.append(f'<text x="{edge:.1f}" y="{box[3] - 4:.1f}" text-anchor="{anchor}">{text(label)}</text>')
    name = f"{heading(metric)} over cost"
    return f'<svg viewBox="0 0 680 350" role="img" aria-label="{text(name)}">{"".join(parts)}</svg>'


def _cost_mark(point: CostPoint, metric: Metric, x: float, y: Callable[[float], float], scale: float) -> str:
    value = value_text(metric, point.mean, point.deviation)
    lines = (point.label, f"{heading(metric)}: {value}, n = {point.seeds}", f"cost: {point.seconds:,.0f} s")
    tooltip = "&#10;".join(map(text, lines))
    bar = _bar(x, scale * point.mean, scale * point.deviation, y)
    return (
        f'<g class="{"limited" if point.is_limited else "line"}">{bar}<circle cx="{x:.1f}" '
        f'cy="{y(scale * point.mean):.1f}" r="5" stroke-width="2" data-tip="{tooltip}"/></g>'
    )


def _boxes(point: CostPoint, x: float, y: Callable[[float], float], scale: float) -> list[Box]:
    """Return the boxes of a point and of its bar, which labels must not overlap."""
    mean, deviation = scale * point.mean, scale * zero_if_nan(point.deviation)
    return [(x - 7, y(mean) - 7, x + 7, y(mean) + 7), (x - 2, y(mean + deviation), x + 2, y(mean - deviation))]


def _place_label(label: str, x: float, y: float, taken: Sequence[Box], frame: Box) -> tuple[str, Box, str] | None:
    """Return the shown label, its box next to a point and its anchor; None if it overlaps something everywhere."""
    shown = label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
    width = _LETTER * len(shown)
    corners = (
        (x + 9, y - _LINE / 2, "start"),
        (x - 9 - width, y - _LINE / 2, "end"),
        (x - width / 2, y - 8 - _LINE, "middle"),
        (x - width / 2, y + 8, "middle"),
        (x + 8, y - 7 - _LINE, "start"),
        (x - 8 - width, y - 7 - _LINE, "end"),
        (x + 8, y + 7, "start"),
        (x - 8 - width, y + 7, "end"),
    )
    for left, top, anchor in corners:
        box = (left, top, left + width, top + _LINE)
        inside = frame[0] <= box[0] and box[2] <= frame[2] and frame[1] <= box[1] and box[3] <= frame[3]
        if inside and not any(_overlap(box, taken_box) for taken_box in taken):
            return shown, box, anchor
    return None


def _overlap(one: Box, two: Box) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 times powers of ten within a range; equal steps if fewer than two of them are inside."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    if len(inside) > 8:
        inside = [tick for tick in inside if math.isclose(math.log10(tick) % 1, 0, abs_tol=1e-9)]
    if len(inside) > 1:
        return inside
    start, _, rule = _nice_range([low, high])
    return [start + step * rule for step in range(12) if low <= start + step * rule <= high]


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _nice_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the ends of an axis, and the distance of its grid lines: 1, 2 or 5 times a power of ten.

    Values that are not finite have no place on the axis; without others it goes from 0 to 1.
    """
    finite_values = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite_values), max(finite_values)
    width = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(width / 4))
    rule = next(step * power for step in (1, 2, 5, 10) if width / (step * power) <= 5)
    return math.floor(low / rule) * rule, (math.floor(high / rule) + 1) * rule, rule
