"""Bounding boxes in coordinates of the evaluation crop, and the feature map locations inside them."""

from __future__ import annotations

import numpy as np

from ltr.data.images.crop import FileCrop
from ltr.data.source import ImageFiles, Source


def boxes_in_crop(source: Source, indices: np.ndarray, crop: FileCrop) -> np.ndarray:
    """Return boxes float64 [B, 4] (left, top, right, bottom) in fractions of the evaluation crop.

    Boxes may exceed the crop.

    Args:
        source: source of image files with ``boxes``.
        indices: int64 [B] into the source.
        crop: crop of the network's evaluation.
    """
    assert source.boxes is not None
    assert isinstance(source.images, ImageFiles)
    boxes = np.empty((len(indices), 4))
    for row, index in enumerate(indices):
        left, top, right, bottom = crop.centre_box(*read_image_size(source.images, int(index)))
        x, y, width, height = (float(value) for value in source.boxes[index])
        boxes[row] = (x - left, y - top, x + width - left, y + height - top)
        boxes[row] /= (right - left, bottom - top, right - left, bottom - top)
    return boxes


def read_image_size(files: ImageFiles, index: int) -> tuple[int, int]:
    """Return (width, height) in pixels of an image once decoded, from the header of its file."""
    from PIL import Image

    from ltr.data.images.decode import open_image
    from ltr.data.images.orientation import decoded_size

    opened = files.open(index)
    if isinstance(opened, Image.Image):
        return opened.size
    with open_image(opened) as image:
        return decoded_size(image, files.decoding.exif)


def locations_in_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a mask bool [B, height * width] of map locations whose centre lies in the box."""
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    left, top, right, bottom = (side[:, None] for side in boxes.T)
    columns, rows = (left <= x) & (x < right), (top <= y) & (y < bottom)
    return (rows[:, :, None] & columns[:, None, :]).reshape(len(boxes), -1)
