"""Columns of a CSV or Parquet table as texts: one reader for every command that takes a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ltr.errors import DataError, nearest

SUFFIXES = (".csv", ".parquet", ".pq")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_UNSEEN = "\ufeff\u200b"  # a byte order mark inside the file, a zero width space
_SHOWN = 10


@dataclass(frozen=True)
class Columns:
    """The wanted columns of a table.

    Attributes:
        texts: by column, one text a row; none is blank.
        lines: of each row, where the table is a text file; its first row is line 2.
    """

    texts: dict[str, list[str]]
    lines: list[int]

    def where(self, row: int) -> str:
        """Return what to call a row (from 0) in a message."""
        return f"line {self.lines[row]}" if self.lines else f"row {row + 1}"


def read_columns(table: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Columns:
    """Read the columns ``needed``, and those of ``optional`` that there are.

    CSV is UTF-8 with a head, separated by commas, semicolons or tabs: by the first of them that gives the head the
    needed columns. White space around names of the head is not part of them; where the head has some, cells are read
    without theirs too. A byte order mark, blank lines and empty cells beyond the head's are passed over.

    Raises:
        DataError: the table cannot be read, lacks a column or has it twice, has no rows, a blank cell, or rows of
            another length than its head.
    """
    read = _read_csv if table.suffix.lower() not in (".parquet", ".pq") else _read_parquet
    try:
        columns = read(table, needed, optional)
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{table} cannot be read as a table: {' '.join(str(error).split())}") from error
    for column, texts in columns.texts.items():
        if not texts:
            raise DataError(f"{table} has no rows")
        blank = [columns.where(row) for row, text in enumerate(texts) if not text.strip()]
        if blank:
            raise DataError(f"the column {column} of {table} is empty in {_shown(blank)}. Every image needs one")
    return columns


def _read_csv(table: Path, needed: Sequence[str], optional: Sequence[str]) -> Columns:
    with open(table, "rb") as start:
        if start.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError("it is UTF-16. Save it as CSV in UTF-8")
    # bytes of a path that are no UTF-8 come back as they were when the file is opened
    with open(table, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        separator = _separator(file.readline(), needed)
        file.seek(0)
        head = next(csv.reader(file, delimiter=separator), [])
        names = [name.strip().strip(_UNSEEN).strip() for name in head]
        if not any(names):
            raise ValueError("its first line must name the columns" if table.stat().st_size else "it is empty")
        spaced = any(name != name.strip() for name in head)
        places = _places(table, names, needed, optional)
        file.seek(0)
        rows = csv.reader(file, delimiter=separator, strict=True, skipinitialspace=spaced)
        next(rows)
        texts: dict[str, list[str]] = {column: [] for column in places}
        lines = []
        for row in rows:
            if not row:
                continue
            if len(row) < len(head) or any(row[len(head) :]):
                raise ValueError(
                    f"line {rows.line_num} has {len(row)} cells and the head {len(head)}. Put quotes around a cell "
                    "that holds the separator"
                )
            lines.append(rows.line_num)
            for column, place in places.items():
                texts[column].append(row[place].strip() if spaced else row[place])
    return Columns(texts, lines)


def _separator(head: str, needed: Sequence[str]) -> str:
    """Return the separator by which ``head`` has the needed columns; a comma where none does."""
    for separator in SEPARATORS:
        cells = next(csv.reader([head], delimiter=separator, skipinitialspace=True), [])
        if set(needed) <= {cell.strip().strip(_UNSEEN).strip() for cell in cells}:
            return separator
    return ","


def _read_parquet(table: Path, needed: Sequence[str], optional: Sequence[str]) -> Columns:
    from pyarrow import parquet

    names = list(parquet.read_schema(os.fspath(table)).names)
    places = _places(table, [name.strip() for name in names], needed, optional)
    wanted = {column: names[place] for column, place in places.items()}
    read = parquet.read_table(os.fspath(table), columns=list(wanted.values()))
    return Columns({column: _texts(table, column, read[name].to_pylist()) for column, name in wanted.items()}, [])


def _texts(table: Path, column: str, values: Sequence[object]) -> list[str]:
    wrong = sorted({type(value).__name__ for value in values} - {"str", "int", "NoneType"})
    if wrong:
        raise DataError(
            f"the column {column} of {table} must hold texts or whole numbers, not {', '.join(wrong)}. Convert it"
        )
    return ["" if value is None else str(value) for value in values]


def _places(table: Path, names: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """Return where each column stands."""
    missing = [column for column in needed if column not in names]
    if missing:
        kinds = ", ".join(SEPARATORS.values())
        raise DataError(
            f"{table} has no column {' and no column '.join(missing)}; it has {_shown(names)}. The columns are "
            f"{', '.join(needed)}{' and, if you like, ' if optional else ''}{', '.join(optional)}; CSV may be "
            f"separated by {kinds}{nearest(missing[0], names)}"
        )
    wanted = [column for column in (*needed, *optional) if column in names]
    twice = [column for column in wanted if names.count(column) > 1]
    if twice:
        raise DataError(f"{table} has more than one column {' and '.join(twice)}. Rename the others")
    return {column: names.index(column) for column in wanted}


def _shown(entries: Sequence[str]) -> str:
    text = ", ".join(entries[:_SHOWN])
    return text if len(entries) <= _SHOWN else f"{text}, ... ({len(entries):,} in all)"
