"""Bounding boxes in the crop that evaluation looks at, and which locations of a feature map lie in them."""

from __future__ import annotations

import numpy as np

from ltr.data.crop import FileCrop
from ltr.data.source import ImageFiles, Source


def boxes_in_crop(source: Source, indices: np.ndarray, crop: FileCrop) -> np.ndarray:
    """Boxes float64 [B, 4] as left, top, right, bottom in fractions of evaluation's crop; they may reach beyond it.

    Args:
        source: of image files, with ``boxes``.
        indices: int64 [B] into the source.
    """
    assert source.boxes is not None
    assert isinstance(source.images, ImageFiles)
    found = np.empty((len(indices), 4))
    for row, index in enumerate(indices):
        left, top, right, bottom = crop.centre_box(*size_of(source.images, int(index)))
        x, y, width, height = (float(value) for value in source.boxes[index])
        found[row] = (x - left, y - top, x + width - left, y + height - top)
        found[row] /= (right - left, bottom - top, right - left, bottom - top)
    return found


def size_of(files: ImageFiles, index: int) -> tuple[int, int]:
    """(width, height) in pixels, from the file's head."""
    from PIL import Image

    from ltr.data.decode import open_image

    opened = files.open(index)
    if isinstance(opened, Image.Image):
        return opened.size
    with open_image(opened) as image:
        return image.size


def inside_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Whether the centre of each location of a map lies in the box: bool [B, height * width]."""
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    left, top, right, bottom = (side[:, None] for side in boxes.T)
    columns, rows = (left <= x) & (x < right), (top <= y) & (y < bottom)
    return (rows[:, :, None] & columns[:, None, :]).reshape(len(boxes), -1)
