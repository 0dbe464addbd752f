"""Summary of an HTML report: the best line of every table by each metric, and cost against accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ltr.evaluation.metrics import Metric
from ltr.report.columns import heading, value_text
from ltr.report.comparison import Line, Section, marks, ranked
from ltr.report.compose import Part
from ltr.report.html_page import css_class, scroll_region, text
from ltr.report.html_plots import CostPoint, cost_scatter

_LISTED = 3  # names of tied lines
_MAX_POINTS = 300  # lines in the plot of costs


def summary(parts: Sequence[Part]) -> str:
    """Return the first section of the report: the best lines of each table by metric, and cost against accuracy."""
    if not parts:
        return ""
    blocks = "\n".join(_summary_of_part(part, number) for number, part in enumerate(parts))
    return (
        f'<section id="summary">\n<h2>Summary</h2>\n{blocks}\n'
        '<p class="note">Best: the highest mean over seeds (the lowest for ↓), without rows that are limited, of a '
        "longer schedule or selected on test; =: rows within one s.d. of it. Cost: seconds of all stages, as if "
        "none had been cached; bars are one s.d. over seeds.</p>\n</section>"
    )


def _summary_of_part(part: Part, number: int) -> str:
    section = part.section
    title = f'<h3><a href="#part-{number}">{text(section.title)}</a></h3>'
    metrics = [metric for metric in part.metrics if metric.is_ranked and _best(section, metric)]
    if metrics:
        headings = "".join(f'<th scope="col">{name}</th>' for name in ("metric", "best", "value", "seeds"))
        rows = "\n".join(_row(section, metric) for metric in metrics)
        table = f'<table class="summary"><thead><tr>{headings}</tr></thead>\n<tbody>{rows}</tbody></table>'
        block = scroll_region(f"best rows of {section.title}", table)
    else:
        block = '<p class="note">No row to compare: all are limited, selected on test or without a value.</p>'
    return f'<div class="panels"><div>{title}{block}</div>\n{_cost_figure(part)}</div>'


def _row(section: Section, metric: Metric) -> str:
    best = _best(section, metric)
    ties = [section.lines[index].label for index in sorted(marks(section.lines, metric).ties)]
    more = f", and {len(ties) - _LISTED} more" if len(ties) > _LISTED else ""
    tied = f' <span class="note">= {text(", ".join(ties[:_LISTED]))}{more}</span>' if ties else ""
    value = value_text(metric, best[0].mean(metric.name), best[0].deviation(metric.name))
    seeds = ", ".join(dict.fromkeys(str(len(line.runs)) for line in best))
    return (
        f'<tr><th scope="row">{text(heading(metric))}</th><td>{text(", ".join(line.label for line in best))}{tied}</td>'
        f'<td class="number">{text(value)}</td><td class="number">{seeds}</td></tr>'
    )


def _best(section: Section, metric: Metric) -> list[Line]:
    """Return the best lines; the only comparable line if there is one."""
    best = [section.lines[index] for index in sorted(marks(section.lines, metric).best)]
    lines = [section.lines[index] for index in ranked(section.lines)]
    comparable = [line for line in lines if not math.isnan(line.mean(metric.name))]
    return best or (comparable if len(comparable) == 1 else [])


def _cost_figure(part: Part) -> str:
    """Return the plot of a table's first ranked metric over cost, with its numbers; "" if costs are unknown."""
    metric = _main_metric(part)
    if metric is None:
        return ""
    lines = part.section.all_lines
    points = []
    for line in lines[:_MAX_POINTS]:
        mean, deviation = line.mean(metric.name), line.deviation(metric.name)
        is_limited = bool(line.caveat) or line.on_test
        points.append(CostPoint(line.label, line.seconds, mean, deviation, len(line.runs), is_limited))
    drawing = cost_scatter(points, metric)
    if not drawing:
        return ""
    shown = sorted((point for point in points if point.seconds > 0), key=lambda point: point.seconds)
    rows = "".join(
        f'<tr><th scope="row">{text(point.label)}</th><td class="number">{point.seconds:,.0f} s</td>'
        f'<td class="number">{text(value_text(metric, point.mean, point.deviation))}</td></tr>'
        for point in shown
    )
    columns = (("row", ""), ("cost", "number"), (heading(metric), "number"))
    heads = "".join(f'<th scope="col"{css_class(names)}>{text(title)}</th>' for title, names in columns)
    caption = "<figcaption>Outlined in red: limited, of a longer schedule, or selected on test.</figcaption>"
    limited = caption if any(point.is_limited for point in shown) else ""
    more = len(lines) - _MAX_POINTS
    left_out = f"<figcaption>{more:,} more rows of the table are not drawn.</figcaption>" if more > 0 else ""
    title = f"{heading(metric)} over cost"
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return (
        f"<figure><h3>{text(title)}</h3>{drawing}{limited}{left_out}"
        f"<details><summary>Numbers</summary>{scroll_region(title, table)}</details></figure>"
    )


def _main_metric(part: Part) -> Metric | None:
    """Return the metric that selects checkpoints if the table shows it, else the first ranked one."""
    ranked = [metric for metric in part.metrics if metric.is_ranked]
    named = [metric for metric in ranked if metric.name == part.section.metric]
    return next(iter(named or ranked), None)
