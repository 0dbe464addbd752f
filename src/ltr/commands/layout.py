"""Layout of the commands' help and lists: lines that fit the terminal, in which no word is broken."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence

_WIDEST = 120  # columns; longer lines are hard to read


def help_width() -> int:
    """Return the width of help and lists, also in a file or a pipe: the terminal's, at most 120; 80 without one."""
    return min(shutil.get_terminal_size((80, 24)).columns, _WIDEST)


def longest(names: Iterable[str]) -> int:
    """Return the length of the longest name; 0 without any."""
    return max(map(len, names), default=0)


def pairs(rows: Iterable[tuple[str, str]], width: int, indent: str, *, least: int = 0, most: float = 0.4) -> list[str]:
    """Return names with their texts on the same line, or on the next one if names take too much of the width."""
    listed = list(rows)
    first = max(longest(name for name, _ in listed), least) + 2
    if len(indent) + first > most * width:
        return [
            line
            for name, text in listed
            for line in (*wrapped(name, width, indent), *(wrapped(text, width, f"{indent}    ") if text else []))
        ]
    return [
        line
        for name, text in listed
        for line in wrapped(text, width, f"{indent}{name:<{first}}", " " * (len(indent) + first))
    ]


def columns(rows: Sequence[tuple[str, str, str]], width: int, indent: str) -> list[str]:
    """Return rows of name, default and meaning."""
    first, second = (longest(row[column] for row in rows) + 2 for column in (0, 1))
    return pairs([(f"{name:<{first}}{default:<{second}}".rstrip(), text) for name, default, text in rows],
                  width, indent, most=0.55)  # fmt: skip


def wrapped(text: str, width: int, before: str = "", after: str | None = None) -> list[str]:
    """Return the lines of a text; no word is broken."""
    lines = textwrap.wrap(text, width, initial_indent=before, subsequent_indent=before if after is None else after,
                          break_long_words=False, break_on_hyphens=False)  # fmt: skip
    return lines or [before.rstrip()]
