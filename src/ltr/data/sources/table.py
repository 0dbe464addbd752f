"""Custom images in a CSV or Parquet table of paths and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltr.data.decode import decoding
from ltr.data.source import ImageFiles, Source
from ltr.data.sources.checks import check_image_files, shown
from ltr.data.sources.division import divided_name, hold_out_test_images, warn_of_untested
from ltr.data.tables import Columns, read_columns
from ltr.errors import DataError, nearest
from ltr.identity import named
from ltr.names import canonical, whole_number

PARTS = ("train", "val", "test")
NEEDED = ("path", "label")


@named("source/image_table")
def image_table(
    *,
    name: str,
    file: str,
    root: str | None = None,
    roots: Sequence[str] = (),
    test_fraction: float = 0.2,
    split_seed: int = 0,
    exif: bool = True,
    matte: str | None = "white",
    white_level: int | None = None,
    file_sizes: bool = True,
) -> Source:
    """Read a table with the columns ``path``, ``label`` and optionally ``split`` (train, val or test).

    Classes are the sorted labels (by number if all are whole numbers). Rows keep their order within a part. Without a
    column ``split``, or with training rows only, a share of each class is held out for testing; with train and val
    only, val is the test set. In both cases the source's name shows it.

    Args:
        name: name of the data set.
        file: the table; ``.parquet``, or CSV as in `ltr.data.tables.read_columns`.
        root: folder of relative paths; None: that of the table.
        roots: further folders that may contain images and link targets.
        test_fraction, split_seed, exif, matte, white_level, file_sizes: as in `ltr.data.sources.folder.image_folder`.

    Raises:
        DataError: the table or a column is missing, a cell is empty, a file is repeated, a part has another name, a
            class has no training image, or images are missing or outside.
    """
    how = decoding(exif=exif, matte=matte, white_level=white_level)
    table = Path(file).expanduser().absolute()
    table_columns = _read(name, table)
    columns = table_columns.texts
    base = table.parent if root is None else Path(root).expanduser().absolute()
    paths, labels = columns["path"], columns["label"]
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
            "Test classes must be training classes"
        )
    numbers = np.array([label_of[label] for label in labels], dtype=np.int64)
    files = check_image_files(
        name,
        ImageFiles.from_paths(base, paths),
        named_in=str(table),
        roots=roots,
        sizes=file_sizes,
        where=lambda row: f"{table_columns.where(row)} of {table.name}",
    )
    if "test" in rows_of:
        warn_of_untested(name, numbers[rows_of["test"]], class_names)
    else:
        is_test = hold_out_test_images(name, paths, numbers, class_names, fraction=test_fraction, seed=split_seed)
        rows_of = {"train": np.flatnonzero(~is_test).tolist(), "test": np.flatnonzero(is_test).tolist()}
        source_name = divided_name(name, test_fraction, split_seed)
    order: list[int] = []
    parts: dict[str, range] = {}
    for part in PARTS:
        if part in rows_of:
            parts[part] = range(len(order), len(order) + len(rows_of[part]))
            order += rows_of[part]
    sizes = None if files.sizes is None else files.sizes[order]
    images = ImageFiles.from_paths(base, (paths[row] for row in order), sizes, decoding=how)
    return Source(source_name, images, numbers[order], class_names, parts)


def _parts(name: str, table: Path, split: Sequence[str]) -> dict[str, list[int]]:
    """Return the row numbers of each part, in order."""
    rows_of: dict[str, list[int]] = {}
    for row, part in enumerate(split):
        rows_of.setdefault(part, []).append(row)
    unknown = [part for part in rows_of if part not in PARTS]
    if unknown:
        raise DataError(
            f"{name}: the column split of {table} has {shown(list(map(repr, unknown)))}. Allowed are "
            f"{', '.join(PARTS)}{nearest(unknown[0], PARTS)}"
        )
    if "train" not in rows_of:
        raise DataError(f"{name}: no row of {table} is for training (split=train)")
    return rows_of


def _class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct labels, sorted by number if all are whole numbers, else as text."""
    names = set(labels)
    numbers = {name: number for name in names if (number := whole_number(name)) is not None}
    if len(numbers) == len(names):
        return tuple(sorted(names, key=lambda name: (numbers[name], name)))
    return tuple(sorted(names))


def _read(name: str, table: Path) -> Columns:
    """Read the columns, with labels in composed Unicode form."""
    if not table.is_file():
        raise DataError(
            f"{name} was not found: there is no file {table}. dataset.file must be a CSV or Parquet table with the "
            "columns path and label"
        )
    try:
        columns = read_columns(table, NEEDED, ("split",))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    labels = columns.texts["label"]
    broken = [columns.where(row) for row, label in enumerate(labels) if not label.isascii() and not _is_text(label)]
    if broken:
        raise DataError(
            f"{name}: {table} is not UTF-8: labels that cannot be read in {shown(broken)}. Save the table as UTF-8"
        )
    columns.texts["label"] = [canonical(label) for label in labels]
    return columns


def _is_text(label: str) -> bool:
    try:
        label.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8, kept as surrogates
        return False
    return True
