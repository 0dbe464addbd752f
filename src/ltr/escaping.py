"""Escaping of untrusted text (names of files, classes and runs, settings, errors) for each output format.

Names may contain control codes of terminals, marks of reading direction, invisible characters, markup and formulas.
Each output format has one function here, which is applied once, when the text is written.
"""

from __future__ import annotations

import html as _html
import re
import sys
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_LONGEST = 200  # characters of a name

# characters that begin a formula in a spreadsheet, in ASCII and in full width
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII)
_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_ESCAPED = re.compile(rf"\\(?={_ESCAPE.pattern[2:]})|[^ -\[\]-~]")
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
# characters that mark up a link, an image, a tag, an entity, emphasis, a formula or the end of a cell
_MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*_[]<>|#~$!&"}


def one_line(text: object) -> str:
    """Return text for a single line of any output; unprintable characters become escapes such as ``\\x1b``.

    These are control characters (line breaks too), marks of reading direction, characters without width, and bytes of a
    path that are not UTF-8.
    """
    plain = str(text)
    return plain if plain.isprintable() else "".join(map(_visible, plain))


def lines(text: object) -> str:
    """Return text of several lines, such as a message or a table, each escaped as in `one_line`."""
    return "\n".join(one_line(line) for line in str(text).split("\n"))


def rich_text(text: object) -> Text:
    """Return `lines` for rich's console, in which square brackets and ``:words:`` are not markup."""
    from rich.text import Text

    return Text(lines(text))


def printer(console: Console) -> Callable[[object], None]:
    """Return a function that prints text on rich's console, without markup and without breaking its lines."""
    return lambda text: console.print(rich_text(text), soft_wrap=True)


def name(text: object, longest: int = _LONGEST) -> str:
    """Return `one_line` of a name; a long one loses its middle."""
    plain = one_line(text)
    half = (longest - 1) // 2
    return plain if len(plain) <= longest else f"{plain[:half]}…{plain[-half:]}"


def markdown(text: object) -> str:
    """Return text escaped for Markdown, also for the cell of a table."""
    plain = "".join(_MARKDOWN.get(letter, letter) for letter in one_line(text))
    # GitHub turns bare addresses into links, and @names into mentions
    return re.sub(r"(?i)\b(https?|ftp)(:)(?=//)|\b(www)(\.)|(@)", _no_link, plain)


def latex(text: object) -> str:
    """Return text escaped for LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in one_line(text))


def html(text: object) -> str:
    """Return text escaped for HTML and SVG, also for an attribute."""
    return _html.escape(one_line(text), quote=True)


def csv_cell(value: Any) -> Any:
    """Return a cell for CSV, which `csv_text` reads back; numbers, also as text, stay unchanged.

    Text that begins like a formula gets a leading apostrophe, which marks text in spreadsheets. Unprintable characters
    become escapes, as in `one_line`; spaces of every width stay, so that a path still names its file.
    """
    if not isinstance(value, str):
        return value
    plain = value.lstrip("'")  # an apostrophe of the text itself is not the mark
    begins = plain.lstrip().startswith(_FORMULA) or plain.startswith(("\t", "\r"))
    marked = begins and not _NUMBER.fullmatch(plain)
    text = value if value.isprintable() and "\\" not in value else _ESCAPED.sub(_csv_escape, value)
    return f"'{text}" if marked else text


def utf8(text: str) -> str:
    """Return text that UTF-8 can encode; other bytes of a path become an escape such as ``\\xff``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def csv_text(cell: str) -> str:
    """Return the text of a cell that `csv_cell` wrote, without its apostrophe and escapes; other cells unchanged."""
    if not cell.startswith("'") and "\\" not in cell:
        return cell
    for written in (cell[1:], cell) if cell.startswith("'") else (cell,):
        text = _ESCAPE.sub(_unescape, written)
        if csv_cell(text) == cell:
            return text
    return cell


def csv_path(cell: str) -> str:
    """Return the path of a cell of a table that may come from Windows, where ``\\`` separates folders, with ``/``."""
    path = csv_text(cell)
    # in a path with separators of Windows, \x84 is a folder
    return (cell if "\\" in path else path).replace("\\", "/")


def _csv_escape(match: re.Match[str]) -> str:
    """Return the escape of an unprintable character, or of a backslash before what would be read as an escape."""
    letter = match[0]
    if letter == "\\":
        return "\\x5c"
    code = ord(letter)
    return letter if _is_kept(letter) else _escape(code)


def _unescape(match: re.Match[str]) -> str:
    code = int(match[0][2:], 16)
    if code > sys.maxunicode:
        return match[0]
    letter = chr(code)
    return match[0] if _is_kept(letter) and letter != "\\" else letter


def _is_kept(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _visible(letter: str) -> str:
    code = ord(letter)
    if letter.isprintable() or letter == "\u3000":
        return letter
    if letter in ("\xa0", "\u2007", "\u202f"):  # non-breaking spaces
        return " "
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a path that is not UTF-8
        code -= 0xDC00
    return _escape(code)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _no_link(match: re.Match[str]) -> str:
    return "".join(f"&#{ord(part)};" if part in ":.@" else part for part in match.groups() if part is not None)
