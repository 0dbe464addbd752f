"""Reader of CSV and Parquet columns as text, for every command that takes a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ltr.errors import DataError, nearest
from ltr.files import PARQUET_SUFFIXES
from ltr.names import counted, list_first

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_LONG = "field larger than field limit"  # in the error of the csv module
_UNSEEN = "\ufeff\u200b"  # a byte order mark inside the file, a zero width space


@dataclass(frozen=True)
class Columns:
    """Selected columns of a table.

    Attributes:
        texts: text of each row, by column; never blank.
        lines: line number of each row of a text file; the first row is line 2.
    """

    texts: dict[str, list[str]]
    lines: list[int]

    def where(self, row: int) -> str:
        """Return the position of a row (counted from 0) for a message."""
        return f"line {self.lines[row]}" if self.lines else f"row {row + 1}"


def read_columns(table: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Columns:
    """Read the columns ``needed``, and those of ``optional`` that exist.

    CSV must be UTF-8 with a header, separated by commas, semicolons or tabs; the first separator that gives the header
    the needed columns is used. White space around column names is stripped; if the header has some, white space around
    cells is stripped too. A byte order mark, blank lines and empty cells beyond the header are ignored.

    Raises:
        DataError: the table cannot be read, lacks a column or has it twice, has no rows, has a blank cell, or has rows
            whose length differs from the header's.
    """
    columns = (_read_parquet if table.suffix.lower() in PARQUET_SUFFIXES else _read_csv)(table, needed, optional)
    for column, texts in columns.texts.items():
        if not texts:
            raise DataError(f"{table} has no rows below the names of its columns. Add rows")
        blank = [columns.where(row) for row, text in enumerate(texts) if not text.strip()]
        if blank:
            raise DataError(f"the column {column} of {table} is empty in {list_first(blank)}. Every image needs one")
    return columns


def iterate_rows(
    table: Path, needed: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, list[str | None]]]:
    """Yield (line number, cells of ``needed`` and ``optional``) of a CSV table, one row at a time.

    Cells may be blank; a cell is None if the table lacks the column. All other rules are those of `read_columns`.

    Raises:
        DataError: the table cannot be read, lacks a column or has it twice, or has rows whose length differs from the
            header's.
    """
    with _explained(table), _open_csv(table) as file:
        head, separator, has_spaces = _head(file, table, needed)
        positions = _positions(table, [_column_name(name) for name in head], needed, optional)
        order = [positions.get(column) for column in (*needed, *optional)]
        for line, row in _rows(file, head, separator, has_spaces):
            yield line, [None if position is None else row[position] for position in order]


def column_names(table: Path, needed: Sequence[str] = ()) -> list[str]:
    """Return the names of the columns of a table, CSV or Parquet.

    Args:
        needed: columns by which the separator is recognised.

    Raises:
        DataError: the table cannot be read.
    """
    with _explained(table):
        if table.suffix.lower() in PARQUET_SUFFIXES:
            from pyarrow import parquet

            return [name.strip() for name in parquet.read_schema(os.fspath(table)).names]
        with _open_csv(table) as file:
            return [_column_name(name) for name in _head(file, table, needed)[0]]


@contextmanager
def _explained(table: Path) -> Iterator[None]:
    """Convert the errors of reading a table to a DataError that names it."""
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's own errors are ValueErrors
        reason = " ".join(str(error).split())
        if _LONG in reason:  # of the header; `_whole_rows` explains those of other rows
            reason = f"its first line has a name of more than {csv.field_size_limit():,} characters. Shorten it"
        raise DataError(f"{table} cannot be read as a table: {reason}") from error


def _read_csv(table: Path, needed: Sequence[str], optional: Sequence[str]) -> Columns:
    texts: dict[str, list[Any]] = {column: [] for column in (*needed, *optional)}
    lines = []
    for line, cells in iterate_rows(table, needed, optional):
        lines.append(line)
        for column, cell in zip(texts.values(), cells):
            column.append(cell)
    return Columns({column: cells for column, cells in texts.items() if cells[:1] != [None]}, lines)


def _open_csv(table: Path) -> TextIO:
    with open(table, "rb") as start:
        beginning = start.read(8)
        if beginning[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError("it is UTF-16. Save it as CSV in UTF-8")
        if beginning.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
            raise ValueError("it is the workbook of a spreadsheet, or an archive. Save it as CSV in UTF-8")
        if beginning.removeprefix(b"\xef\xbb\xbf").startswith(b"sep="):
            raise ValueError(
                "its first line (sep=...) declares the separator for spreadsheets and does not name the columns. "
                "Remove it"
            )
    # surrogateescape keeps bytes of a path that are not UTF-8, so that the file can be opened
    return open(table, newline="", encoding="utf-8-sig", errors="surrogateescape")


def _head(file: TextIO, table: Path, needed: Sequence[str]) -> tuple[list[str], str, bool]:
    """Return the first row, the separator, and whether white space surrounds its cells; the file is rewound."""
    separator = _separator(file.readline(), needed)
    file.seek(0)
    head = next(csv.reader(file, delimiter=separator), [])
    if not any(_column_name(name) for name in head):
        raise ValueError("its first line must name the columns" if table.stat().st_size else "it is empty")
    file.seek(0)
    return head, separator, any(name != name.strip() for name in head)


def _rows(file: TextIO, head: Sequence[str], separator: str, has_spaces: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of the non-blank rows below the header."""
    rows = _whole_rows(csv.reader(file, delimiter=separator, strict=True, skipinitialspace=has_spaces))
    next(rows)
    for line, row in rows:
        if not row:
            continue
        if len(row) < len(head) or any(row[len(head) :]):
            raise ValueError(
                f"line {line} has {counted(len(row), 'cell')}, the header has {len(head)}. Put quotes around a cell "
                "that holds the separator"
            )
        yield line, [cell.strip() for cell in row] if has_spaces else row


