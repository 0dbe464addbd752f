"""HTML report in one file: a summary, sortable tables, accuracy of each class, curves, and the runs' figures."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

import numpy as np

from ltr.errors import DataError
from ltr.escaping import name as short_name
from ltr.evaluation.groups import GROUPS
from ltr.names import counted
from ltr.report.comparison import Line, Section
from ltr.report.compose import Part, Report
from ltr.report.figures import FIGURES
from ltr.report.html_page import css_class, data_block, report_document, scroll_region, sort_headings, sort_value, text
from ltr.report.html_plots import curve_drawing
from ltr.report.html_summary import summary
from ltr.report.series import Curve
from ltr.report.sheet import Cell, Sheet, curve_sheet, legend

_LINES_PER_CLASS = 24  # lines of a section whose classes are plotted
_COLUMNS = ("class_name", "train_count", "group", "accuracy")
_FIGURE_WIDTH = 1120  # pixels
_FEW_PARTS = 3  # so few tables need no list of contents, because the summary links to them
_PER_CLASS_RUNS = 600  # runs whose class files are read, over all sections


def html_report(report: Report, *, figure_runs: int = 20, problems: list[str] | None = None) -> str:
    """Return the complete HTML file.

    Args:
        figure_runs: number of runs whose figures are embedded: one run per line, first the first lines of each table.
        problems: list to which messages about unusable files are added; the report shows them too.
    """
    budget = {"figure_runs": figure_runs, "per_class": _PER_CLASS_RUNS}
    messages = [] if problems is None else problems
    blocks = [_part(part, number, budget, messages) for number, part in enumerate(report.parts)]
    contents = "".join(
        f'<li><a href="#part-{number}">{text(part.section.title)}</a></li>' for number, part in enumerate(report.parts)
    )
    listed = f'<nav aria-label="tables"><ul>{contents}</ul></nav>' if len(report.parts) > _FEW_PARTS else ""
    body = "\n".join([listed, summary(report.parts), *blocks, f'<p class="note">{text(legend("html"))}</p>'])
    return report_document(counted(report.runs, "finished run"), [*report.warnings, *messages], body)


def _part(part: Part, number: int, budget: dict[str, int], problems: list[str]) -> str:
    section = part.section
    blocks = [f'<section id="part-{number}">\n<h2>{text(part.sheet.title)}</h2>']
    lines = section.all_lines
    about = [f"{section.title} {line.label} {line.config.get('method.name', '')}" for line in lines]
    blocks.append(sheet_table(part.sheet, about))
    if part.pairs is not None:
        words_of_pairs = [f"{section.title} {row[0].text}" for row in part.pairs.rows]
        blocks.append(f"<h3>{text(part.pairs.title)}</h3>{sheet_table(part.pairs, words_of_pairs)}")
    blocks += [] if part.decisions is None else [f"<h3>Decisions</h3>{sheet_table(part.decisions)}"]
    panels = [_per_class(section, budget, problems), *(_curve(section, curve) for curve in part.curves)]
    if panels := [panel for panel in panels if panel]:
        blocks.append('<div class="panels">\n' + "\n".join(panels) + "\n</div>")
    blocks += [_figures_of_lines(lines, budget, problems), "</section>"]
    return "\n".join(block for block in blocks if block)


def _curve(section: Section, curve: Curve) -> str:
    """Return the plot of a sweep with a table of its numbers."""
    title = f"{curve.title} over {curve.key}"
    numbers = f"<details><summary>Numbers</summary>{sheet_table(curve_sheet(section, curve))}</details>"
    return f"<figure><h3>{text(title)}</h3>{curve_drawing(curve)}{numbers}</figure>"


# -- tables -------------------------------------------------------------------------------------------------------


def sheet_table(sheet: Sheet, about: Sequence[str] = ()) -> str:
    """Return a table that sorts by its headings.

    Args:
        about: further words of each row that the filter matches; empty: the filter does not apply to the table.
    """
    rows = []
    for row_index, row in enumerate(sheet.rows):
        cells = "".join(_cell(cell, numeric) for cell, numeric in zip(row, sheet.numeric))
        words = f' data-about="{text(about[row_index])}"' if about else ""
        rows.append(f"<tr{words}>{cells}</tr>")
    notes = "".join(f'<p class="note">{text(note)}</p>' for note in sheet.notes)
    body = "\n".join(rows)
    headings = sort_headings(zip(sheet.headings, sheet.numeric))
    table = f'<table class="sortable"><thead><tr>{headings}</tr></thead>\n<tbody>{body}</tbody></table>'
    return scroll_region(sheet.title, table) + notes


def _cell(cell: Cell, numeric: bool) -> str:
    names = " ".join(name for name in ("number" if numeric else "", cell.mark) if name)
    title = {"best": ' title="best"', "tie": ' title="within one s.d. of the best"'}.get(cell.mark, "")
    return f"<td{css_class(names)}{sort_value(cell.number)}{title}>{text(cell.text)}</td>"


# -- classes ------------------------------------------------------------------------------------------------------


def _per_class(section: Section, budget: dict[str, int], problems: list[str]) -> str:
    """Return a plot of class accuracy for one or two selectable lines; "" if no run has class files."""
    measure = section.table.find(section.metric, section.protocol).per_class
    names: list[str] = []
    counts: list[int] = []
    groups: list[str] = []
    shown_lines = []
    for line in section.all_lines[:_LINES_PER_CLASS]:
        if len(line.runs) > budget["per_class"]:
            break
        budget["per_class"] -= len(line.runs)
        try:
            tables = [run.table("per_class", row, _COLUMNS) for run, row in zip(line.runs, line.rows)]
        except DataError as error:
            if any((run.path / "per_class.parquet").exists() for run in line.runs):
                problems.append(f"The classes of {line.label} are not shown: {error}")
            continue
        if len({tuple(table["class_name"]) for table in tables}) > 1:
            problems.append(f"The classes of {line.label} are not shown: its runs have different ones")
            continue
        classes = [short_name(class_name) for class_name in tables[0]["class_name"]]
        if names and classes != names:
            continue
        names, counts = classes, [int(count) for count in tables[0]["train_count"]]
        groups = [group if group in GROUPS else "other" for group in map(str, tables[0]["group"])]
        accuracies = np.mean([table.get(measure, table["accuracy"]).astype(np.float64) for table in tables], axis=0)
        values = [None if value != value else round(float(value), 4) for value in accuracies]
        shown_lines.append({"label": short_name(line.label), "accuracy": values})
    if not shown_lines:
        return ""
    title = measure.replace("_", " ")
    data = {"names": names, "counts": counts, "groups": groups, "measure": title, "lines": shown_lines}
    options = "".join(
        f'<option value="{index}">{text(line["label"])}</option>' for index, line in enumerate(shown_lines)
    )
    second = '<option value="-1">no other row</option>' + options
    legend = " ".join(f'<span class="{name}">● {name}</span>' for name in GROUPS)
    return (
        f'<div class="perclass"><h3>{text(title.capitalize())} of every class</h3>'
        f'<p class="controls"><label>Compare <select>{options}</select> (filled)</label> '
        f"<label>with <select>{second}</select> (outlined)</label> "
        '<label>Class <input type="search" placeholder="part of a name"></label></p>'
        f'<svg viewBox="0 0 700 350" role="img" aria-label="accuracy of every class over its training images"></svg>'
        f'<p class="note">{legend} <span class="shown"></span></p><details><summary>Numbers</summary>'
        f"{scroll_region('accuracy of every class', '')}</details>{data_block(data)}</div>"
    )


# -- figures ------------------------------------------------------------------------------------------------------


def _figures_of_lines(lines: Sequence[Line], budget: dict[str, int], problems: list[str]) -> str:
    """Return the figures of the first run of each line, with a menu that shows one kind of all runs side by side."""
    blocks: list[str] = []
    kinds: dict[str, None] = {}  # in order
    for line in lines:
        if budget["figure_runs"] <= 0:
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
            budget["figure_runs"] -= 1
            title = f"{line.label}, seed {run.seed}"
            blocks.append(
                f"<details open><summary>{text(title)}</summary>"
                f'<div class="run-figures">{"".join(figures.values())}</div>'
                f'<p class="note">{text(run.path)}</p></details>'
            )
    options = "".join(f'<option value="{text(kind)}">{text(kind.replace("_", " "))}</option>' for kind in kinds)
    choice = f'<label>Show <select><option value="">all figures of each run</option>{options}</select></label>'
    heading_and_choice = f'<h3>Figures</h3><p class="controls">{choice}</p>'
    return f'<div class="runs">{heading_and_choice}{"".join(blocks)}</div>' if blocks else ""


def _figure_order(path: Path) -> tuple[int, str]:
    """Return the sort key of a figure; figures of other versions come last."""
    return (list(FIGURES).index(path.stem) if path.stem in FIGURES else len(FIGURES), path.stem)


def _embedded_figure(path: Path, run: Path) -> str:
    """Return an embedded figure of a run.

    Raises:
        DataError: the file is damaged, or it is a link out of the run, which could show any file of this machine.
    """
    if not path.resolve().is_relative_to(run.resolve()):
        raise DataError(f"{path} is a link out of the run and is left out")
    figure, width, height = _scaled_figure(path)
    data = base64.b64encode(figure).decode("ascii")
    name = text(path.stem.replace("_", " "))
    return (
        f'<figure data-kind="{text(path.stem)}"><img alt="{name}" width="{width}" height="{height}" '
        f'src="data:image/webp;base64,{data}">'
        f"<figcaption>{name}</figcaption></figure>"
    )


def _scaled_figure(path: Path) -> tuple[bytes, int, int]:
    """Return a figure scaled for screens, a third of the size of its file, with its width and height."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as image:
                figure = image.convert("RGB")
    except Exception as error:  # decoders raise errors of any type for damaged files
        raise DataError(
            f"{path} is damaged. Draw it again: ltr-report {quote(str(path.parents[1]))} --figures all"
        ) from error
    if figure.width > _FIGURE_WIDTH:
        height = round(figure.height * _FIGURE_WIDTH / figure.width)
        figure = figure.resize((_FIGURE_WIDTH, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    figure.save(file, "WEBP", quality=80)
    return file.getvalue(), figure.width, figure.height
