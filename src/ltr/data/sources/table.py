"""Custom images in CSV or Parquet tables of paths and labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltr.configuration.ranges import NonNegativeInt, ProperFraction
from ltr.data.images.decode import WhiteLevel, build_decoding
from ltr.data.label_warnings import warn_of_groups
from ltr.data.source import ImageFiles, Source
from ltr.data.sources.checks import check_image_files
from ltr.data.sources.custom_groups import check_groups, grouping_of
from ltr.data.sources.division import warn_of_untested
from ltr.data.sources.label_tables import LabelRows, read_label_tables
from ltr.data.sources.part_division import PARTS, divide_by_groups
from ltr.data.unread_divisions import warn_of_parts_in_paths
from ltr.errors import ConfigError, DataError, nearest
from ltr.identity import named
from ltr.names import list_first, whole_number


@named("source/image_table")
def image_table(
    *,
    name: str,
    file: str,
    root: str | None = None,
    roots: Sequence[str] = (),
    test_fraction: ProperFraction = 0.2,
    split_seed: NonNegativeInt = 0,
    exif: bool = True,
    matte: str | None = "white",
    white_level: WhiteLevel | None = None,
    file_sizes: bool = True,
    labels: Sequence[str] | None = None,
    group: str | None = None,
) -> Source:
    """Read a table with the columns ``path``, ``label`` and optionally ``split`` (train, val or test).

    Classes are the sorted labels (by number if all are whole numbers). Rows keep their order within a part. Without a
    column ``split``, or if all rows are for training, a share of each class is held out for testing; if there are only
    train and val, val is the test set. In both cases the source's name shows it. With several tables, a later label of
    an image replaces an earlier one (`ltr.data.sources.label_tables.read_label_tables`).

    Args:
        name: name of the data set.
        file: the table; ``.parquet``, or CSV as in `ltr.data.tables.read_columns`.
        root: folder that relative paths start from; None: the folder of each table.
        roots: further folders that may contain image files and link targets.
        test_fraction, split_seed, exif, matte, white_level, file_sizes: see `ltr.data.sources.folder.image_folder`.
        labels: tables to read together instead of ``file``, the newest last; a later label of an image replaces earlier
            ones. None: ``file``.
        group: column of groups, such as the location of an image; a group is not divided between training, validation
            and test images. None: images are independent.

    Raises:
        ConfigError: ``labels`` is not a list of files, or no table has the column ``group``.
        DataError: the table or a column is missing, a cell is empty, a file is repeated, a part has another name, a
            class has no training image, or images are missing or outside.
    """
    decoding = build_decoding(exif=exif, matte=matte, white_level=white_level)
    rows = read_label_tables(name, _chosen(name, file, labels), root, group)
    paths, texts = rows.paths, rows.labels
    rows_of = _parts(name, rows)
    source_name = name
    if "test" not in rows_of and "val" in rows_of:
        rows_of["test"] = rows_of.pop("val")
        source_name += "-val_as_test"

    class_names = _class_names([texts[row] for row in rows_of["train"]])
    label_of = {class_name: number for number, class_name in enumerate(class_names)}
    untrained = [row for part_rows in rows_of.values() for row in part_rows if texts[row] not in label_of]
    if untrained:
        unknown = sorted({texts[row] for row in untrained})
        raise DataError(
            f"{name}: {rows.named_in}: labels without a training image: {list_first(unknown)}"
            f"{nearest(unknown[0], class_names) or '.'} The first is in {rows.where(min(untrained))}. "
            "Test classes must be training classes"
        )
    numbers = np.array([label_of[text] for text in texts], dtype=np.int64)
    files = check_image_files(
        name,
        ImageFiles.from_paths(rows.base, paths),
        named_in=rows.named_in,
        roots=roots,
        sizes=file_sizes,
        where=rows.where,
    )
    groupings = {} if group is None or rows.groups is None else {group: grouping_of(rows.groups)}
    warn_of_groups(name, group, groupings.get(group or ""))
    remarks: tuple[str, ...] = ()
    if "test" in rows_of:
        warn_of_untested(name, numbers[rows_of["test"]], class_names)
        for key, grouping in groupings.items():
            check_groups(name, key, grouping, files, rows_of)
    else:
        if rows.split is None:
            warn_of_parts_in_paths(name, rows.tables[-1], "column", rows.written)
        divided = divide_by_groups(
            name,
            files,
            numbers,
            class_names,
            group,
            groupings,
            fraction=test_fraction,
            seed=split_seed,
            paths=rows.written,
        )
        rows_of = {part: np.flatnonzero(divided.part == PARTS.index(part)).tolist() for part in ("train", "test")}
        if group is not None:
            warn_of_untested(name, numbers[rows_of["test"]], class_names)
        source_name, remarks = f"{name}-{divided.name}", divided.remarks
    order: list[int] = []
    parts: dict[str, range] = {}
    for part in PARTS:
        if part in rows_of:
            parts[part] = range(len(order), len(order) + len(rows_of[part]))
            order += rows_of[part]
    sizes = None if files.sizes is None else files.sizes[order]
    images = ImageFiles.from_paths(rows.base, (paths[row] for row in order), sizes, decoding=decoding)
    groupings = {key: grouping.take(np.array(order, dtype=np.int64)) for key, grouping in groupings.items()}
    return Source(
        source_name, images, numbers[order], class_names, parts, groupings=groupings, group=group, remarks=remarks
    )


def _chosen(name: str, file: str, labels: Sequence[str] | None) -> list[str]:
    """Return the tables to read; warn if ``file`` exists and is not read."""
    if labels is None:
        return [file]
    if isinstance(labels, str) or not labels or not all(isinstance(table, str) for table in labels):
        raise ConfigError(
            f"dataset.labels={labels!r}: it must be a list of CSV or Parquet tables, the newest last, such as "
            "dataset.labels=[old.csv,new.csv]; null reads only dataset.file"
        )
    unread = Path(file).expanduser().absolute()
    if unread.is_file() and unread not in [Path(table).expanduser().absolute() for table in labels]:
        warnings.warn(
            f"{name}: dataset.labels replaces dataset.file, so {unread} is not read. List it in "
            "dataset.labels to use its labels",
            stacklevel=3,
        )
    return list(labels)


def _parts(name: str, rows: LabelRows) -> dict[str, list[int]]:
    """Return the row numbers of each part, in order."""
    if rows.split is None:
        return {"train": list(range(len(rows.paths)))}
    rows_of: dict[str, list[int]] = {}
    for row, part in enumerate(rows.split):
        rows_of.setdefault(part, []).append(row)
    unknown = [part for part in rows_of if part not in PARTS]
    if unknown:
        raise DataError(
            f"{name}: {rows.where(rows_of[unknown[0]][0])}: the column split of {rows.named_in} has "
            f"{list_first(list(map(repr, unknown)))}. Allowed are "
            f"{', '.join(PARTS)}{nearest(unknown[0], PARTS)}"
        )
    if "train" not in rows_of:
        raise DataError(
            f"{name}: no row of {rows.named_in} is for training. Write train into its column split, or leave the "
            "column out"
        )
    return rows_of


def _class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct labels, sorted by number if all are whole numbers, else as text."""
    names = set(labels)
    numbers = {name: number for name in names if (number := whole_number(name)) is not None}
    if len(numbers) == len(names):
        return tuple(sorted(names, key=lambda name: (numbers[name], name)))
    return tuple(sorted(names))
