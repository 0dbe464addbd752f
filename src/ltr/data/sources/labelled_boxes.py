"""Selection of labels and boxes of camera-trap images, with the reason for every excluded image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ltr.configuration.ranges import Fraction, check_option
from ltr.data.annotations.megadetector import read_megadetector
from ltr.data.annotations.records import Records, clip_boxes
from ltr.data.source import ImageFiles
from ltr.data.sources.box_frames import relative_boxes
from ltr.data.sources.checks import check_image_files
from ltr.errors import DataError
from ltr.names import counted, list_first, normal_path

Boxes = Literal["all", "largest"]
Faulty = Literal["error", "exclude"]  # treatment of an invalid image or box
Multiple = Literal["crop", "first", "exclude"]
WithoutBox = Literal["exclude", "whole"]

MISSING, NO_RECORD, FAILED = "file missing", "not in the detections", "the detector could not read it"
NO_BOX, SEVERAL, BAD_BOX = "no box", "several labels", "box outside the image"
OTHER_SHAPE = "another shape than its annotations say"


class LeftOut:
    """Images that cannot be used, with the first reason of each."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files
        self._reasons: list[str] = []
        self._reason_of = np.full(len(files), -1, dtype=np.int16)

    def add(self, reason: str, rows: np.ndarray) -> None:
        if reason not in self._reasons:
            self._reasons.append(reason)
        fresh = rows[self._reason_of[rows] < 0]
        self._reason_of[fresh] = self._reasons.index(reason)

    def keep(self, rows: np.ndarray) -> None:
        """Remove images from the table, because one of their crops is used."""
        self._reason_of[rows] = -1

    @property
    def mask(self) -> np.ndarray:
        return self._reason_of >= 0

    def paths(self) -> dict[str, tuple[str, ...]]:
        """Return the paths by reason."""
        by_reason = {
            reason: tuple(self._files.relative(row) for row in np.flatnonzero(self._reason_of == number).tolist())
            for number, reason in enumerate(self._reasons)
        }
        return {reason: paths for reason, paths in by_reason.items() if paths}


@dataclass
class LabelTable:
    """Labels with their images and boxes; `Records` documents the arrays."""

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray

    def take(self, chosen: np.ndarray) -> LabelTable:
        """Return the labels of a mask or of row numbers."""
        return LabelTable(self.images[chosen], self.classes[chosen], self.boxes[chosen])

    @property
    def has_box(self) -> np.ndarray:
        return ~np.isnan(self.boxes[:, 0])


def find_existing_images(
    name: str, files: ImageFiles, named_in: Path, roots: Sequence[str], missing: Faulty, left_out: LeftOut
) -> np.ndarray:
    """Return a mask of the images whose file exists and that are not excluded."""
    check_option("dataset.missing", missing, Faulty)
    candidates = np.flatnonzero(~left_out.mask)
    chosen = ImageFiles.from_paths(files.root, (files.relative(row) for row in candidates.tolist()))
    rows: list[int] = []
    if len(chosen):
        check_image_files(
            name, chosen, named_in=str(named_in), roots=roots, missing_rows=rows if missing == "exclude" else None
        )
    left_out.add(MISSING, candidates[rows])
    return ~left_out.mask


def check_boxes(
    name: str, file: Path, records: Records, table: LabelTable, invalid: Faulty, left_out: LeftOut, exif: bool
) -> LabelTable:
    """Convert boxes to fractions and clip them; refuse or exclude boxes outside the image or of another shape."""
    check_option("dataset.invalid_boxes", invalid, Faulty)
    boxes = table.boxes.astype(np.float64)
    if records.sizes is not None:
        fractions = relative_boxes(name, file, records.files, records.sizes, table.images, boxes, exif)
        records.remarks += fractions.remarks
        if fractions.shown and invalid == "error":
            raise DataError(
                f"{name}: {counted(len(fractions.shown), 'image has', 'images have')} another shape than {file} says, "
                f"so boxes would cut other places: {list_first(fractions.shown)}. Correct width, height and boxes of "
                "images that were cut or turned after they were annotated, remove width and height if the boxes are in "
                "pixels of the files, or leave such images out with dataset.invalid_boxes=exclude"
            )
        left_out.add(OTHER_SHAPE, fractions.mismatches)
        is_kept = ~np.isin(table.images, fractions.mismatches) | ~table.has_box
        table, boxes = table.take(is_kept), fractions.boxes[is_kept]
        left_out.keep(table.images)
    table.boxes, is_invalid = clip_boxes(boxes)
    if is_invalid.any():
        wrong = np.flatnonzero(is_invalid)
        if invalid == "error":
            named_boxes = [
                f"{records.files.relative(int(table.images[row]))} {_numbers(boxes[row])}" for row in wrong.tolist()
            ]
            raise DataError(
                f"{name}: {file} has {counted(wrong.size, 'box', 'boxes')} outside the image or without area, here in "
                f"fractions of the image: {list_first(named_boxes)}. Correct them, or leave them out with "
                "dataset.invalid_boxes=exclude"
            )
        left_out.add(BAD_BOX, table.images[wrong])
        table = table.take(~is_invalid)
        left_out.keep(table.images)
    return table


