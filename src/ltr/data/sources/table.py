"""A user's own images: a CSV or Parquet table of paths and labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.source import ImageFiles, Source
from ltr.data.sources.checks import checked_files, refuse_duplicates, shown
from ltr.data.sources.division import divided_name, held_for_test
from ltr.errors import DataError, nearest

PARTS = ("train", "val", "test")
NEEDED = ("path", "label")


def image_table(
    *,
    name: str,
    file: str,
    root: str | None = None,
    roots: Sequence[str] = (),
    test_fraction: float = 0.2,
    split_seed: int = 0,
    exif: bool = True,
    file_sizes: bool = True,
) -> Source:
    """A table with the columns ``path``, ``label`` and, if the parts are given, ``split`` (train, val or test).

    Classes are the labels in sorted order (by number where all are whole numbers). Rows keep their order within a part.
    Without a column ``split``, or with training rows alone, a share of each class is held for testing; with train and
    val alone, val is the test set. Either way the source's name says so.

    Args:
        name: the data set's name.
        file: the table; ``.csv`` (UTF-8, comma-separated, with a head) or ``.parquet``.
        root: folder that relative paths start from; None is the table's own.
        roots: more folders in which images, and what links lead to, may lie.
        test_fraction, split_seed, exif, file_sizes: as in `ltr.data.sources.folder.image_folder`.

    Raises:
        DataError: no such table, a column that is missing, an empty cell, a path that comes twice, a part of another
            name, a class that is tested and not trained on, or images that are missing or lie outside.
    """
    table = Path(file).expanduser().absolute()
    columns = _read(name, table)
    base = table.parent if root is None else Path(root).expanduser().absolute()
    paths, labels = columns["path"], columns["label"]
    refuse_duplicates(name, f"a path in {table}", paths)
    rows_of = _parts(name, table, columns.get("split", ["train"] * len(paths)))
    source_name = name
    if "test" not in rows_of and "val" in rows_of:
        rows_of["test"] = rows_of.pop("val")
        source_name += "-val_as_test"

    class_names = _class_names([labels[row] for row in rows_of["train"]])
    label_of = {class_name: number for number, class_name in enumerate(class_names)}
    unknown = sorted({labels[row] for rows in rows_of.values() for row in rows if labels[row] not in label_of})
    if unknown:
        raise DataError(
            f"{name}: {table} has labels without a training image: {shown(unknown)}{nearest(unknown[0], class_names)}. "
            "What is tested must be trained on"
        )
    numbers = np.array([label_of[label] for label in labels], dtype=np.int64)
    if "test" not in rows_of:
        is_test = held_for_test(name, paths, numbers, class_names, fraction=test_fraction, seed=split_seed)
        rows_of = {"train": np.flatnonzero(~is_test).tolist(), "test": np.flatnonzero(is_test).tolist()}
        source_name = divided_name(name, test_fraction, split_seed)
    order: list[int] = []
    parts: dict[str, range] = {}
    for part in PARTS:
        if part in rows_of:
            parts[part] = range(len(order), len(order) + len(rows_of[part]))
            order += rows_of[part]
    files = ImageFiles.from_paths(base, (paths[row] for row in order), exif=exif)
    files = checked_files(name, files, named_in=str(table), roots=roots, sizes=file_sizes)
    return Source(source_name, files, numbers[order], class_names, parts)


def _parts(name: str, table: Path, split: Sequence[str]) -> dict[str, list[int]]:
    """Row numbers by part, in order."""
    rows_of: dict[str, list[int]] = {}
    for row, part in enumerate(split):
        rows_of.setdefault(part, []).append(row)
    others = [part for part in rows_of if part not in PARTS]
    if others:
        raise DataError(
            f"{name}: the column split of {table} has {shown(others)}{nearest(others[0], PARTS)}. Allowed are "
            f"{', '.join(PARTS)}"
        )
    if "train" not in rows_of:
        raise DataError(f"{name}: no row of {table} is for training (split=train)")
    return rows_of


def _class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels that occur, sorted by number where all are whole numbers, else as text."""
    names = set(labels)
    if all(label.lstrip("-").isdecimal() for label in names):
        return tuple(sorted(names, key=lambda label: (int(label), label)))
    return tuple(sorted(names))


def _read(name: str, table: Path) -> dict[str, list[str]]:
    """The columns that are used, as texts."""
    if not table.is_file():
        raise DataError(
            f"{name} was not found: there is no file {table}. dataset.file must be a CSV or Parquet table with the "
            "columns path and label"
        )
    read = _read_parquet if table.suffix.lower() in (".parquet", ".pq") else _read_csv
    try:
        found = read(table)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{name}: {table} cannot be read as a table: {error}") from error
    missing = [column for column in NEEDED if column not in found.column_names]
    if missing:
        hint = nearest(missing[0], found.column_names)
        raise DataError(
            f"{name}: {table} has no column {' and no column '.join(missing)}; it has {shown(found.column_names)}. The "
            f"columns are path, label and, if you like, split; CSV is separated by commas{hint}"
        )
    twice = [column for column in (*NEEDED, "split") if found.column_names.count(column) > 1]
    if twice:
        raise DataError(f"{name}: {table} has more than one column {' and '.join(twice)}. Rename the others")
    if found.num_rows == 0:
        raise DataError(f"{name}: {table} has no rows")
    return {column: _texts(name, table, column, found) for column in (*NEEDED, "split") if column in found.column_names}


def _texts(name: str, table: Path, column: str, found: Any) -> list[str]:
    values = found.column(column).to_pylist()
    texts = [value if isinstance(value, str) else "" if value is None else str(value) for value in values]
    empty = [row for row, text in enumerate(texts, start=1) if not text.strip()]
    if empty:
        raise DataError(f"{name}: the column {column} of {table} is empty in row {shown(empty)}. Every image needs one")
    wrong = {type(value).__name__ for value in values} - {"str", "int"}
    if wrong:
        raise DataError(
            f"{name}: the column {column} of {table} must hold texts or whole numbers, not {shown(sorted(wrong))}"
        )
    return texts


def _read_csv(table: Path) -> Any:
    from pyarrow import csv, string

    with table.open(encoding="utf-8-sig", newline="") as stream:
        head = stream.readline()
    # every column as text: a label 007 stays what it is
    columns = [column.strip().strip('"') for column in head.rstrip("\r\n").split(",")]
    types = {column: string() for column in columns}
    return csv.read_csv(
        os.fspath(table),
        parse_options=csv.ParseOptions(newlines_in_values=False),
        convert_options=csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True),
    )


def _read_parquet(table: Path) -> Any:
    from pyarrow import parquet

    schema = parquet.read_schema(os.fspath(table))
    wanted = [column for column in (*NEEDED, "split") if column in schema.names]
    # only what is used is read; without the needed columns, nothing but their absence is told
    return parquet.read_table(os.fspath(table), columns=wanted or None)
