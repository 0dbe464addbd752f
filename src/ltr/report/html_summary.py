"""Summary of an HTML report: the best line of every table by each metric, and cost against accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ltr.evaluation.metrics import Metric
from ltr.report.columns import heading, value_text
from ltr.report.comparison import Line, Section, marks, ranked
from ltr.report.compose import Part
from ltr.report.html_page import text
from ltr.report.html_plots import CostPoint, cost_scatter

_LISTED = 3  # names of tied lines
_DRAWN = 300  # lines in the plot of costs


def summary(parts: Sequence[Part]) -> str:
    """Return the first section of the report: for each table its best lines by metric, and cost against accuracy."""
    if not parts:
        return ""
    blocks = "\n".join(_summary_of_part(part, number) for number, part in enumerate(parts))
    return (
        f'<section id="summary">\n<h2>Summary</h2>\n{blocks}\n'
        '<p class="note">Best: the highest mean over seeds (the lowest for ↓), without lines that are limited, of a '
        "longer schedule or selected on test; = names lines within one s.d. of it. Cost: seconds of all stages, as if "
        "none had been cached; bars are one s.d. over seeds.</p>\n</section>"
    )


def _summary_of_part(part: Part, number: int) -> str:
    section = part.section
    title = f'<h3><a href="#part-{number}">{text(section.title)}</a></h3>'
    metrics = [metric for metric in part.metrics if metric.is_ranked and _best(section, metric)]
    if metrics:
        headings = "".join(f'<th scope="col">{name}</th>' for name in ("metric", "best", "value", "seeds"))
        rows = "\n".join(_row(section, metric) for metric in metrics)
        name = text(f"best lines of {section.title}")
        table = (
            f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table class="summary">'
            f"<thead><tr>{headings}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
        )
    else:
        table = '<p class="note">No line to compare: all are limited, selected on test or without a value.</p>'
    return f'<div class="panels"><div>{title}{table}</div>\n{_cost_figure(part)}</div>'


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
    """Return the plot of a table's first ranked metric over cost, with its numbers; "" where costs are unknown."""
    section = part.section
    metric = _main_metric(part)
    if metric is None:
        return ""
    lines = [*section.lines, *section.selected_on_test]
    more = len(lines) - _DRAWN
    points = [
        CostPoint(
            line.label,
            line.seconds,
            line.mean(metric.name),
            line.deviation(metric.name),
            len(line.runs),
            bool(line.caveat) or line.on_test,
        )
        for line in lines[:_DRAWN]
    ]
    drawing = cost_scatter(points, metric)
    if not drawing:
        return ""
    shown = sorted((point for point in points if point.seconds > 0), key=lambda point: point.seconds)
    rows = "".join(
        f'<tr><th scope="row">{text(point.label)}</th><td class="number">{point.seconds:,.0f} s</td>'
        f'<td class="number">{text(value_text(metric, point.mean, point.deviation))}</td></tr>'
        for point in shown
    )
    number_class = ' class="number"'
    heads = "".join(
        f'<th scope="col"{number_class if column else ""}>{text(name)}</th>'
        for column, name in enumerate(("line", "cost", heading(metric)))
    )
    caption = "<figcaption>Outlined in red: limited, of a longer schedule, or selected on test.</figcaption>"
    limited = caption if any(point.is_limited for point in shown) else ""
    left_out = f"<figcaption>{more:,} more lines of the table are not drawn.</figcaption>" if more > 0 else ""
    title = f"{heading(metric)} over cost"
    return (
        f"<figure><h3>{text(title)}</h3>{drawing}{limited}{left_out}"
        f'<details><summary>Numbers</summary><div class="scroll" tabindex="0" role="region" aria-label="{text(title)}">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details></figure>"
    )


def _main_metric(part: Part) -> Metric | None:
    """Return the metric that selects checkpoints if the table shows it, else the first ranked one."""
    ranked = [metric for metric in part.metrics if metric.is_ranked]
    named = [metric for metric in ranked if metric.name == part.section.metric]
    return next(iter(named or ranked), None)
