"""`Records`, the common form of annotation files: packed columns of images and labels instead of an object per row."""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from ltr.data.source import Grouping, ImageFiles, as_read_only
from ltr.errors import DataError
from ltr.names import canonical

NO_BOX = (float("nan"),) * 4
UNKNOWN_TIME = np.iinfo(np.int64).min
UNLABELLED = "no label"  # reason to leave an image out
OUTSIDE = 0.02  # fraction of the image's side by which a box may exceed the image, because tools round
COLUMNS = ("location", "seq_id", "deployment")  # groupings that the formats define; date follows from the time


class Paths:
    """Growing table of paths in one bytes object."""

    def __init__(self) -> None:
        self._blob = bytearray()
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, path: str) -> None:
        """Append a path; ``\\`` separates folders like ``/``, because some tools write files on Windows."""
        if not path:
            raise ValueError("the name of its file is empty")
        self._blob += os.fsencode(path.replace("\\", "/"))
        self._ends.append(len(self._blob))

    def files(self, root: str) -> ImageFiles:
        """Return the table; paths start from ``root``."""
        return ImageFiles(root, bytes(self._blob), as_read_only(np.array(self._ends, dtype=np.int64)))


class Interned:
    """Growing column of texts, stored as numbers of its distinct values."""

    def __init__(self) -> None:
        self.codes = array("i")
        self._code_of: dict[str, int] = {}

    def add(self, value: object) -> None:
        """Append a value; None and blank text are unknown, -1."""
        text = "" if value is None else str(value)
        self.codes.append(self._code_of.setdefault(text, len(self._code_of)) if text.strip() else -1)

    def holds(self, row: int, value: object) -> bool:
        """Return whether row ``row`` has this value."""
        text = "" if value is None else str(value)
        return self.codes[row] == (self._code_of.get(text, -2) if text.strip() else -1)

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(self._code_of)

    def grouping(self) -> Grouping | None:
        """Return the column as a grouping; None if no value is known."""
        return Grouping(np.array(self.codes, dtype=np.int32), self.values) if self._code_of else None


@dataclass
class Records:
    """Images and labels of an annotation file.

    Attributes:
        format: name of the file's format.
        files: paths of the images.
        times: int64 [images], local time in seconds; `UNKNOWN_TIME` where there is none.
        instants: int64 [images], time in UTC in seconds; `UNKNOWN_TIME` where no time zone is given.
        groupings: `COLUMNS` that the file has, one group per image.
        sizes: int32 [images, 2] width and height in pixels, 0 where they are unknown; None: boxes are fractions.
        split: part of each image, if the file names it.
        images: int64 [labels], the image of each label.
        classes: int32 [labels], the class of each label.
        boxes: float32 [labels, 4] left, top, width, height in fractions of the image, or in pixels if ``sizes`` is
            set; NaN without a box.
        class_names: names of the classes, in the file's order.
        left_out: reason to rows of images that cannot be used.
        remarks: sentences about the file.
        unread_divisions: fields of the images that may divide them and are not read, with their values.
        unreadable_time: the first text of a time that cannot be read; '' without any.
    """

    format: str
    files: ImageFiles
    times: np.ndarray
    instants: np.ndarray
    groupings: dict[str, Grouping]
    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    class_names: tuple[str, ...]
    sizes: np.ndarray | None = None
    split: Grouping | None = None
    left_out: dict[str, np.ndarray] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    unread_divisions: dict[str, set[str]] = field(default_factory=dict)
    unreadable_time: str = ""

    def __len__(self) -> int:
        return len(self.files)


