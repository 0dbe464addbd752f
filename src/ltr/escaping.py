"""Escaping of untrusted text (names of files, classes and runs, settings, errors) for each output format.

Names may hold anything: codes that steer a terminal, letters that turn the reading direction around or cannot be seen,
markup, formulas. Each kind of output has one function here; what comes from a file goes through it once, at the end.
"""

from __future__ import annotations

import html as _html
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

LONGEST = 200  # letters of a name in a table

# what a spreadsheet takes for the beginning of a formula, in ASCII and in full width
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII)
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "[": "{[}",  # after \\ a bracket would be its argument
    "]": "{]}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "↓": r"$\downarrow$",
    "·": r"$\cdot$",
    "–": "--",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "§": r"\S{}",
    "¶": r"\P{}",
}
# Markdown that could be read as a link, a picture, a tag, an entity, emphasis, a formula or the end of a cell
_MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*_[]<>|#~$!&"}


def one_line(text: object) -> str:
    """Return text for a single line of any output; what cannot be printed becomes an escape such as ``\\x1b``.

    These are the control characters (line ends too), the marks of reading direction, what has no width, and bytes of a
    path that are not UTF-8, which are shown as such.
    """
    plain = str(text)
    return plain if plain.isprintable() else "".join(map(_visible, plain))


def lines(text: object) -> str:
    """Return text of several lines, such as a message or a table, each of them as in `one_line`."""
    return "\n".join(one_line(line) for line in str(text).split("\n"))


def rich_text(text: object) -> Text:
    """Return `lines` for rich's console, where square brackets and ``:words:`` stay what they are."""
    from rich.text import Text

    return Text(lines(text))


def printer(console: Console) -> Callable[[object], None]:
    """Return a function that prints text on rich's console unchanged, a line of it on one line."""
    return lambda text: console.print(rich_text(text), soft_wrap=True)


def name(text: object, longest: int = LONGEST) -> str:
    """Return `one_line` of a name, with the middle of a very long one left out."""
    plain = one_line(text)
    half = (longest - 1) // 2
    return plain if len(plain) <= longest else f"{plain[:half]}…{plain[-half:]}"


def markdown(text: object) -> str:
    """Return text that is nothing but text in Markdown, also in the cell of a table."""
    plain = "".join(_MARKDOWN.get(letter, letter) for letter in one_line(text))
    # GitHub makes links of bare addresses and mentions of names
    return re.sub(r"(?i)\b(https?|ftp)(:)(?=//)|\b(www)(\.)|(@)", _no_link, plain)


def latex(text: object) -> str:
    """Return text that is nothing but text in LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in one_line(text))


def html(text: object) -> str:
    """Return text that is nothing but text in HTML and SVG, also in an attribute."""
    return _html.escape(one_line(text), quote=True)


def csv_cell(value: Any) -> Any:
    """Return a cell that no spreadsheet runs and no terminal obeys; numbers, also as text, stay unchanged.

    Text that begins as a formula does gets an apostrophe in front, by which spreadsheets know text.
    """
    if not isinstance(value, str):
        return value
    begins = value.lstrip().startswith(_FORMULA) or value.startswith(("\t", "\r"))
    if begins and not _NUMBER.fullmatch(value):
        value = f"'{value}"
    return one_line(value)


def csv_text(cell: str) -> str:
    """Return the text of a cell that `csv_cell` wrote: without the apostrophe in front of a would-be formula."""
    return cell[1:] if cell.startswith("'") and csv_cell(cell[1:]) == cell else cell


def _visible(letter: str) -> str:
    code = ord(letter)
    if letter.isprintable() or letter == "\u3000":
        return letter
    if letter in ("\xa0", "\u2007", "\u202f"):  # spaces that do not break
        return " "
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a path that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _no_link(match: re.Match[str]) -> str:
    return "".join(f"&#{ord(part)};" if part in ":.@" else part for part in match.groups() if part is not None)