def _numbers(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in box.tolist()) + "]"


def resolve_multiple(table: LabelTable, rule: Multiple, total: int, left_out: LeftOut, cropped: bool) -> LabelTable:
    """Apply the rule for images of several classes, and keep one of equal labels without boxes."""
    check_option("dataset.multiple", rule, Multiple)
    first_row = np.full(total, len(table.images), dtype=np.int64)
    np.minimum.at(first_row, table.images, np.arange(len(table.images)))
    first_class = table.classes[first_row[table.images]] if len(table.images) else table.classes
    differs = table.classes != first_class
    is_several = np.zeros(total, dtype=bool)
    is_several[table.images[differs]] = True
    if rule == "first":
        table = table.take(~differs)
    else:
        several = is_several[table.images]
        keep = ~several | table.has_box if rule == "crop" else ~several
        left_out.add(SEVERAL, np.flatnonzero(is_several))
        table = table.take(keep)
        left_out.keep(table.images)
    if not cropped:
        return table.take(np.unique(table.images, return_index=True)[1])
    # an image with boxes needs no labels without a box
    has_boxes = np.zeros(total, dtype=bool)
    has_boxes[table.images[table.has_box]] = True
    table = table.take(table.has_box | ~has_boxes[table.images])
    whole = np.flatnonzero(~table.has_box)
    is_first = np.zeros(len(table.images), dtype=bool)
    is_first[whole[np.unique(table.images[whole], return_index=True)[1]]] = True
    return table.take(table.has_box | is_first)


def add_detections(
    name: str,
    file: Path,
    root: str,
    records: Records,
    table: LabelTable,
    categories: Sequence[str] | None,
    min_confidence: Fraction,
    left_out: LeftOut,
) -> LabelTable:
    """Replace labels without a box by one label for each detection of their image."""
    check_option("dataset.min_confidence", min_confidence, Fraction)
    if not file.is_file():
        raise DataError(
            f"{name}: there is no file {file}. dataset.detections must name results of MegaDetector in JSON; leave it "
            "out to read whole images"
        )
    detections = read_megadetector(name, file, root)
    row_of = {normal_path(records.files.relative(row)): row for row in np.unique(table.images).tolist()}
    image_of = np.array(
        [row_of.get(normal_path(detections.files.relative(row)), -1) for row in range(len(detections.files))],
        dtype=np.int64,
    )
    if row_of and not (image_of >= 0).any():
        detected = [detections.files.relative(row) for row in range(len(detections.files))]
        raise DataError(
            f"{name}: {file} has none of the {len(row_of):,} labelled images. It names "
            f"{list_first(detected, 2) or 'none'}, the annotations {list_first(row_of, 2)}. Run the detector from "
            f"{root}, so that both name the same paths"
        )
    waiting = np.full(len(records), -1, dtype=np.int32)  # class of images without a box
    waiting[table.images[~table.has_box]] = table.classes[~table.has_box]
    is_listed = np.zeros(len(records), dtype=bool)
    is_listed[image_of[image_of >= 0]] = True
    left_out.add(NO_RECORD, np.flatnonzero((waiting >= 0) & ~is_listed))
    failed = image_of[detections.failed]
    failed = failed[failed >= 0]
    left_out.add(FAILED, failed[waiting[failed] >= 0])
    waiting[left_out.mask] = -1
    rows = detections.chosen(categories, min_confidence)
    owners = image_of[detections.images[rows]]
    is_used = (owners >= 0) & (waiting[owners] >= 0)
    owners, rows = owners[is_used], rows[is_used]
    stay = ~left_out.mask[table.images]
    stay &= table.has_box | ~np.isin(table.images, owners)
    table = table.take(stay)
    images = np.concatenate([table.images, owners])
    classes = np.concatenate([table.classes, waiting[owners].astype(table.classes.dtype)])
    boxes = np.concatenate([table.boxes, detections.boxes[rows]])
    order = np.argsort(images, kind="stable")
    return LabelTable(images[order], classes[order], boxes[order])


def select_boxes(table: LabelTable, without_box: WithoutBox, boxes: Boxes, left_out: LeftOut) -> LabelTable:
    """Keep all boxes or the largest box of each image; images without a box stay whole or are excluded."""
    check_option("dataset.without_box", without_box, WithoutBox)
    check_option("dataset.boxes", boxes, Boxes)
    if without_box == "exclude":
        left_out.add(NO_BOX, table.images[~table.has_box])
        table = table.take(table.has_box)
    if boxes == "largest":
        areas = np.nan_to_num(table.boxes[:, 2] * table.boxes[:, 3])
        order = np.lexsort((np.arange(len(areas)), -areas, table.images))
        first = np.unique(table.images[order], return_index=True)[1]
        table = table.take(order[first])
    return table