class ImageColumns:
    """Growing columns of the images of an annotation file.

    Args:
        groupings: names of the columns that group images.
    """

    def __init__(self, groupings: Iterable[str]) -> None:
        self.row_of: dict[str, int] = {}  # by the file's id or path of an image
        self.paths = Paths()
        self.times, self.instants = array("q"), array("q")
        self.groups = {name: Interned() for name in groupings}
        self.unreadable_time = ""

    def add(self, path: str, time: object, groups: Iterable[object]) -> None:
        """Append an image with the text of its time and the values of its groupings, in order."""
        self.paths.add(path)
        local, universal = local_and_instant(time)
        if local == UNKNOWN_TIME and not self.unreadable_time and time is not None:
            self.unreadable_time = str(time).strip()
        self.times.append(local)
        self.instants.append(universal)
        for column, value in zip(self.groups.values(), groups):
            column.add(value)

    def records(
        self,
        format: str,
        root: str,
        rows: np.ndarray,
        classes: np.ndarray,
        boxes: np.ndarray,
        class_names: tuple[str, ...],
        *,
        left_out: Mapping[str, np.ndarray] | None = None,
        **more: Any,
    ) -> Records:
        """Return the images with their labels; images without a label are left out, and days group images by time.

        Args:
            root: folder that paths start from.
            rows: int64 [labels], the image of each label.
            format, classes, boxes, class_names, left_out, more: fields of `Records`.
        """
        files, times = self.paths.files(root), np.array(self.times, dtype=np.int64)
        by_value = {
            name: Grouping.of_values(np.array(column.codes, dtype=np.int32), column.values)
            for name, column in self.groups.items()
        }
        groupings = {name: grouping for name, grouping in by_value.items() if grouping.values}
        if (days := day_groups(times)) is not None:
            groupings.setdefault("date", days)
        by_reason = dict(left_out or {})
        is_explained = np.zeros(len(files), dtype=bool)
        is_explained[np.concatenate([rows, *by_reason.values()])] = True
        by_reason[UNLABELLED] = np.flatnonzero(~is_explained)
        return Records(
            format,
            files,
            times,
            np.array(self.instants, dtype=np.int64),
            groupings,
            rows,
            classes,
            boxes,
            class_names,
            left_out={reason: out for reason, out in by_reason.items() if len(out)},
            unreadable_time=self.unreadable_time,
            **more,
        )


def seconds(text: object) -> int:
    """Return the local time of a text in ISO 8601 or EXIF's form in seconds since year 1, or `UNKNOWN_TIME`.

    The time zone is dropped, because images are grouped by the local calendar day.
    """
    time = _parsed(text)
    return UNKNOWN_TIME if time is None else _since_year_1(time)


def instant(text: object) -> int:
    """Return the time of a text with a time zone in seconds since year 1 in UTC; `UNKNOWN_TIME` without a zone."""
    return local_and_instant(text)[1]


def local_and_instant(text: object) -> tuple[int, int]:
    """Return `seconds` and `instant` of a text."""
    time = _parsed(text)
    if time is None:
        return UNKNOWN_TIME, UNKNOWN_TIME
    local, offset = _since_year_1(time), time.utcoffset()
    return local, UNKNOWN_TIME if offset is None else local - round(offset.total_seconds())


def _parsed(text: object) -> datetime | None:
    if not isinstance(text, str) or len(text) < 10:
        return None
    if text[4] == ":" and text[7] == ":":  # EXIF: 2019:07:31 23:59:01
        text = f"{text[:4]}-{text[5:7]}-{text[8:]}"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _since_year_1(time: datetime) -> int:
    return ((time.toordinal() * 24 + time.hour) * 60 + time.minute) * 60 + time.second


