"""Divisions into training and test images that data have under a name which no reader looks for.

A table may have further columns, which are ignored, and every folder may be a class. Ignoring a division, however,
would train on test images, and ignoring groups would divide them: they are refused with the name that is read. Paths
such as ``train/1.jpg`` and ``test/2.jpg`` say less, because many who divide anew have them: they are warned of.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.data.tables import column_names, in_other_case, iterate_rows
from ltr.errors import DataError
from ltr.files import PARQUET_SUFFIXES
from ltr.names import list_first

_KIND = r"(?:[ _-]?(?:set|images|imgs|data|split))?(?:[ _-]?(?:19|20)\d\d)?"  # COCO has train2017 and val2017
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
    refuse_divisions(name, table, "column", marks or _divisions(table, unread, needed))


def refuse_divisions(name: str, file: Path, kind: str, divisions: Mapping[str, set[str]]) -> None:
    """Raise DataError if there are divisions that are not read.

    Args:
        name: name of the data set, for the message.
        file: the table or annotation file, which has no division that is read.
        kind: what a division is there: a column or a field.
        divisions: values of each division, by its name.
    """
    for field, values in divisions.items():
        holds = f", which holds {list_first(sorted(values))}," if values else ""
        raise DataError(
            f"{name}: {file} has no {kind} split, and its {kind} {field}{holds} is not read. Rename it to split, "
            "with the values train, val and test, or remove it, to have test images drawn at random"
        )


class DivisionFields:
    """Fields of an annotation file's images that divide them and are not read.

    Args:
        read: names of the fields that are read.
    """

    def __init__(self, read: Iterable[str]) -> None:
        self._known = set(read)
        self._values: dict[str, set[str]] = {}

    def add(self, image: Mapping[str, Any]) -> None:
        """Read the fields of the next image; a field counts only while it holds nothing but names of parts."""
        if not image.keys() <= self._known:
            for field in image.keys() - self._known:
                self._known.add(field)
                self._values[field] = set()
        for field in [*self._values]:
            value = image.get(field)
            if _MARK.fullmatch(field) or value in (None, ""):
                continue
            if isinstance(value, str) and are_only_parts([value]):
                self._values[field].add(value)
            else:
                del self._values[field]

    @property
    def divisions(self) -> dict[str, set[str]]:
        """Values of each division, by the name of its field; none for fields such as ``is_train``."""
        return {field: values for field, values in self._values.items() if _MARK.fullmatch(field) or are_parts(values)}


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
            levels = {level: set() for level, folder in enumerate(folders) if are_only_parts([folder or "."])}
        for level in [*levels]:
            if level < len(folders) and (folders[level] in levels[level] or are_only_parts([folders[level] or "."])):
                levels[level].add(folders[level])
            else:
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
