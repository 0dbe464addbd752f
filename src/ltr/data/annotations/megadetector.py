"""Reader of the batch results of MegaDetector, format 1.x (https://lila.science/megadetector-output-format).

Fields: ``info.format_version`` (required since 1.0); ``detection_categories`` (id to name, required); ``images`` with
``file``; ``detections`` of ``category``, ``conf`` in [0, 1] and ``bbox`` = [left, top, width, height] in fractions of
the image (required unless the image failed); ``failure``, a text if the file could not be read; ``classifications``, a
list of [category id, confidence] per detection, and ``classification_categories`` (both optional). The detections of a
video have a ``frame_number``.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.annotations.records import (
    Paths,
    clip_boxes,
    is_number,
    json_box,
    json_id,
    json_shown,
    json_text,
)
from ltr.data.source import ImageFiles
from ltr.data.sources.json_arrays import read_arrays
from ltr.errors import DataError, nearest
from ltr.names import counted, list_first, normal_path

_WANTED = "Results of MegaDetector have info, detection_categories and images"


@dataclass
class Detections:
    """Detections of a MegaDetector file, in file order.

    Attributes:
        file: the file.
        files: paths of its images.
        images: int64 [n], the image of each detection.
        numbers: int64 [n], position of each detection in the list of its image.
        categories: int32 [n], index into ``category_names``; -1 for an id that the file does not list.
        confidences: float32 [n] in [0, 1].
        boxes: float32 [n, 4] left, top, width, height in fractions of the image.
        category_names: names of the detector's categories, such as animal, person and vehicle.
        failed: rows of the images that the detector could not read.
        values: further top-level values: ``info``, ``detection_categories``, ``classification_categories``.
    """

    file: Path
    files: ImageFiles
    images: np.ndarray
    numbers: np.ndarray
    categories: np.ndarray
    confidences: np.ndarray
    boxes: np.ndarray
    category_names: tuple[str, ...]
    failed: np.ndarray
    values: dict[str, Any]

    def chosen(self, categories: Sequence[str] | None, min_confidence: float) -> np.ndarray:
        """Return the rows, int64 [k], of detections of some categories with at least this confidence.

        Args:
            categories: names of the categories; None: all that the file lists.
            min_confidence: smallest confidence, in [0, 1].

        Raises:
            DataError: the file has no category of that name.
        """
        names = self.category_names if categories is None else tuple(categories)
        unknown = [name for name in names if name not in self.category_names]
        if unknown:
            raise DataError(
                f"{self.file} has no detection category {list_first(unknown)}; it has {', '.join(self.category_names)}"
                f"{nearest(unknown[0], self.category_names)}"
            )
        numbers = [number for number, name in enumerate(self.category_names) if name in names]
        return np.flatnonzero(np.isin(self.categories, numbers) & (self.confidences >= min_confidence))


def read_megadetector(name: str, file: Path, root: str) -> Detections:
    """Read a MegaDetector file.

    Args:
        name: name of the data set or command, for messages.
        file: the JSON file.
        root: folder that ``file`` of an image starts from; absolute paths inside it become relative to it.

    Raises:
        DataError: the file has another format or version, is damaged, repeats an image, or has a box outside its image.
    """
    images = _Images(root)
    values: dict[str, Any] = {}
    read_arrays(
        name, file, {"images": images.add}, values=values, wanted=_WANTED, remedy="Correct the file, or export it again"
    )
    names = _check_values(name, file, values)
    numbers = {key: number for number, key in enumerate(values["detection_categories"])}
    _refuse_unlisted(name, file, images, numbers)
    lookup = np.array([numbers.get(key, -1) for key in images.categories] or [-1], dtype=np.int32)
    boxes, is_invalid = clip_boxes(np.array(images.boxes, dtype=np.float64).reshape(-1, 4))
    counts = np.array(images.counts, dtype=np.int64)
    owners = np.repeat(np.arange(len(counts)), counts)
    positions = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    files = images.paths.files(root)
    if is_invalid.any():
        wrong = [
            f"images[{owners[row]}].detections[{positions[row]}] of {files.relative(int(owners[row]))}"
            for row in np.flatnonzero(is_invalid)[:10].tolist()
        ]
        raise DataError(
            f"{name}: {file} has {counted(int(is_invalid.sum()), 'box', 'boxes')} outside the image or without area: "
            f"{list_first(wrong)}. A box is [left, top, width, height] in fractions of the image"
        )
    return Detections(
        file,
        files,
        owners,
        positions,
        lookup[np.array(images.codes, dtype=np.int32)] if images.codes else np.empty(0, dtype=np.int32),
        np.array(images.confidences, dtype=np.float32),
        boxes,
        names,
        np.array(images.failed, dtype=np.int64),
        values,
    )


def _check_values(name: str, file: Path, values: dict[str, Any]) -> tuple[str, ...]:
    """Check the version and the categories, and return the names of the detection categories."""
    info, categories = values.get("info"), values.get("detection_categories")
    if not isinstance(categories, dict) or not isinstance(info, dict):
        raise DataError(
            f"{name}: {file} is not a MegaDetector file: it has no "
            f"{'info' if not isinstance(info, dict) else 'detection_categories'}. {_WANTED}"
        )
    version = str(info.get("format_version", "none"))
    if version.split(".")[0] != "1":
        raise DataError(
            f"{name}: {file} has the format version {version}; versions 1.x are read. Convert it with MegaDetector's "
            "own tools"
        )
    if not categories or not all(isinstance(value, str) and value.strip() for value in categories.values()):
        raise DataError(f"{name}: {file} has a detection category without a name. Every category needs one")
    return tuple(categories.values())


def _refuse_unlisted(name: str, file: Path, images: _Images, numbers: dict[str, int]) -> None:
    """Raise DataError that names the categories of detections that the file does not list."""
    unlisted = [key for key in images.categories if key not in numbers]
    if unlisted:
        first = images.codes.index(images.categories[unlisted[0]])
        ends = np.cumsum(np.array(images.counts, dtype=np.int64))
        image = int(np.searchsorted(ends, first, side="right"))
        raise DataError(
            f"{name}: {file} has detections of categories that detection_categories does not list: "
            f"{list_first(list(map(repr, unlisted)))}, the first in images[{image}]. List them, or run the detector "
            "again"
        )


class _Images:
    """Columns of ``images``."""

    def __init__(self, root: str) -> None:
        self.paths = Paths()
        self.counts = array("q")
        self.codes = array("i")
        self.categories: dict[str, int] = {}
        self.confidences = array("f")
        self.boxes = array("f")
        self.failed = array("q")
        self._seen: set[str] = set()
        self._root = root.rstrip("/") + "/"

    def add(self, image: dict[str, Any]) -> None:
        path = json_text(image, "file")
        spelled = normal_path(path.replace("\\", "/"))
        if spelled in self._seen:
            raise ValueError(f"the file {path} appears twice")
        self._seen.add(spelled)
        detections = image.get("detections")
        if image.get("failure"):
            self.failed.append(len(self.paths))
            detections = None
        elif not isinstance(detections, list):
            raise ValueError(
                f"detections of {path} is {json_shown(detections)}; it must be a list, or failure must give the reason"
            )
        self.paths.add(spelled.removeprefix(self._root) if spelled.startswith(self._root) else path)
        self.counts.append(len(detections or ()))
        for detection in detections or ():
            if not isinstance(detection, dict):
                raise ValueError(f"a detection of {path} is {json_shown(detection)}; it must be an object {{...}}")
            self.codes.append(self.categories.setdefault(json_id(detection, "category"), len(self.categories)))
            confidence = detection["conf"]
            if not is_number(confidence):
                raise ValueError(f"conf of {path} is {json_shown(confidence)}; it must be a number from 0 to 1")
            if not 0 <= confidence <= 1:
                raise ValueError(f"{path} has a confidence of {confidence}, which is outside 0 to 1")
            self.confidences.append(confidence)
            self.boxes.extend(json_box(detection, "bbox", "fractions of the image"))
