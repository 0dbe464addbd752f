"""HTML report in one file: sortable tables, accuracy of each class, curves, and the runs' figures."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltr.errors import DataError
from ltr.escaping import name as short_name
from ltr.evaluation.groups import GROUPS
from ltr.evaluation.metrics import Metric
from ltr.report.columns import heading, value_text
from ltr.report.comparison import Line, Section
from ltr.report.compose import Part, Report
from ltr.report.figures import FIGURES
from ltr.report.html_page import data_block, html_document, text
from ltr.report.series import Curve
from ltr.report.sheet import LEGEND, Cell, Sheet

_LINES_PER_CLASS = 24  # lines of a section that offer a class plot
_COLUMNS = ("class_name", "train_count", "group", "accuracy")
_FIGURE_WIDTH = 1120  # pixels
_PER_CLASS_RUNS = 600  # runs of all sections whose class files are read


def html_report(report: Report, *, pictures: int = 20, problems: list[str] | None = None) -> str:
    """Return the complete HTML file.

    Args:
        pictures: number of runs with embedded figures: one run per line, starting with the first lines of each table.
        problems: list to which messages about unusable files are added; the report shows them too.
    """
    budget = {"pictures": pictures, "per_class": _PER_CLASS_RUNS}
    messages = [] if problems is None else problems
    blocks = [_part(part, number, budget, messages) for number, part in enumerate(report.parts)]
    contents = "".join(
        f'<li><a href="#part-{number}">{text(part.section.title)}</a></li>' for number, part in enumerate(report.parts)
    )
    listed = f"<ul>{contents}</ul>" if len(report.parts) > 1 else ""
    body = f'{listed}\n<p class="note">{text(LEGEND)}</p>\n' + "\n".join(blocks)
    return html_document(f"{report.runs:,} finished runs", [*report.warnings, *messages], body)


def _part(part: Part, number: int, budget: dict[str, int], problems: list[str]) -> str:
    section = part.section
    blocks = [f'<section id="part-{number}">\n<h2>{text(part.sheet.title)}</h2>']
    lines = [*section.lines, *section.selected_on_test]
    about = [f"{section.title} {line.label} {line.config.get('method.name', '')}" for line in lines]
    blocks.append(sheet_table(part.sheet, about))
    if part.pairs is not None:
        words_of_pairs = [f"{section.title} {row[0].text}" for row in part.pairs.rows]
        blocks.append(f"<h3>{text(part.pairs.title)}</h3>{sheet_table(part.pairs, words_of_pairs)}")
    blocks += [] if part.decisions is None else [f"<h3>Decisions</h3>{sheet_table(part.decisions)}"]
    blocks += [f"<h3>{text(curve.title)} over {text(curve.key)}</h3>{curve_drawing(curve)}" for curve in part.curves]
    blocks += [_per_class(section, budget, problems), _figures_of_lines(lines, budget, problems), "</section>"]
    return "\n".join(block for block in blocks if block)


# -- tables -------------------------------------------------------------------------------------------------------


def sheet_table(sheet: Sheet, about: Sequence[str] = ()) -> str:
    """Return a table that sorts by its headings.

    Args:
        about: further words of each row that the filter matches.
    """
    heads = "".join(
        f'<th{_class("number" if numeric else "")}><button type="button">{text(title)}</button></th>'
        for title, numeric in zip(sheet.headings, sheet.numeric)
    )
    rows = []
    for row_index, row in enumerate(sheet.rows):
        cells = "".join(_cell(cell, numeric) for cell, numeric in zip(row, sheet.numeric))
        rows.append(f'<tr data-about="{text(about[row_index] if about else "")}">{cells}</tr>')
    notes = "".join(f'<p class="note">{text(note)}</p>' for note in sheet.notes)
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table>'
        f"</div>{notes}"
    )


def _cell(cell: Cell, numeric: bool) -> str:
    names = " ".join(name for name in ("number" if numeric else "", cell.mark) if name)
    value = f' data-value="{cell.number:.10g}"' if cell.number == cell.number else ""
    title = {"best": ' title="best"', "tie": ' title="within one s.d. of the best"'}.get(cell.mark, "")
    return f"<td{_class(names)}{value}{title}>{text(cell.text)}</td>"


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


# -- curves -------------------------------------------------------------------------------------------------------


def curve_drawing(curve: Curve) -> str:
    """Return a plot of metrics over the values of a sweep, in equal steps; error bars are one standard deviation."""
    left, right, top, bottom = 50, 660, 14, 300
    step = (right - left - 30) / max(1, len(curve.points) - 1)
    levels = [point.means[metric.name] for point in curve.points for metric in curve.metrics]
    finite_values = [value for value in levels if value == value]
    low, high = (min(finite_values), max(finite_values)) if finite_values else (0.0, 1.0)
    low, high = max(0.0, np.floor(low * 10) / 10), np.ceil(high * 10) / 10
    high = high if high > low else low + 0.1

    def y(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    parts = []
    rule = 0.05 if high - low <= 0.2 else 0.1 if high - low <= 0.5 else 0.2
    for level in np.arange(low, high + rule / 2, rule):
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>')
        parts.append(f'<text x="{left - 7}" y="{y(level) + 4:.1f}" text-anchor="end">{100 * level:.3g}</text>')
    label_step = -(-len(curve.points) // 12)
    for index, point in enumerate(curve.points):
        x = left + 15 + index * step
        if index % label_step == 0:
            parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{text(point.value)}</text>')
        if point.is_headline:
            parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 40}" text-anchor="middle">{text(curve.key)}</text>')
    for metric in curve.metrics:
        parts.append(_series(curve, metric, left + 15, step, y))
    legend = " ".join(
        f'<span class="{_colour(metric)}">{"━━" if metric.name in GROUPS else "━ ━"} {text(heading(metric))}</span>'
        for metric in curve.metrics
    )
    return (
        f'<svg viewBox="0 0 680 350" width="680" role="img" aria-label="{text(curve.title)} over {text(curve.key)}">'
        f'{"".join(parts)}</svg><p class="note">{legend}</p>'
    )


def _series(curve: Curve, metric: Metric, start: float, step: float, y: object) -> str:
    assert callable(y)
    points, marks = [], []
    for index, point in enumerate(curve.points):
        mean, deviation = point.means[metric.name], point.deviations[metric.name]
        if mean != mean:
            continue
        x = start + index * step
        points.append(f"{x:.1f},{y(mean):.1f}")
        if deviation == deviation:
            marks.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(mean - deviation):.1f}" y2="{y(mean + deviation):.1f}"/>'
            )
        text_of_value = f"{heading(metric)}: {value_text(metric, mean, deviation)}"
        tooltip = f"{curve.key} = {point.value}, {text_of_value}, n = {point.seeds}"
        marks.append(f'<circle cx="{x:.1f}" cy="{y(mean):.1f}" r="4" data-tip="{text(tooltip)}"/>')
    dashes = "" if metric.name in GROUPS else ' stroke-dasharray="7 4"'
    line = f'<polyline points="{" ".join(points)}" fill="none" stroke-width="2.2"{dashes}/>'
    return f'<g class="{_colour(metric)}">{line}{"".join(marks)}</g>'


def _colour(metric: Metric) -> str:
    return metric.name if metric.name in GROUPS else "other"


# -- classes ------------------------------------------------------------------------------------------------------


def _per_class(section: Section, budget: dict[str, int], problems: list[str]) -> str:
    """Return a plot of class accuracy for one or two selectable lines; "" if no run has class files."""
    measure = "accuracy"
    names: list[str] = []
    counts: list[int] = []
    groups: list[str] = []
    shown_lines = []
    for line in (*section.lines, *section.selected_on_test)[:_LINES_PER_CLASS]:
        if len(line.runs) > budget["per_class"]:
            break
        budget["per_class"] -= len(line.runs)
        try:
            tables = [run.table("per_class", row, _COLUMNS) for run, row in zip(line.runs, line.rows)]
        except DataError as error:
            if any((run.path / "per_class.parquet").exists() for run in line.runs):
                problems.append(f"{line.label} has no classes here: {error}")
            continue
        if len({tuple(table["class_name"]) for table in tables}) > 1:
            problems.append(f"{line.label} has no classes here: its runs have different ones")
            continue
        classes = [short_name(class_name) for class_name in tables[0]["class_name"]]
        if names and classes != names:
            continue
        names, counts = classes, [int(count) for count in tables[0]["train_count"]]
        groups = [str(group) for group in tables[0]["group"]]
        measure = section.table.find(section.metric, section.protocol).per_class
        accuracies = np.mean([table.get(measure, table["accuracy"]).astype(np.float64) for table in tables], axis=0)
        values = [None if value != value else round(float(value), 4) for value in accuracies]
        shown_lines.append({"label": short_name(line.label), "accuracy": values})
    if not shown_lines:
        return ""
    groups = [group if group in GROUPS else "other" for group in groups]
    data = {
        "names": names,
        "counts": counts,
        "groups": groups,
        "measure": measure.replace("_", " "),
        "lines": shown_lines,
    }
    options = "".join(
        f'<option value="{index}">{text(line["label"])}</option>' for index, line in enumerate(shown_lines)
    )
    second = '<option value="-1">nothing</option>' + options
    return (
        '<div class="perclass"><h3>Every class</h3>'
        f"<p><label>filled <select>{options}</select></label> <label>rings <select>{second}</select></label> "
        '<input type="search" placeholder="find a class" aria-label="find a class"> '
        '<span class="many">● many</span> <span class="medium">● medium</span> <span class="few">● few</span></p>'
        f'<svg viewBox="0 0 700 350" width="700" role="img" aria-label="accuracy of every class"></svg>'
        f"{data_block(data)}</div>"
    )


# -- pictures -----------------------------------------------------------------------------------------------------


def _figures_of_lines(lines: Sequence[Line], budget: dict[str, int], problems: list[str]) -> str:
    """Return the embedded figures of the first run of each line; a menu shows one figure of all runs side by side."""
    blocks: list[str] = []
    kinds: dict[str, None] = {}  # in order
    for line in lines:
        if budget["pictures"] <= 0:
            break
        run = line.runs[0]
        figures = {}
        for path in sorted((run.path / "figures").glob("*.png"), key=_figure_order):
            try:
                figures[path.stem] = _embedded_figure(path, run.path)
            except DataError as error:
                problems.append(str(error))
        if figures:
            kinds |= dict.fromkeys(figures)
            budget["pictures"] -= 1
            title = f"{line.label}, seed {run.seed}"
            blocks.append(
                f'<details><summary>{text(title)}</summary><div class="pictures">{"".join(figures.values())}</div>'
                f'<p class="note">{text(run.path)}</p></details>'
            )
    options = "".join(f'<option value="{text(kind)}">{text(kind.replace("_", " "))}</option>' for kind in kinds)
    choice = f'<label>show <select><option value="">all of a run</option>{options}</select></label>'
    return f'<div class="runs"><h3>Pictures</h3><p>{choice}</p>{"".join(blocks)}</div>' if blocks else ""


def _figure_order(path: Path) -> tuple[int, str]:
    """Return the sort key of a figure in a run; figures of other versions come last."""
    return (list(FIGURES).index(path.stem) if path.stem in FIGURES else len(FIGURES), path.stem)


def _embedded_figure(path: Path, run: Path) -> str:
    """Return an embedded figure of a run.

    Raises:
        DataError: it is damaged, or lies outside of the run: a link could show any file of this machine.
    """
    if not path.resolve().is_relative_to(run.resolve()):
        raise DataError(f"{path} is a link out of the run and is left out")
    data = base64.b64encode(_scaled_figure(path)).decode("ascii")
    name = text(path.stem.replace("_", " "))
    return (
        f'<figure data-kind="{text(path.stem)}"><img alt="{name}" src="data:image/webp;base64,{data}">'
        f"<figcaption>{name}</figcaption></figure>"
    )


def _scaled_figure(path: Path) -> bytes:
    """Return a figure scaled for screens, a third of the size of its file."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as image:
                figure = image.convert("RGB")
    except Exception as error:  # decoders raise arbitrary errors for damaged files
        raise DataError(f"{path} is damaged. Draw it anew: ltr-report {path.parents[1]} --figures all") from error
    if figure.width > _FIGURE_WIDTH:
        height = round(figure.height * _FIGURE_WIDTH / figure.width)
        figure = figure.resize((_FIGURE_WIDTH, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    figure.save(file, "WEBP", quality=80)
    return file.getvalue()
