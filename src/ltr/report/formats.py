"""Text formats of tables: aligned text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from ltr import escaping
from ltr.escaping import one_line
from ltr.report.blocks import table_blocks, wrap_lines
from ltr.report.comparison import Section
from ltr.report.decisions import DECISION_COLUMNS, line_decisions
from ltr.report.published_lookup import PublishedNumbers
from ltr.report.sheet import Cell, Sheet

_MARKS = {"best": " *", "tie": " ="}
# columns of CSV before and after the metrics
_LINE_COLUMNS = (
    "dataset", "protocol", "split", "split_digest", "row", "scorer", "variant", "selection", "n", "seeds",
)  # fmt: skip
_RUN_COLUMNS = (
    "published", "published_metric", "published_source", "epochs", "cost_seconds", "images_per_second", "group_hash",
    "limited",
)  # fmt: skip


def writer(form: str, width: int | None = None) -> Callable[[Sheet], str]:
    """Return the function that writes a sheet as ``table`` (aligned text of this width), ``markdown`` or ``latex``."""
    writers: dict[str, Callable[[Sheet], str]] = {"markdown": markdown, "latex": latex}
    return writers.get(form, partial(plain, width=width))


def plain(sheet: Sheet, width: int | None = None) -> str:
    """Return aligned text: ``*`` follows the best value of a column, ``=`` its ties; no line ends in spaces.

    Args:
        width: width in characters; columns that do not fit go into further blocks. None: no limit.
    """
    # if one cell of a column has a mark, all of them reserve room for it, so that the numbers align
    has_marks = [any(row[column].mark in _MARKS for row in sheet.rows) for column in range(len(sheet.headings))]
    lines = [[one_line(text) + ("  " if has_mark else "") for text, has_mark in zip(sheet.headings, has_marks)]]
    lines += [[_plain_cell(cell, has_mark) for cell, has_mark in zip(row, has_marks)] for row in sheet.rows]
    blocks = table_blocks(lines, sheet.numeric, 1, width)
    table = "\n\n".join("\n".join(line.text for line in block) for block in blocks)
    notes = [line for note in sheet.notes for line in wrap_lines(one_line(note), width)]
    return "\n".join([*wrap_lines(one_line(sheet.title), width), table, *notes])


def _plain_cell(cell: Cell, has_marks: bool) -> str:
    return one_line(cell.text) + (_MARKS.get(cell.mark, "  ") if has_marks else "")


def markdown(sheet: Sheet) -> str:
    """Return a GitHub Markdown table: best values are bold, ties end in ``=``."""
    text = [f"**{escaping.markdown(sheet.title)}**", ""]
    text += markdown_table(
        map(escaping.markdown, sheet.headings), sheet.numeric, (map(_markdown_cell, row) for row in sheet.rows)
    )
    for note in sheet.notes:
        text += ["", escaping.markdown(note)]
    return "\n".join(text)


def markdown_table(headings: Iterable[str], numeric: Iterable[bool], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a Markdown table; columns of numbers are aligned to the right. Texts must be escaped."""
    rules = ("---:" if is_numeric else "---" for is_numeric in numeric)
    return [f"| {' | '.join(cells)} |" for cells in (headings, rules, *rows)]


def _markdown_cell(cell: Cell) -> str:
    text = escaping.markdown(cell.text)
    return f"**{text}**" if cell.mark == "best" else f"{text} =" if cell.mark == "tie" else text


def latex(sheet: Sheet) -> str:
    """Return a LaTeX ``tabular`` with booktabs rules: best values are bold, ties underlined."""
    columns = "".join("r" if numeric else "l" for numeric in sheet.numeric)
    text = [f"% {one_line(sheet.title)}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    text.append(" & ".join(escaping.latex(text) for text in sheet.headings) + r" \\")
    text.append(r"\midrule")
    text += [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in sheet.rows]
    text += [r"\bottomrule", r"\end{tabular}", *(f"% {one_line(note)}" for note in sheet.notes)]
    return "\n".join(text)


def _latex_cell(cell: Cell) -> str:
    text = escaping.latex(cell.text)
    return rf"\textbf{{{text}}}" if cell.mark == "best" else rf"\underline{{{text}}}" if cell.mark == "tie" else text


def as_csv(sections: Sequence[Section], published: PublishedNumbers | None) -> str:
    """Return CSV with the rows of all tables.

    Every metric has the columns ``<metric>`` and ``<metric>_sd``, as fractions; NaN is blank. If a row has decisions,
    their columns come last, see `ltr.report.decisions.line_decisions`.
    """
    lines = [(section, line, line_decisions(line)) for section in sections for line in section.all_lines]
    metrics = list(dict.fromkeys(name for _, line, _ in lines for name in line.rows[0]["metrics"]))
    decision_columns = DECISION_COLUMNS if any(decisions for *_, decisions in lines) else ()
    rows: list[list[object]] = [
        [
            *_LINE_COLUMNS,
            *(column for name in metrics for column in (name, f"{name}_sd")),
            *_RUN_COLUMNS,
            *decision_columns,
        ]
    ]
    for section, line, decisions in lines:
        number = published.of(line, section.protocol) if published else None
        row: list[object] = [section.dataset, section.protocol, section.split, section.digest, line.label]
        row += [line.scorer or "", line.variant, line.selection, len(line.runs), " ".join(map(str, line.seeds))]
        row += [value for name in metrics for value in (line.mean(name), line.deviation(name))]
        row += [f"{number.number / 100:.6g}", number.metric, number.source] if number else ["", "", ""]
        row += [line.config.get("trainer.max_epochs", ""), line.seconds, line.images_per_second, line.runs[0].group]
        rows.append([*row, line.caveat, *(decisions.get(column, "") for column in decision_columns)])
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(
        [escaping.csv_cell(_number(cell) if isinstance(cell, float) else cell) for cell in row] for row in rows
    )
    return buffer.getvalue()


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.8g}"
