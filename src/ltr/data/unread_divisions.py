"""Divisions into training and test images that data have under a name which no reader looks for.

A table may have further columns, which are ignored, and every folder may be a class. Ignoring a division, however,
would train on test images, and ignoring groups would divide them: they are refused with the name that is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ltr.data.tables import column_names, in_other_case, iterate_rows
from ltr.errors import DataError
from ltr.files import PARQUET_SUFFIXES
from ltr.names import list_first

_KIND = r"(?:[ _-]?(?:set|images|imgs|data|split))?"
_TRAIN = re.compile(rf"(?:train|training|trn){_KIND}", re.IGNORECASE)
_EVALUATED = re.compile(rf"(?:val|valid|validation|dev|test|testing|tst|eval|evaluation|holdout){_KIND}", re.IGNORECASE)
# as CUB's is_training_image
_MARK = re.compile(r"is[ _]?(train|training|val|valid|validation|test)([ _]?(img|image|set))?", re.IGNORECASE)


def are_parts(names: Iterable[str]) -> bool:
    """Return whether among some names are one for training images and one for others, such as ``Train`` and ``dev``."""
    stripped = [name.strip() for name in names]
    return any(map(_TRAIN.fullmatch, stripped)) and any(map(_EVALUATED.fullmatch, stripped))


def are_only_parts(names: Iterable[str]) -> bool:
    """Return whether all names are names of parts, or blank."""
    stripped = [name.strip() for name in names]
    return all(not name or _TRAIN.fullmatch(name) or _EVALUATED.fullmatch(name) for name in stripped)


def refuse_unread_division(name: str, table: Path, read: Sequence[str]) -> None:
    """Raise DataError if a column that is not read divides the images into training and other images.

    Such a column holds nothing but names of parts, or has a name such as ``is_train``.

    Args:
        name: name of the data set, for the message.
        table: a table without the column ``split``.
        read: columns that are read; the first two are ``path`` and ``label``.
    """
    needed = read[:2]
    names = column_names(table, needed)
    unread = [column for column in names if column and column not in read and names.count(column) == 1]
    marks: dict[str, set[str]] = {column: set() for column in unread if _MARK.fullmatch(column)}
    for column, values in (marks or _divisions(table, unread, needed)).items():
        holds = f", which holds {list_first(sorted(values))}," if values else ""
        raise DataError(
            f"{name}: {table} has no column split, and its column {column}{holds} is not read. Rename it to split, "
            "with the values train, val and test, or remove it, to have test images drawn at random"
        )


def refuse_other_case(name: str, table: Path, needed: Sequence[str], columns: Sequence[str]) -> None:
    """Raise DataError if a table has one of ``columns`` only in other capitals.

    Args:
        name: name of the data set, for the message.
        table: the table.
        needed: columns that the table has.
        columns: columns of which it may have some.
    """
    for column, other in in_other_case(column_names(table, needed), columns).items():
        raise DataError(f"{name}: {table}: the column {other} is not read. Rename it to {column}, or remove it")


def _divisions(table: Path, columns: Sequence[str], needed: Sequence[str]) -> dict[str, set[str]]:
    """Return the columns that hold nothing but names of parts, among them one for training, and their values."""
    read = _parquet_values if table.suffix.lower() in PARQUET_SUFFIXES else _csv_values
    return {column: values for column, values in read(table, columns, needed).items() if are_parts(values)}


def _csv_values(table: Path, columns: Sequence[str], needed: Sequence[str]) -> dict[str, set[str]]:
    """Return the values of the columns that hold nothing but names of parts; reading stops when none is left."""
    values: dict[str, set[str]] = {column: set() for column in columns}
    for _, cells in iterate_rows(table, needed, columns):
        for column, cell in zip(columns, cells[len(needed) :]):
            if column in values and not are_only_parts([cell or ""]):
                del values[column]
            elif column in values and cell:
                values[column].add(cell)
        if not values:
            break
    return values


def _parquet_values(table: Path, columns: Sequence[str], needed: Sequence[str]) -> dict[str, set[str]]:
    """Return the values of the columns that hold nothing but names of parts."""
    from pyarrow import parquet, types

    values = {}
    for field in parquet.read_schema(os.fspath(table)):
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        if field.name.strip() in columns and (types.is_string(kind) or types.is_large_string(kind)):
            cells = parquet.read_table(os.fspath(table), columns=[field.name])[field.name].unique().to_pylist()
            texts = {cell for cell in cells if cell is not None}
            if are_only_parts(texts):
                values[field.name.strip()] = texts
    return values