def day_groups(times: np.ndarray) -> Grouping | None:
    """Return the calendar day of each image; None if no time is known."""
    is_known = times != UNKNOWN_TIME
    if not is_known.any():
        return None
    days, codes = np.unique(times[is_known] // 86_400, return_inverse=True)
    column = np.full(len(times), -1, dtype=np.int32)
    column[is_known] = codes
    return Grouping(column, tuple(datetime.fromordinal(int(day)).date().isoformat() for day in days))


def box_of(cells: Sequence[str | None], columns: Sequence[str]) -> tuple[float, ...]:
    """Return left, top, width and height from the cells of a row; `NO_BOX` if all are blank.

    A table without columns for left and top has no boxes.

    Raises:
        ValueError: some cells are blank and others are not, or one is not a finite number.
    """
    texts = [(cell or "").strip() for cell in cells]
    if not any(texts) or cells[:2] == [None, None]:
        return NO_BOX
    allowed = f"a box needs numbers in {', '.join(columns)}, and an image without a box leaves all four blank"
    blank = [column for column, text in zip(columns, texts) if not text]
    if blank:
        raise ValueError(f"the box has no {' and no '.join(blank)}; {allowed}")
    try:
        box = tuple(map(float, texts))
    except ValueError:
        box = NO_BOX
    if not all(map(math.isfinite, box)):
        raise ValueError(f"the box [{', '.join(texts)}] has a value that is not a number; {allowed}")
    return box


def class_numbers(numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the class of each label, int32 [n].

    Args:
        numbers: class of each distinct name, int [names].
        codes: index into ``numbers`` of each label, int [n].

    Raises:
        DataError: a label has no name.
    """
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise DataError(f"label number {row} of the annotations has a blank name. Give every label a class")
    return numbers[codes] if len(codes) else codes


def clip_boxes(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes to the image and find those that exceed it by more than `OUTSIDE`, or have no area.

    Args:
        boxes: float [n, 4] left, top, width, height in fractions of the image; a row whose left is NaN has no box.

    Returns:
        (clipped boxes float32 [n, 4], mask of the invalid ones, bool [n]).
    """
    low, sides = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    high = low + sides
    with np.errstate(invalid="ignore"):
        is_inside = (low >= -OUTSIDE) & (high <= 1 + OUTSIDE) & (sides > 0)
        is_invalid = ~np.isnan(boxes[:, 0]) & ~is_inside.all(axis=1)
    low, high = low.clip(0, 1), high.clip(0, 1)
    is_invalid |= (high <= low).any(axis=1) & ~np.isnan(boxes[:, 0])
    return np.concatenate([low, high - low], axis=1).astype(np.float32), is_invalid


def merge_class_names(name: str, texts: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the distinct class names in composed Unicode form, and the class of each text.

    Raises:
        DataError: a name is blank.
    """
    number_of: dict[str, int] = {}
    numbers = np.empty(len(texts), dtype=np.int32)
    for row, text in enumerate(texts):
        class_name = canonical(text.strip())
        if not class_name:
            raise DataError(f"{name}: class number {row} has a blank name. Give every class a name")
        numbers[row] = number_of.setdefault(class_name, len(number_of))
    return tuple(number_of), numbers


def json_id(record: Mapping[str, Any], field: str) -> str:
    """Return an id of a JSON record as text.

    Raises:
        KeyError: the record has no such field.
        ValueError: it is neither text nor number, or is blank.
    """
    value = record[field]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
        raise ValueError(f"{field} is {json_shown(value)}; it must be a text or a whole number")
    return str(value)


def json_text(record: Mapping[str, Any], field: str) -> str:
    """Return a text of a JSON record; errors as in `json_id`."""
    value = record[field]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{field} is {json_shown(value)}; it must be a text that is not blank")
    return value


def json_box(record: Mapping[str, Any], field: str, unit: str) -> list[float]:
    """Return four numbers of a JSON record; errors as in `json_id`."""
    box = record[field]
    is_box = isinstance(box, list) and len(box) == 4 and all(is_number(value) for value in box)
    if not is_box:
        raise ValueError(
            f"{field} is {json_shown(box)}; it must be [left, top, width, height], four finite numbers in {unit}"
        )
    return box


def is_number(value: object) -> bool:
    """Return whether a JSON value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18


def json_shown(value: object) -> str:
    """Return the beginning of a JSON value for a message."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "..."
