"""Reader of tables of paths and labels, in which the labels of later tables replace earlier ones."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltr.data.tables import Columns, column_names, read_columns
from ltr.data.unread_divisions import refuse_other_case, refuse_unread_division
from ltr.errors import ConfigError, DataError, nearest
from ltr.escaping import csv_text
from ltr.files import PARQUET_SUFFIXES
from ltr.names import canonical, is_text, list_first

NEEDED = ("path", "label")


@dataclass(frozen=True, eq=False)
class LabelRows:
    """Rows of one or more tables, in order, with the last label of each image.

    Attributes:
        tables: the tables, by absolute path.
        base: folder that ``paths`` start from.
        paths: path of each row from ``base``, or absolute.
        written: path of each row as spelled in its table.
        labels: label of each row, in composed Unicode form.
        split: part of each row; None if no table has the column ``split``.
        groups: group of each row, '' if its tables have none; None if no column of groups was requested.
        table_of: number of each row's table.
        row_of: number of each row in its table.
        columns: columns of each table.
    """

    tables: tuple[Path, ...]
    base: Path
    paths: list[str]
    written: list[str]
    labels: list[str]
    split: list[str] | None
    table_of: np.ndarray
    row_of: np.ndarray
    columns: tuple[Columns, ...]
    groups: list[str] | None = None

    @property
    def named_in(self) -> str:
        """Name of the tables, for messages."""
        return " and ".join(map(str, self.tables))

    def where(self, row: int) -> str:
        """Return the position of a row (from 0) for a message."""
        number = int(self.table_of[row])
        table = self.tables[number]
        is_ambiguous = sum(other.name == table.name for other in self.tables) > 1
        return f"{self.columns[number].where(int(self.row_of[row]))} of {table if is_ambiguous else table.name}"


def read_label_tables(name: str, files: Sequence[str], root: str | None, group: str | None = None) -> LabelRows:
    """Read tables with the columns ``path``, ``label`` and optionally ``split``; later tables replace earlier labels.

    An image that appears again in a later table keeps its position and gets the later label; a warning counts such
    images and lists those whose label changes. The image keeps its part, unless the later table has a column ``split``.
    If only some tables have that column, new images in the tables without it are for training. The apostrophe that
    ltr's CSV files have before text that resembles a formula is removed.

    Two paths are one image if they are equal after removing ``.`` and repeated slashes; `check_image_files` refuses
    other spellings of one file.

    Args:
        name: name of the data set, for messages.
        files: the tables, the newest last.
        root: folder of relative paths; None: the folder of each table.
        group: column of groups, which at least one table must have; the last table that has it applies.

    Raises:
        ConfigError: a table is listed twice, or no table has the column of groups.
        DataError: a table cannot be read, or lacks a column or a cell.
    """
    tables = tuple(Path(file).expanduser().absolute() for file in files)
    repeated = [str(table) for row, table in enumerate(tables) if table in tables[:row]]
    if repeated:
        raise ConfigError(f"dataset.labels lists {list_first(repeated)} twice. List each table once, the newest last")
    columns = tuple(
        _read(name, table, "dataset.labels" if len(files) > 1 else "dataset.file", group) for table in tables
    )
    if group is not None and not any(group in one.texts for one in columns):
        _refuse_group(group, tables)
    if root is not None:
        base = Path(root).expanduser().absolute()
        folders = [""] * len(tables)
    else:
        base = Path(os.path.commonpath([table.parent for table in tables]))
        folders = [os.path.relpath(table.parent, base) for table in tables]
    if len(tables) == 1:
        texts = columns[0].texts
        count = len(texts["path"])
        return LabelRows(
            tables,
            base,
            texts["path"],
            texts["path"],
            texts["label"],
            texts.get("split"),
            np.zeros(count, dtype=np.int32),
            np.arange(count),
            columns,
            None if group is None else texts[group],
        )
    return _merged(name, tables, base, folders, columns, group)


def _refuse_group(group: str, tables: Sequence[Path]) -> None:
    """Raise ConfigError that names the columns of the tables."""
    names = list(dict.fromkeys(column for table in tables for column in column_names(table, NEEDED)))
    raise ConfigError(
        f"dataset.group={group}: there is no such column in {' and '.join(map(str, tables))}. Choose one of "
        f"{', '.join(names)}, or null to divide images one by one{nearest(group, names)}"
    )


def _merged(
    name: str,
    tables: tuple[Path, ...],
    base: Path,
    folders: Sequence[str],
    columns: tuple[Columns, ...],
    group: str | None,
) -> LabelRows:
    paths: list[str] = []
    written: list[str] = []
    labels: list[str] = []
    split: list[str] = []
    groups: list[str] = []
    origins: list[tuple[int, int]] = []  # (table, row in the table)
    row_of: dict[str, int] = {}  # row in earlier tables, by the path's key
    has_split = any("split" in one.texts for one in columns)
    for number, (table, one) in enumerate(zip(tables, columns)):
        parts, group_column = one.texts.get("split"), one.texts.get(group or "")
        rows_here: dict[str, int] = {}
        changes: list[str] = []
        replaced = 0
        for row, (path, label) in enumerate(zip(one.texts["path"], one.texts["label"])):
            key = _key(base, folders[number], path)
            before = row_of.get(key)
            if before is None or key in rows_here:  # a repetition within one table is refused later, with both lines
                rows_here.setdefault(key, len(paths))
                paths.append(path if folders[number] in ("", ".") else os.path.join(folders[number], path))
                written.append(path)
                labels.append(label)
                split.append("train" if parts is None else parts[row])
                groups.append("" if group_column is None else group_column[row])
                origins.append((number, row))
                continue
            rows_here[key] = before
            replaced += 1
            if labels[before] != label:
                changes.append(f"{path} ({labels[before]} -> {label})")
            labels[before], origins[before] = label, (number, row)
            if parts is not None:
                split[before] = parts[row]
            if group_column is not None:
                groups[before] = group_column[row]
        row_of |= rows_here
        _warn(name, table, replaced, changes, len(rows_here) - replaced if has_split and parts is None else 0)
    table_of, rows = np.array(origins, dtype=np.int64).T
    parts_of_rows, groups_of_rows = split if has_split else None, None if group is None else groups
    return LabelRows(tables, base, paths, written, labels, parts_of_rows, table_of, rows, columns, groups_of_rows)


def _warn(name: str, table: Path, replaced: int, changes: Sequence[str], unsplit: int) -> None:
    """Warn of labels that ``table`` replaces, and of its images that are for training because it has no split."""
    if replaced:
        images = "1 image" if replaced == 1 else f"{replaced:,} images"
        number = "1 label changes" if len(changes) == 1 else f"{len(changes):,} labels change"
        warnings.warn(
            f"{name}: {table.name} relabels {images} of an earlier table; its labels are used. "
            + (f"{number}: {list_first(changes)}" if changes else "No label changes"),
            stacklevel=4,
        )
    if unsplit:
        images = "1 further image is" if unsplit == 1 else f"{unsplit:,} further images are"
        warnings.warn(f"{name}: {table.name} has no column split, so its {images} for training", stacklevel=4)


def _key(base: Path, folder: str, path: str) -> str:
    """Return the normal form in which paths are compared; it keeps ``..``, which may leave a linked folder."""
    parts = os.path.join(base, folder, path).split(os.sep)
    return os.sep.join(part for part in parts if part not in ("", "."))


def _read(name: str, table: Path, key: str, group: str | None) -> Columns:
    """Read the columns, with labels and groups in composed Unicode form."""
    if not table.is_file():
        raise DataError(
            f"{name} was not found: there is no file {table}. {key} must be "
            f"{'CSV or Parquet tables' if key == 'dataset.labels' else 'a CSV or Parquet table'} with the columns path "
            "and label"
        )
    further = () if group is None or group in (*NEEDED, "split") else (group,)
    try:
        columns = read_columns(table, NEEDED, ("split", *further))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    if "split" not in columns.texts:
        refuse_unread_division(name, table, (*NEEDED, *further), set(columns.texts["label"]))
        if group is None or group.casefold() != "split":
            refuse_other_case(name, table, NEEDED, ("split",))
    if table.suffix.lower() not in PARQUET_SUFFIXES:
        for column in {*NEEDED, *further} & set(columns.texts):
            columns.texts[column] = [csv_text(cell) for cell in columns.texts[column]]
    labels = columns.texts["label"]
    broken = [columns.where(row) for row, label in enumerate(labels) if not label.isascii() and not is_text(label)]
    if broken:
        raise DataError(
            f"{name}: {table} is not UTF-8: labels that cannot be read in {list_first(broken)}. Save the table as UTF-8"
        )
    for column in {"label", *further} & set(columns.texts):
        columns.texts[column] = [canonical(text) for text in columns.texts[column]]
    return columns
