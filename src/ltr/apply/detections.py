"""Pools of detections: each box of a MegaDetector file is an image, cropped as the network's training images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ltr.apply.model import Model
from ltr.apply.pool import UPRIGHT, refuse_outside
from ltr.data.annotations.megadetector import Detections, read_megadetector
from ltr.data.images.regions import BoxCrops
from ltr.data.source import ImageFiles
from ltr.errors import ConfigError, DataError
from ltr.files import is_regular
from ltr.names import list_first


@dataclass(frozen=True)
class DetectionPool:
    """Boxes to classify.

    Attributes:
        files: an image for each box, with its crop.
        detections: content of the detector's file.
        rows: int64 [n], index of the detection of each image.
    """

    files: ImageFiles
    detections: Detections
    rows: np.ndarray

    def for_model(self, model: Model) -> ImageFiles:
        """Return the images with boxes extended as in the training of a network."""
        assert self.files.crops is not None
        return replace(self.files, crops=BoxCrops(self.files.crops.boxes, model.crop_margin, model.crop_square))


def detection_pool(
    images: Path,
    file: Path,
    roots: Sequence[str] = (),
    *,
    min_confidence: float = 0.0,
    categories: Sequence[str] | None = None,
) -> DetectionPool:
    """Return the detections of a file as a pool.

    Args:
        images: folder to which the file's paths are relative.
        file: results of MegaDetector.
        roots: further folders in which images may lie.
        min_confidence: least confidence of a detection.
        categories: names of detection categories; None: all.

    Raises:
        ConfigError: ``images`` is not a folder.
        DataError: the file cannot be read, no image of it is there, a path leads outside, or no detection is left.
    """
    base = images.expanduser().absolute()
    if not base.is_dir():
        raise ConfigError(f"{images} is not a folder. With --detections, give the folder that the detector was run on")
    detections = read_megadetector("--detections", file.expanduser().absolute(), str(base))
    paths = [detections.files.relative(row) for row in range(len(detections.files))]
    refuse_outside(base, paths, roots)
    if paths and not any(is_regular(os.path.join(base, path)) for path in paths):
        raise DataError(
            f"--detections {file}: none of its {len(paths):,} images, such as {list_first(paths[:3])}, is in {base}. "
            "Give the folder that the detector was run on"
        )
    rows = detections.chosen(categories, min_confidence)
    if not len(rows):
        raise DataError(
            f"--detections {file}: none of its {len(detections.images):,} detections in {len(paths):,} images has a "
            f"confidence of {min_confidence:g} or more in {', '.join(categories or detections.category_names)}. Lower "
            "--min-confidence"
        )
    files = ImageFiles.from_paths(
        base,
        (paths[owner] for owner in detections.images[rows].tolist()),
        decoding=UPRIGHT,
        crops=BoxCrops(detections.boxes[rows]),
    )
    return DetectionPool(files, detections, rows)
