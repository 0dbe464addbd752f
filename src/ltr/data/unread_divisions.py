"""Divisions into training and test images that data have under a name which no reader looks for.

A table may have further columns, which are ignored, and every folder may be a class. Ignoring a division, however,
would train on test images, and ignoring groups would divide them: they are refused with the name that is read. What
only may be a division, such as numbers in a column ``set``, and paths such as ``train/1.jpg`` and ``test/2.jpg``, which
many who divide anew have, are warned of.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ltr.data.part_names import (
    are_abbreviated_parts,
    are_numbers_of_parts,
    are_only_parts,
    are_parts,
    are_truths,
    is_mark,
    kind_of_division,
    may_be_mark,
    role_of,
)
from ltr.data.tables import column_names, in_other_case, iterate_rows
from ltr.errors import DataError
from ltr.files import PARQUET_SUFFIXES
from ltr.names import list_first

_MOST = 20  # distinct values of a column that may divide the images
_MOST_NAMED = 6  # of these, where only the column's name and one value speak for a division
RENAME = "Rename it to split, with the values train, val and test, or remove it, to have test images drawn at random"


def refuse_unread_division(
    name: str, table: Path, read: Sequence[str], classes: Collection[str] = (), advice: str = RENAME
) -> None:
    """Raise DataError if a column that is not read divides the images into training and other images, or warn.

    Args:
        name: name of the data set, for the message.
        table: a table without the column ``split``.
        read: columns that are read; the first two are in the table.
        classes: names of the classes; a column of truth values called like one of them says which class an image has.
        advice: what to do about the column.
    """
    needed = read[:2]
    names = column_names(table, needed)
    unread = [column for column in names if column and column not in read and names.count(column) == 1]
    values = _parquet_values if table.suffix.lower() in PARQUET_SUFFIXES else _csv_values
    refuse_divisions(name, table, "column", values(table, unread, needed) if unread else {}, classes, advice)


def refuse_divisions(
    name: str,
    file: Path,
    kind: str,
    columns: Mapping[str, set[str]],
    classes: Collection[str] = (),
    advice: str = RENAME,
) -> None:
    """Raise DataError if one of the columns that are not read is a division, or warn if one may be a division.

    Args:
        name: name of the data set, for the message.
        file: the table or annotation file, which has no division that is read.
        kind: what a division is there: a column or a field.
        columns: distinct values of each column that has few.
        classes, advice: see `refuse_unread_division`.
    """
    known = {class_name.strip().casefold() for class_name in classes}
    lacks = f"has no {kind} split, and " if advice == RENAME else "may have a division that is not read: "
    verdicts = {column: _verdict(column, values, known) for column, values in columns.items()}
    for field, verdict in sorted(verdicts.items(), key=lambda item: item[1] != "refuse"):
        texts = sorted(value for value in columns[field] if value.strip())
        shown = list_first(texts if len(texts) > 1 else [*texts, "blank cells"])
        holds = f", which holds {shown}," if columns[field] and not is_mark(field) else ""
        if verdict == "refuse":
            raise DataError(f"{name}: {file} {lacks}its {kind} {field}{holds} is not read. {advice}")
        if verdict == "warn":
            warnings.warn(
                f"{name}: {file} {lacks}its {kind} {field}{holds} is not read, so test images are "
                f"drawn at random. If it divides the images into training and test images: {advice}",
                stacklevel=4,
            )


def _verdict(column: str, values: Collection[str], classes: Collection[str]) -> Literal["refuse", "warn"] | None:
    """Return what to do about a column that is not read: refuse a division, warn of what may be one."""
    if is_mark(column):
        return "refuse"
    kind = kind_of_division(column)
    texts = {value.strip() for value in values}
    if are_parts(texts):
        return "refuse" if kind is not None or are_only_parts(texts, unused=True) else "warn"
    if kind is not None and are_abbreviated_parts(texts):
        return "refuse"
    if may_be_mark(column) and are_truths(texts) and column.strip().casefold() not in classes:
        return "refuse"
    if kind is None or len(texts) < 2:
        return None
    if are_numbers_of_parts(texts):
        return "refuse" if kind == "split" else "warn"
    if kind == "fold" and all(re.search(r"\d", text) for text in texts if text):
        return "warn"
    if kind == "split" and are_numbers_of_parts(texts, _MOST):
        return "warn"
    if len(texts) <= _MOST_NAMED and (kind == "split" or any(role_of(text) is not None for text in texts)):
        return "warn"
    return None


class DivisionFields:
    """Fields of an annotation file's images that may divide them and are not read.

    Args:
        read: names of the fields that are read.
    """

    def __init__(self, read: Iterable[str]) -> None:
        self._known = set(read)
        self._spelled = {field.casefold(): field for field in self._known if field != "split"}
        self._values: dict[str, set[str]] = {}
        self._images = 0

    def add(self, image: Mapping[str, Any]) -> None:
        """Read the fields of the next image; a field counts only while it holds few texts, numbers or truth values.

        Raises:
            ValueError: a field that is read is there in other capitals.
        """
        if not image.keys() <= self._known:
            for field in image.keys() - self._known:
                spelled = self._spelled.get(field.casefold())
                if spelled is not None and spelled not in image:
                    raise ValueError(f"the field {field} is not read. Rename it to {spelled}, or remove it")
                self._known.add(field)
                self._values[field] = {""} if self._images else set()
        self._images += 1
        for field in [*self._values]:
            value = image.get(field)
            if value is not None and not isinstance(value, (str, int, float)):
                del self._values[field]
                continue
            self._values[field].add("" if value is None else str(value))
            if len(self._values[field]) > _MOST:
                del self._values[field]

    @property
    def divisions(self) -> dict[str, set[str]]:
        """Distinct values of the fields that have few, by the name of the field."""
        return self._values


def warn_of_parts_in_paths(name: str, file: Path, kind: str, paths: Iterable[str]) -> None:
    """Warn if all images lie in folders of parts, such as train and test, which are not read as a division.

    Args:
        name: name of the data set, for the message.
        file: the table or annotation file.
        kind: what the division would be there: a column or a field.
        paths: path of each image, in folders separated by ``/``.
    """
    levels: dict[int, set[str]] = {}
    for number, path in enumerate(paths):
        folders = path.split("/")[:-1]
        if number == 0:
            levels = {level: set() for level in range(len(folders))}
        for level in [*levels]:
            if level < len(folders):
                levels[level].add(folders[level])
            if level >= len(folders) or len(levels[level]) > _MOST:
                del levels[level]
        if not levels:
            return
    for folders_of_parts in levels.values():
        if are_parts(folders_of_parts):
            warnings.warn(
                f"{name}: the images of {file} lie in the folders {list_first(sorted(folders_of_parts))}, which are "
                f"not read as a division: test images are drawn from all of them. To keep it, add the {kind} split "
                "with the values train, val and test",
                stacklevel=4,
            )
            return


def refuse_other_case(name: str, table: Path, needed: Sequence[str], columns: Sequence[str]) -> None:
    """Raise DataError if a table has one of ``columns`` only in other capitals.

    Args:
        name: name of the data set, for messages.
        table: the table.
        needed: columns that the table has.
        columns: columns of which it may have some.
    """
    for column, other in in_other_case(column_names(table, needed), columns).items():
        raise DataError(f"{name}: {table}: the column {other} is not read. Rename it to {column}, or remove it")


def _csv_values(table: Path, columns: Sequence[str], needed: Sequence[str]) -> dict[str, set[str]]:
    """Return the distinct values of the columns that have few; reading stops when none is left."""
    values: dict[str, set[str]] = {column: set() for column in columns}
    for _, cells in iterate_rows(table, needed, columns):
        for column, cell in zip(columns, cells[len(needed) :]):
            if column in values and (cell or "") not in values[column]:
                values[column].add(cell or "")
                if len(values[column]) > _MOST and not is_mark(column):
                    del values[column]
        if not values:
            break
    return values


def _parquet_values(table: Path, columns: Sequence[str], needed: Sequence[str]) -> dict[str, set[str]]:
    """Return the distinct values of the columns of texts, numbers or truth values that have few."""
    from pyarrow import parquet, types

    readable = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    values = {}
    for field in parquet.read_schema(os.fspath(table)):
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        if field.name.strip() in columns and any(is_kind(kind) for is_kind in readable):
            cells = parquet.read_table(os.fspath(table), columns=[field.name])[field.name].unique()
            if len(cells) <= _MOST + 1 or is_mark(field.name.strip()):
                values[field.name.strip()] = {"" if cell is None else str(cell) for cell in cells.to_pylist()}
    return values