def _whole_rows(rows: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield (last line, cells) of a reader's rows; an error names the row that cannot be read."""
    begins = 1
    try:
        for row in rows:
            yield rows.line_num, row
            begins = rows.line_num + 1
    except csv.Error as error:
        row = f"the row that begins in line {begins}"
        if _LONG in str(error):
            raise ValueError(
                f"{row} has a cell of more than {csv.field_size_limit():,} characters. Shorten it, or leave its column "
                "out; or close its quote, if the cell begins with one"
            ) from error
        raise ValueError(
            f"{row} has quotes that do not match ({error}). Close them, and double a quote inside a quoted cell"
        ) from error


def _column_name(name: str) -> str:
    return name.strip().strip(_UNSEEN).strip()


def _separator(head: str, needed: Sequence[str]) -> str:
    """Return the separator that gives ``head`` the needed columns; a comma if none does."""
    for separator in SEPARATORS:
        cells = next(csv.reader([head], delimiter=separator, skipinitialspace=True), [])
        if set(needed) <= {_column_name(cell) for cell in cells}:
            return separator
    return ","


def _read_parquet(table: Path, needed: Sequence[str], optional: Sequence[str]) -> Columns:
    from pyarrow import parquet

    with _explained(table):
        names = list(parquet.read_schema(os.fspath(table)).names)
        positions = _positions(table, [name.strip() for name in names], needed, optional)
        source_names = {column: names[position] for column, position in positions.items()}
        table_columns = parquet.read_table(os.fspath(table), columns=list(source_names.values()))
    return Columns(
        {column: _texts(table, column, table_columns[name].to_pylist()) for column, name in source_names.items()}, []
    )


def _texts(table: Path, column: str, values: Sequence[object]) -> list[str]:
    unreadable_types = sorted({type(value).__name__ for value in values} - {"str", "int", "NoneType"})
    if unreadable_types:
        raise DataError(
            f"the column {column} of {table} must hold texts or whole numbers, not {', '.join(unreadable_types)}. "
            "Convert it"
        )
    return ["" if value is None else str(value) for value in values]


def _positions(table: Path, names: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """Return the position of each column."""
    missing = [column for column in needed if column not in names]
    if missing:
        renames = [f"the column {name} to {column}" for column, name in in_other_case(names, missing).items()]
        kinds = ", ".join(SEPARATORS.values())
        hint = f". Rename {' and '.join(renames)}" if renames else nearest(missing[0], names)
        raise DataError(
            f"{table} has no column {' and no column '.join(missing)}; it has {list_first(names)}. The columns are "
            f"{', '.join(needed)}{' and, optionally, ' if optional else ''}{', '.join(optional)}; CSV may be "
            f"separated by {kinds}{hint}"
        )
    present = [column for column in (*needed, *optional) if column in names]
    twice = [column for column in present if names.count(column) > 1]
    if twice:
        raise DataError(f"{table} has more than one column {' and '.join(twice)}. Rename the others")
    return {column: names.index(column) for column in present}


def in_other_case(names: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Return those of ``columns`` that a table has only in other capitals, and how it spells them."""
    return {
        column: name
        for column in columns
        for name in names
        if column not in names and name.casefold() == column.casefold()
    }
