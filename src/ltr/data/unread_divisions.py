"""Divisions into training and test images that data have under a name which no reader looks for.

A table may have further columns, which are ignored, and every folder may be a class. Ignoring a division, however,
would train on test images, and ignoring groups would divide them: they are refused with the name that is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from ltr.data.tables import PARQUET, column_names, iterate_rows
from ltr.errors import DataError
from ltr.names import list_first

_KIND = r"(?:[ _-]?(?:set|images|imgs|data|split))?"
_TRAIN = re.compile(rf"(?:train|training|trn){_KIND}", re.IGNORECASE)
_EVALUATED = re.compile(rf"(?:val|valid|validation|dev|test|testing|tst|eval|evaluation|holdout){_KIND}", re.IGNORECASE)
_MARK = re.compile(r"is_?(train|training|val|valid|validation|test)(_?(img|image|set))?", re.IGNORECASE)  # as in CUB


def are_parts(names: Iterable[str]) -> bool:
    """Return whether among some names are one for training images and one for others, such as ``Train`` and ``dev``."""
    stripped = [name.strip() for name in names]
    return any(map(_TRAIN.fullmatch, stripped)) and any(map(_EVALUATED.fullmatch, stripped))


def are_only_parts(names: Iterable[object]) -> bool:
    """Return whether all names are names of parts, or blank."""
    texts = [str(name or "").strip() for name in names]
    return all(not text or _TRAIN.fullmatch(text) or _EVALUATED.fullmatch(text) for text in texts)


def refuse_unread_division(name: str, table: Path, read: Sequence[str]) -> None:
    """Raise DataError if a column that is not read divides the images into training and other images.

    Args:
        name: name of the data set, for the message.
        table: a table without the column ``split``.
        read: columns that are read, the needed ones first.
    """
    names = column_names(table, read[:2])
    unread = [column for column in names if column and column not in read and names.count(column) == 1]
    marks = [column for column in unread if _MARK.fullmatch(column.replace(" ", "_"))]
    for column, values in ((column, ()) for column in marks) if marks else _divisions(table, unread, read[:2]):
        holds = f", which holds {list_first(sorted(filter(str.strip, values)))}," if values else ""
        raise DataError(
            f"{name}: {table} has no column split, and its column {column}{holds} is not read. Rename it to split, "
            "with the values train, val and test, or remove it, to have test images drawn at random"
        )


def refuse_other_case(name: str, table: Path, read: Sequence[str], columns: Collection[str]) -> None:
    """Raise DataError if a table has one of ``columns`` only in other capitals.

    Args:
        name: name of the data set, for the message.
        table: the table.
        read: columns that the table needs.
        columns: columns of which it may have some.
    """
    names = column_names(table, read)
    for column in columns:
        for other in names:
            if column not in names and other.casefold() == column.casefold():
                raise DataError(f"{name}: {table}: the column {other} is not read. Rename it to {column}, or remove it")


def _divisions(table: Path, columns: Sequence[str], needed: Sequence[str]) -> Iterator[tuple[str, set[str]]]:
    """Yield the columns that hold nothing but names of parts, among them one for training, and their values."""
    values = (_parquet_values if table.suffix.lower() in PARQUET else _csv_values)(table, columns, needed)
    for column, parts in values.items():
        if are_parts(parts):
            yield column, parts


def _csv_values(table: Path, columns: Sequence[str], needed: Sequence[str]) -> dict[str, set[str]]:
    """Return the values of the columns that hold nothing but names of parts; reading stops when none is left."""
    values: dict[str, set[str]] = {column: set() for column in columns}
    for _, cells in iterate_rows(table, needed, columns):
        for column, cell in zip(columns, cells[len(needed) :]):
            if column in values and not are_only_parts([cell]):
                del values[column]
            elif column in values:
                values[column].add(str(cell or ""))
        if not values:
            break
    return values


def _parquet_values(table: Path, columns: Sequence[str], needed: Sequence[str]) -> dict[str, set[str]]:
    from pyarrow import parquet, types

    schema = parquet.read_schema(os.fspath(table))
    parts = {}
    for field in schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        if field.name.strip() in columns and (types.is_string(kind) or types.is_large_string(kind)):
            values = parquet.read_table(os.fspath(table), columns=[field.name])[field.name].unique().to_pylist()
            if are_only_parts(values):
                parts[field.name.strip()] = {str(value or "") for value in values}
    return parts
