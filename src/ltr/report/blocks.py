"""Aligned text tables that fit a terminal: what does not fit beside the first columns goes into further blocks."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

_GAP = "  "


class BlockLine(NamedTuple):
    """A line of a block, and the place of the table's row that it shows; None for the headings."""

    text: str
    row: int | None


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output is; None for a file or a pipe, which have no width."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table_blocks(
    lines: Sequence[Sequence[str]], numeric: Sequence[bool], labels: int, width: int | None = None
) -> list[list[BlockLine]]:
    """Return a table as one or several blocks of aligned lines, none wider than ``width`` where that is possible.

    Every block repeats the label columns. Where these leave no room for a number, each row becomes a block of its own
    with one line a column. No text is cut, and no line ends in spaces.

    Args:
        lines: the headings, then the rows, of equal length.
        numeric: for each column, whether it is aligned to the right.
        labels: leading columns that tell the rows apart.
        width: in characters, >= 1; None: no limit.
    """
    widths = [max(len(line[place]) for line in lines) for place in range(len(numeric))]
    label_columns, others = range(labels), range(labels, len(numeric))
    taken = _total([widths[place] for place in label_columns])
    if width is not None and others and taken + len(_GAP) + max(widths[place] for place in others) > width:
        return [_record(lines[0], line, labels, width, row) for row, line in enumerate(lines[1:])]
    blocks: list[list[int]] = [[]]
    for place in others:
        columns = [widths[one] for one in (*label_columns, *blocks[-1], place)]
        if blocks[-1] and width is not None and _total(columns) > width:
            blocks.append([])
        blocks[-1].append(place)
    return [_aligned(lines, [*label_columns, *block], widths, numeric) for block in blocks]


def wrapped(text: str, width: int | None) -> list[str]:
    """Return a note as lines of at most ``width`` characters; whole without a width."""
    return [text] if width is None else textwrap.wrap(text, max(width, 20), break_long_words=False) or [text]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * max(len(widths) - 1, 0)


def _aligned(
    lines: Sequence[Sequence[str]], columns: Sequence[int], widths: Sequence[int], numeric: Sequence[bool]
) -> list[BlockLine]:
    texts = [
        _GAP.join(
            line[place].rjust(widths[place]) if numeric[place] else line[place].ljust(widths[place])
            for place in columns
        ).rstrip()
        for line in lines
    ]
    return [BlockLine(text, place - 1 if place else None) for place, text in enumerate(texts)]


def _record(headings: Sequence[str], line: Sequence[str], labels: int, width: int, row: int) -> list[BlockLine]:
    """Return a row with its labels above and one line a number."""
    named = [f"{heading} {cell}".strip() for heading, cell in zip(headings[:labels], line) if cell.strip()]
    longest = max(map(len, headings[labels:]))
    numbers = [f"{_GAP}{heading.ljust(longest)}{_GAP}{cell}" for heading, cell in zip(headings[labels:], line[labels:])]
    texts = [*wrapped(", ".join(named), width), *(number.rstrip() for number in numbers)]
    return [BlockLine(text, row) for text in texts]
