"""Random-resized crops of a batch in memory (Szegedy et al., CVPR 2015), by torchvision's rule and Pillow's arithmetic.

The host chooses a box for each image and computes the weights of a bilinear resizing; the device only gathers and adds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ltr.data.batch import to_device

ATTEMPTS = 10
DRAWS = 4 * ATTEMPTS  # area, ratio, top and left of each attempt
_BITS = 22  # Pillow's fixed point


class Boxes(NamedTuple):
    """Boxes of B images in pixels, each int64 [B]."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray


def sample_boxes(uniform: np.ndarray, side: int, scale: Sequence[float], ratio: Sequence[float]) -> Boxes:
    """Return random boxes in squares of ``side`` pixels.

    The area is uniform in ``scale`` (a share of the image's), and the logarithm of the ratio of width to height is
    uniform in ``ratio``. The result is the first of ten attempts that fits, or else the largest central box with an
    allowed ratio.

    Args:
        uniform: float64 [B, DRAWS] in [0, 1).
    """
    share, shape, down, right = uniform.reshape(len(uniform), ATTEMPTS, 4).transpose(2, 0, 1)
    target = side * side * (scale[0] + share * (scale[1] - scale[0]))
    ratios = np.exp(math.log(ratio[0]) + shape * (math.log(ratio[1]) - math.log(ratio[0])))
    widths = np.rint(np.sqrt(target * ratios)).astype(np.int64)
    heights = np.rint(np.sqrt(target / ratios)).astype(np.int64)
    fits = (widths > 0) & (widths <= side) & (heights > 0) & (heights <= side)
    first = (np.arange(len(uniform)), fits.argmax(1))
    has_fit = fits[first]
    width = np.where(has_fit, widths[first], min(side, round(side * ratio[1])))
    height = np.where(has_fit, heights[first], min(side, round(side / ratio[0])))
    top = np.where(has_fit, (down[first] * (side - height + 1)).astype(np.int64), (side - height) // 2)
    left = np.where(has_fit, (right[first] * (side - width + 1)).astype(np.int64), (side - width) // 2)
    return Boxes(top, left, height, width)


def crop_and_resize(pixels: Tensor, boxes: Boxes, mirrored: np.ndarray) -> Tensor:
    """Resize a box of each image to the size of the image, and mirror some images.

    Args:
        pixels: uint8 [B, H, W, C].
        boxes: boxes inside the images.
        mirrored: bool [B].

    Returns:
        uint8 [B, H, W, C], bilinear and rounded after each axis, as Pillow does.
    """
    height, width = pixels.shape[1:3]
    columns = _taps(boxes.left, boxes.width, width)
    columns[:, mirrored] = columns[:, mirrored, ::-1]
    rows = _taps(boxes.top, boxes.height, height)
    taps = to_device(np.concatenate([columns, rows], axis=2), pixels.device)
    wide = _interpolated(pixels, taps[:, :, None, :width, None], dim=2)
    return _interpolated(wide, taps[:, :, width:, None, None], dim=1)


def _taps(start: np.ndarray, length: np.ndarray, side: int) -> np.ndarray:
    """Return first and second index and their fixed-point weights, int64 [4, B, side], of each output pixel."""
    centre = (np.arange(side) + 0.5) * (length[:, None] / side) - 0.5
    first = np.floor(centre)
    share = centre - first
    last = length[:, None] - 1
    low, high = np.clip(first, 0, last), np.clip(first + 1, 0, last)
    weights = [np.floor(part * 2**_BITS + 0.5) for part in (1 - share, share)]
    return np.stack([low + start[:, None], high + start[:, None], *weights]).astype(np.int64)


def _interpolated(images: Tensor, taps: Tensor, dim: int) -> Tensor:
    low, high, low_weight, high_weight = taps.unbind(0)
    total = torch.take_along_dim(images, low, dim).int() * low_weight.int()
    total += torch.take_along_dim(images, high, dim).int() * high_weight.int()
    return ((total + 2 ** (_BITS - 1)) >> _BITS).clamp_(0, 255).to(torch.uint8)
