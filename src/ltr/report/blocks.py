"""Aligned text tables that fit a terminal: columns that do not fit go into further blocks."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

_GAP = "  "


class BlockLine(NamedTuple):
    """A line of a block and the index of the table row it shows; None for the headings."""

    text: str
    row: int | None


def terminal_width() -> int | None:
    """Return the width of the terminal that standard output writes to, in columns; None for a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table_blocks(
    lines: Sequence[Sequence[str]], numeric: Sequence[bool], labels: int, width: int | None = None
) -> list[list[BlockLine]]:
    """Return a table as one or several blocks of aligned lines, no wider than ``width`` if possible.

    Every block repeats the label columns. If these leave no room for a number, each row becomes a block with one line
    per column. No text is cut, and no line ends in spaces.

    Args:
        lines: the headings, then the rows, of equal length.
        numeric: for each column, whether it is aligned to the right.
        labels: number of leading columns that identify a row.
        width: largest width in characters, >= 1; None: no limit.
    """
    widths = [max(len(line[column]) for line in lines) for column in range(len(numeric))]
    label_columns, number_columns = range(labels), range(labels, len(numeric))
    label_width = _total([widths[column] for column in label_columns])
    least_width = label_width + len(_GAP) + max((widths[column] for column in number_columns), default=0)
    if width is not None and number_columns and least_width > width:
        return [_record(lines[0], line, labels, width, row) for row, line in enumerate(lines[1:])]
    blocks: list[list[int]] = [[]]
    for column in number_columns:
        block_width = _total([widths[shown] for shown in (*label_columns, *blocks[-1], column)])
        if blocks[-1] and width is not None and block_width > width:
            blocks.append([])
        blocks[-1].append(column)
    return [_aligned(lines, [*label_columns, *block], widths, numeric) for block in blocks]


def wrap_lines(text: str, width: int | None) -> list[str]:
    """Return a note as lines of at most ``width`` characters; as one line without a width."""
    return [text] if width is None else textwrap.wrap(text, max(width, 20), break_long_words=False) or [text]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * max(len(widths) - 1, 0)


def _aligned(
    lines: Sequence[Sequence[str]], columns: Sequence[int], widths: Sequence[int], numeric: Sequence[bool]
) -> list[BlockLine]:
    texts = [
        _GAP.join(
            line[column].rjust(widths[column]) if numeric[column] else line[column].ljust(widths[column])
            for column in columns
        ).rstrip()
        for line in lines
    ]
    return [BlockLine(text, position - 1 if position else None) for position, text in enumerate(texts)]


def _record(headings: Sequence[str], line: Sequence[str], labels: int, width: int, row: int) -> list[BlockLine]:
    """Return a row as a block: its labels, then one line per number."""
    labels_of_row = [f"{heading} {cell}".strip() for heading, cell in zip(headings[:labels], line) if cell.strip()]
    longest = max(map(len, headings[labels:]))
    number_lines = [
        f"{_GAP}{heading.ljust(longest)}{_GAP}{cell}" for heading, cell in zip(headings[labels:], line[labels:])
    ]
    texts = [*wrap_lines(", ".join(labels_of_row), width), *(number.rstrip() for number in number_lines)]
    return [BlockLine(text, row) for text in texts]
