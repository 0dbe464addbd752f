"""Boxes that are cut from image files before any other operation, for training, packing and prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Region(NamedTuple):
    """Box in an image file.

    Attributes:
        path: path of the file.
        box: left, top, width and height in fractions of the upright image; NaN: the whole image.
        margin: fraction of the box's longer side that is added on each side.
        square: True extends the shorter side to the longer one.
    """

    path: str
    box: tuple[float, float, float, float]
    margin: float
    square: bool

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom in whole pixels of an image of this size; at least one pixel.

        The margin is added first. A square is moved into the image, and clipped if the image is smaller.
        """
        if math.isnan(self.box[0]):
            return 0, 0, width, height
        x, y, box_width, box_height = self.box
        horizontal, vertical = box_width * width, box_height * height
        more = 2 * self.margin * max(horizontal, vertical)
        sides = horizontal + more, vertical + more
        if self.square:
            sides = max(sides), max(sides)
        left, right = _interval((x + box_width / 2) * width, sides[0], width, moves=self.square)
        top, bottom = _interval((y + box_height / 2) * height, sides[1], height, moves=self.square)
        return left, top, right, bottom


def _interval(centre: float, length: float, size: int, *, moves: bool) -> tuple[int, int]:
    """Return the whole pixels of an interval inside [0, size]: clipped, or moved inside first."""
    if moves:
        length = min(length, size)
        centre = min(max(centre, length / 2), size - length / 2)
    start = min(max(round(centre - length / 2), 0), size - 1)
    return start, min(max(round(centre + length / 2), start + 1), size)


@dataclass(frozen=True, eq=False)
class BoxCrops:
    """Box of each image of a table, with the options that extend boxes.

    Attributes:
        boxes: float32 [N, 4] left, top, width and height in fractions of the image; a row of NaN: the whole image.
        margin, square: as in `Region`.
    """

    boxes: np.ndarray
    margin: float = 0.0
    square: bool = False

    def region(self, index: int, path: str) -> Region:
        """Return the region of image ``index``, whose file is at ``path``."""
        x, y, width, height = self.boxes[index].tolist()
        return Region(path, (x, y, width, height), self.margin, self.square)

    def identity(self) -> bytes:
        """Return bytes for a fingerprint, which differ if two tables cut different pixels."""
        boxes = np.ascontiguousarray(self.boxes, dtype="<f4")
        return f"crops margin={self.margin:g} square={self.square}".encode() + boxes.tobytes()
