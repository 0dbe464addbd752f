"""Reader of a CSV table of camera-trap images, one row per label.

Columns: ``path`` and ``label``; optionally ``location``, ``seq_id``, ``deployment``, ``date``, ``datetime``, ``split``
(train, val or test) and the box ``x``, ``y``, ``width``, ``height`` in fractions of the image. ``ltr-data import``
writes such a table.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltr.data.annotations.records import (
    COLUMNS,
    ImageColumns,
    Interned,
    Records,
    box_of,
    class_numbers,
    merge_class_names,
)
from ltr.data.tables import column_names, iterate_rows
from ltr.data.unread_divisions import refuse_other_case
from ltr.errors import DataError
from ltr.escaping import csv_path, csv_text
from ltr.names import group_name, is_text

FORMAT = "csv"
BOX = ("x", "y", "width", "height")
NEEDED = ("path", "label")
READ = ("path", "label", "datetime", "date", *COLUMNS, *BOX)  # besides the column split
_SIDES = "x|y|w|h|xmin|ymin|xmax|ymax|x1|y1|x2|y2|left|top|width|height"
_BOX_COLUMN = re.compile(rf"bbox|boundingbox|(?:bbox|boundingbox|box)(?:{_SIDES})")
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"),
            ("left", "top", "width", "height"))  # fmt: skip


def read_csv(name: str, file: Path, root: str, columns: tuple[str, ...] = ()) -> Records:
    """Read a table.

    Args:
        name: name of the data set, for messages.
        file: the table.
        root: folder of relative paths.
        columns: further columns that group images.

    Raises:
        DataError: the table is damaged, a path is blank, rows of one path contradict each other, or a box is invalid.
    """
    _refuse_other_case(name, file, columns)
    grouping_columns = tuple(dict.fromkeys((*COLUMNS, "date", *columns)))
    table = ImageColumns(grouping_columns)
    split, classes = Interned(), Interned()
    images, boxes = array("q"), array("f")
    optional = ("datetime", "split", *BOX, *grouping_columns)
    for line, (path, label, time, part, *rest) in iterate_rows(file, ("path", "label"), optional):
        where = f"{name}: {file}, line {line}"
        path = csv_path(path or "")
        if not path.strip():
            raise DataError(f"{where}: path is blank. Every row needs the path of an image")
        row = table.row_of.setdefault(path, len(table.paths))
        cells = [group_name(csv_text(cell)) if cell else cell for cell in rest[4:]]
        if row == len(table.paths):
            table.add(path, time, cells)
            split.add(part)
        else:
            groups = table.groups
            for key, column, cell in zip((*groups, "split"), (*groups.values(), split), (*cells, part)):
                if not column.holds(row, cell):
                    raise DataError(f"{where}: {path} has another {key} in a row above. An image has only one")
        try:
            box = box_of(rest[:4], BOX)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from error
        class_name = csv_text(label or "").strip()
        if not class_name:
            continue
        if not class_name.isascii() and not is_text(class_name):
            raise DataError(f"{where}: the label is not UTF-8. Save the table as UTF-8")
        images.append(row)
        classes.add(class_name)
        boxes.extend(box)
    if not table.row_of:
        raise DataError(f"{name}: {file} has no rows below the names of its columns. Write a row for each image")
    class_names, numbers = merge_class_names(f"{name}: {file}", classes.values)
    return table.records(
        FORMAT,
        root,
        np.array(images, dtype=np.int64),
        class_numbers(numbers, np.array(classes.codes, dtype=np.int32)),
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        class_names,
        split=split.grouping(),
    )


def _refuse_other_case(name: str, file: Path, columns: Sequence[str]) -> None:
    """Refuse columns that are read, in other capitals; X and Y without width and height may be coordinates of a map."""
    names = column_names(file, NEEDED)
    folded = {column.casefold() for column in names}
    read = ("split", "datetime", *(() if "datetime" in names else ("date",)), *COLUMNS)
    if folded >= {*BOX}:
        read = (*read, *BOX)
    chosen = {column.casefold() for column in columns if column in names}
    refuse_other_case(name, file, NEEDED, [column for column in read if column not in chosen])


def refuse_unread_boxes(name: str, file: Path) -> None:
    """Raise DataError if a table has boxes in columns that are not read, such as ``bbox_x`` or ``xmin``."""
    names = column_names(file, NEEDED)
    if {*BOX} <= {*names}:
        return
    folded = {re.sub(r"[ _.-]", "", column.casefold()): column for column in names}
    boxes = [column for key, column in folded.items() if _BOX_COLUMN.fullmatch(key)]
    for corners in _CORNERS:
        if folded.keys() >= set(corners):
            boxes += [folded[corner] for corner in corners]
    if boxes:
        raise DataError(
            f"{name}: {file} has a box in the columns {', '.join(dict.fromkeys(boxes))}, which are not read. Write "
            f"left, top, width and height in fractions of the image into {', '.join(BOX)}, or use whole images: "
            "dataset.crop=none"
        )
