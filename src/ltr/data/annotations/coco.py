"""Reader of COCO Camera Traps JSON and of COCO's detection JSON.

COCO's fields are described in https://cocodataset.org/#format-data, those of COCO Camera Traps in
https://lila.science/coco-camera-traps. ``images``: ``id``, ``file_name``, ``width``, ``height`` (COCO);
``location``, ``seq_id``, ``datetime``, ``corrupt`` (camera traps; ``seq_num_frames`` and ``frame_num`` are not needed).
``annotations``: ``id``, ``image_id``, ``category_id``, ``bbox`` = [left, top, width, height] in pixels (COCO; optional
for camera traps), ``sequence_level_annotation`` (camera traps), ``iscrowd``, ``ignore`` (COCO).
``categories``: ``id``, ``name`` (both).
A field ``split`` (train, val or test) of ``images``, which neither format defines, divides them as it does in a table.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.annotations.records import (
    COLUMNS,
    NO_BOX,
    ImageColumns,
    Interned,
    Records,
    is_number,
    json_box,
    json_id,
    json_shown,
    json_text,
    merge_class_names,
)
from ltr.data.sources.json_arrays import read_arrays
from ltr.data.unread_divisions import DivisionFields
from ltr.errors import DataError
from ltr.names import list_first

CAMERA_TRAPS, COCO = "coco_camera_traps", "coco"
CORRUPT = "marked as corrupt"
IGNORED = "only boxes of crowds or to be ignored"
_SKIPPED = ("iscrowd", "ignore")  # such a box is of no single object
_OF_CAMERA_TRAPS = ("location", "seq_id", "seq_num_frames", "frame_num", "datetime", "corrupt")
_READ = ("id", "file_name", "width", "height", "datetime", "corrupt", *COLUMNS)
_WANTED = (
    "An annotation file in COCO or COCO Camera Traps format has images, annotations and categories; results of "
    "MegaDetector belong to dataset.detections=FILE, in addition to the labels"
)


def read_coco(name: str, file: Path, root: str, columns: tuple[str, ...] = ()) -> Records:
    """Read the annotation file of one data set.

    Args:
        name: name of the data set, for messages.
        file: the annotation file.
        root: folder that ``file_name`` starts from.
        columns: further fields of ``images`` that group images.

    Raises:
        DataError: the file is damaged, an id is repeated or refers to no entry, or a category has no name.
    """
    images, categories = _Images(columns), _Categories()
    annotations = _Annotations(images.columns.row_of)
    handlers = {"images": images.add, "annotations": annotations.add, "categories": categories.add}
    read_arrays(name, file, handlers, wanted=_WANTED, remedy="Correct the file, or export it again")
    rows = annotations.rows(name, file)
    images.columns.row_of.clear()
    class_names, class_of_category = merge_class_names(f"{name}: {file}", list(categories.names))
    classes = annotations.classes(name, file, categories.number_of, class_of_category)
    boxes = np.frombuffer(annotations.boxes, dtype=np.float32).reshape(-1, 4)
    remarks = []
    is_ignored = np.zeros(len(rows), dtype=bool)
    is_ignored[np.array(annotations.ignored, dtype=np.int64)] = True
    ignored = np.setdiff1d(rows[is_ignored], rows[~is_ignored])
    if is_ignored.any():
        remarks.append(
            f"{int(is_ignored.sum()):,} of {len(rows):,} annotations are left out, because iscrowd or ignore is set"
        )
        rows, classes, boxes = rows[~is_ignored], classes[~is_ignored], boxes[~is_ignored]
    if len(class_names) < len(categories.names):
        merged = [class_names[number] for number in np.flatnonzero(np.bincount(class_of_category) > 1).tolist()]
        remarks.append(f"categories with the same name are one class: {list_first(merged)}")
    if annotations.of_sequences:
        remarks.append(f"{annotations.of_sequences:,} of {len(rows):,} labels are of whole sequences, not of one image")
    return images.columns.records(
        CAMERA_TRAPS if images.is_of_camera_traps else COCO,
        root,
        rows,
        classes,
        boxes,
        class_names,
        sizes=np.array(images.sizes, dtype=np.int32).reshape(-1, 2),
        split=images.split.grouping(),
        unread_divisions=images.fields.divisions,
        left_out={CORRUPT: np.array(images.corrupt, dtype=np.int64), IGNORED: ignored},
        remarks=remarks,
    )


class _Images:
    """Columns of ``images``."""

    def __init__(self, groupings: tuple[str, ...]) -> None:
        self.columns = ImageColumns(dict.fromkeys((*COLUMNS, *groupings)))
        self.sizes = array("i")
        self.corrupt = array("q")
        self.split = Interned()
        self.fields = DivisionFields(read=(*_READ, "split", *groupings))
        self.is_of_camera_traps = False

    def add(self, image: dict[str, Any]) -> None:
        if "id" not in image and "file" in image:
            raise ValueError(
                f"a record of MegaDetector, for dataset.detections=FILE in addition to the labels: {image['file']}"
            )
        key, row = json_id(image, "id"), len(self.columns.paths)
        if self.columns.row_of.setdefault(key, row) != row:
            raise ValueError(f"the image id {key} appears twice")
        path = json_text(image, "file_name")
        self.sizes.append(_pixels(image, "width"))
        self.sizes.append(_pixels(image, "height"))
        self.columns.add(path, image.get("datetime"), map(image.get, self.columns.groups))
        self.split.add(image.get("split"))
        self.fields.add(image)
        if image.get("corrupt"):
            self.corrupt.append(row)
        if not self.is_of_camera_traps:
            self.is_of_camera_traps = any(field in image for field in _OF_CAMERA_TRAPS)


def _pixels(image: dict[str, Any], field: str) -> int:
    """Return a side of an image in pixels; 0 if it is unknown."""
    value = image.get(field)
    if value in (None, ""):
        return 0
    size: Any = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if not is_number(size) or not 0 <= size < 2**31:
        raise ValueError(f"{field} is {json_shown(value)}; it must be a whole number of pixels")
    return int(size)


def _is_set(annotation: dict[str, Any], field: str) -> bool:
    """Return a flag of an annotation, 0 or 1; False if it is absent."""
    value = annotation.get(field)
    if value in (None, "", 0, "0"):
        return False
    if value in (1, "1"):
        return True
    raise ValueError(f"{field} is {json_shown(value)}; allowed are 0 and 1")


class _Annotations:
    """Columns of ``annotations``, which may precede ``images`` in the file."""

    def __init__(self, row_of: dict[str, int]) -> None:
        self._row_of = row_of
        self._rows = array("q")
        self._waiting: dict[int, str] = {}  # image id of annotations whose image was not read yet
        self._ids: set[str] = set()
        self._categories = Interned()
        self.boxes = array("f")
        self.ignored = array("q")
        self.of_sequences = 0

    def add(self, annotation: dict[str, Any]) -> None:
        number = annotation.get("id")
        if number is not None:
            before = len(self._ids)
            self._ids.add(str(number))
            if len(self._ids) == before:
                raise ValueError(f"the annotation id {number} appears twice")
        image = json_id(annotation, "image_id")
        row = self._row_of.get(image, -1)
        if any(_is_set(annotation, field) for field in _SKIPPED):
            self.ignored.append(len(self._rows))
        if row < 0:
            self._waiting[len(self._rows)] = image
        self._rows.append(row)
        self._categories.add(annotation["category_id"])
        has_box = annotation.get("bbox") not in (None, [])
        self.boxes.extend(json_box(annotation, "bbox", "pixels") if has_box else NO_BOX)
        self.of_sequences += annotation.get("sequence_level_annotation") is True

    def rows(self, name: str, file: Path) -> np.ndarray:
        """Return the image of each annotation, int64 [n]."""
        unknown = []
        for number, image in self._waiting.items():
            row = self._row_of.get(image, -1)
            if row < 0:
                unknown.append(f"{image} (annotations[{number}])")
            self._rows[number] = row
        if unknown:
            raise DataError(
                f"{name}: {file} has annotations of images that it does not list, by image_id: {list_first(unknown)}. "
                "Add the images, or remove the annotations"
            )
        self._ids.clear()
        return np.array(self._rows, dtype=np.int64)

    def classes(self, name: str, file: Path, number_of: dict[str, int], class_of_category: np.ndarray) -> np.ndarray:
        """Return the class of each annotation, int32 [n]."""
        unknown = [category for category in self._categories.values if category not in number_of]
        codes = np.array(self._categories.codes, dtype=np.int32)
        if unknown or (codes < 0).any():
            first = int(np.flatnonzero(codes < 0)[0]) if not unknown else -1
            what = (
                f"categories that it does not list, by id: {list_first(unknown)}"
                if unknown
                else (f"a blank category_id in annotations[{first}]")
            )
            raise DataError(f"{name}: {file} has annotations of {what}. Every annotation needs a listed category")
        lookup = np.array([class_of_category[number_of[category]] for category in self._categories.values], np.int32)
        return lookup[codes] if len(codes) else codes


class _Categories:
    def __init__(self) -> None:
        self.number_of: dict[str, int] = {}
        self.names: list[str] = []

    def add(self, category: dict[str, Any]) -> None:
        key = json_id(category, "id")
        if key in self.number_of:
            raise ValueError(f"the category id {key} appears twice")
        self.number_of[key] = len(self.names)
        self.names.append(json_id(category, "name"))
