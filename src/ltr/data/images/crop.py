"""Crops of image files: the cropped region, and the size at which a file is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ltr.configuration.ranges import PositiveInt, check_option
from ltr.data.images.decode import (
    Notes,
    decode_to_rgb,
    has_more_frames,
    open_image,
    refuse_too_many_pixels,
)
from ltr.data.images.orientation import decoded_size, orientation
from ltr.data.images.regions import Region
from ltr.data.options import Interpolation
from ltr.data.source import PLAIN, Decoding
from ltr.errors import ConfigError
from ltr.identity import named

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
ATTEMPTS = 10
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_REDUCTIONS = (8, 4, 2)  # divisors that Pillow offers for decoding a JPEG
_REDUCIBLE = ("JPEG", "MPO")


@named("augment/file_crop")
class FileCrop:
    """Crop of decoded images to ``size`` x ``size`` pixels: random for training, fixed for evaluation.

    Args:
        size: side of the crop in pixels.
        resize: short side in pixels to which evaluation resizes an image before it crops the central ``size`` pixels.
            None: 8/7 of ``size`` (256 for 224). Two equal numbers, such as (510, 510), stretch the image to a square of
            that side (HERBS and PIM).
        random: True trains on random crops, False on the evaluation crop.
        window: type of random crop. True: a window of ``size`` pixels of the image resized as for evaluation
            (torchvision's Resize and RandomCrop); False: a random-resized crop (Szegedy et al., CVPR 2015).
        scale: range of the area of a random-resized crop, as a share of the image's area.
        ratio: range of the width over the height of a random-resized crop.
        reduced: True decodes a JPEG at a half, a quarter or an eighth of its size, which is faster, if a random crop
            still has ``size`` pixels a side. The pixels differ slightly from those of the resized full image.
            Evaluation always decodes the full image.
        interpolation: interpolation of the resizing, ``bilinear`` or ``bicubic``, both antialiased as in Pillow; None:
            bilinear.

    Raises:
        ConfigError: a value is outside its range.
    """

    def __init__(
        self,
        size: int,
        *,
        resize: PositiveInt | Sequence[PositiveInt] | None = None,
        random: bool = False,
        window: bool = False,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        reduced: bool = True,
        interpolation: Interpolation | None = None,
    ) -> None:
        self.size = size
        self.reduced = reduced
        check_option("files.interpolation", interpolation, Interpolation | None)
        self.interpolation: Interpolation = interpolation or "bilinear"
        self.resize, self.stretch = _resize(round(size * 8 / 7) if resize is None else resize)
        self.random = random
        self.window = window
        self.scale = (float(scale[0]), float(scale[1]))
        self.ratio = (float(ratio[0]), float(ratio[1]))
        if size < 1 or self.resize < size:
            raise ConfigError(f"files.resize={self.resize}: the crop of {size} pixels needs at least as many")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"files.scale={list(scale)}: allowed are two ascending shares of the area in (0, 1]")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ConfigError(f"files.ratio={list(ratio)}: allowed are two ascending positive numbers")

    def centre_box(self, width: int, height: int) -> Box:
        """Return the central crop, ``size / resize`` of the short side, without the rounding of a separate resize."""
        crop_width, crop_height = self._window(width, height)
        left, top = (width - crop_width) / 2, (height - crop_height) / 2
        return left, top, left + crop_width, top + crop_height

    def window_box(self, width: int, height: int, uniform: np.ndarray) -> Box:
        """Return a window at a random position in whole pixels of the resized image, as in torchvision.

        Args:
            uniform: float64 [4 or more] in [0, 1); the third number gives the top, the fourth the left.
        """
        crop_width, crop_height = self._window(width, height)
        # range of the window's position in pixels of the resized image, whose longer side torchvision rounds down
        free_right, free_down = (
            int(width * self.size / crop_width) - self.size,
            int(height * self.size / crop_height) - self.size,
        )
        left = int(uniform[3] * (free_right + 1)) * crop_width / self.size
        top = int(uniform[2] * (free_down + 1)) * crop_height / self.size
        return left, top, left + crop_width, top + crop_height

    def _window(self, width: int, height: int) -> tuple[float, float]:
        """Return width and height, in pixels of the file, of a ``size`` x ``size`` window of the resized image."""
        share = self.size / self.resize
        if self.stretch:
            return width * share, height * share
        return min(width, height) * share, min(width, height) * share

    def random_box(self, width: int, height: int, uniform: np.ndarray) -> Box:
        """Return a random-resized crop in whole pixels, by torchvision's rule.

        The area is uniform in ``scale``, and the logarithm of the ratio is uniform too. The result is the first of ten
        attempts that fits into the image, or else the largest central box with an allowed ratio.

        Args:
            uniform: float64 [40] in [0, 1): area, ratio, top and left of each attempt.
        """
        area = width * height
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for share, shape, down, right in uniform.reshape(ATTEMPTS, 4):
            target = area * (self.scale[0] + share * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + shape * (high - low))
            box_width, box_height = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < box_width <= width and 0 < box_height <= height:
                top, left = int(down * (height - box_height + 1)), int(right * (width - box_width + 1))
                return left, top, left + box_width, top + box_height
        box_width = min(width, round(height * self.ratio[1]))
        box_height = min(height, round(width / self.ratio[0]))
        left, top = (width - box_width) // 2, (height - box_height) // 2
        return left, top, left + box_width, top + box_height

    def read(
        self, opened: Any, uniform: np.ndarray | None, decoding: Decoding = PLAIN, *, notes: Notes | None = None
    ) -> np.ndarray:
        """Decode, crop and resize one file; the crop of a region is taken inside the region.

        Args:
            opened: path, binary stream, region of a file, or decoded image.
            uniform: random numbers of a random crop, see `random_box` and `window_box`; None: the evaluation crop.
            decoding: conversion of pixels to RGB.
            notes: receives peculiarities of the image; ignored if ``opened`` is a decoded image.

        Returns:
            uint8 [size, size, 3].
        """
        if isinstance(opened, Image.Image):
            return self._cut(opened, self._box(*opened.size, uniform))
        with open_image(opened) as file:
            refuse_too_many_pixels(file)
            if notes is not None:
                notes.frames = has_more_frames(file, opened)
            may_reduce = self.reduced and uniform is not None and file.format in _REDUCIBLE
            rgb = None if may_reduce else decode_to_rgb(file, decoding, notes)
            width, height = decoded_size(file, decoding.exif) if rgb is None else rgb.size
            region = opened.pixels(width, height) if isinstance(opened, Region) else None
            if region is not None:
                width, height = region[2] - region[0], region[3] - region[1]
            box = self._box(width, height, uniform)
            divisor = 1
            if rgb is None:
                divisor = self._draft(file, self._divisor(box), is_turned=decoding.exif and orientation(file) > 1)
                left, top, right, bottom = box
                box = left / divisor, top / divisor, right / divisor, bottom / divisor
                rgb = decode_to_rgb(file, decoding, notes)
            if region is not None:  # before resizing, whose filter would mix in pixels from outside the region
                start_x, start_y = region[0] // divisor, region[1] // divisor
                rgb = rgb.crop((start_x, start_y, -(-region[2] // divisor), -(-region[3] // divisor)))
                shift_x, shift_y = region[0] / divisor - start_x, region[1] / divisor - start_y
                box = box[0] + shift_x, box[1] + shift_y, box[2] + shift_x, box[3] + shift_y
            return self._cut(rgb, box)

    def _box(self, width: int, height: int, uniform: np.ndarray | None) -> Box:
        if uniform is None:
            return self.centre_box(width, height)
        return self.window_box(width, height, uniform) if self.window else self.random_box(width, height, uniform)

    @staticmethod
    def _draft(file: Image.Image, divisor: int, *, is_turned: bool) -> int:
        """Ask for decoding at a fraction of a file's size; return the divisor, 1 if Pillow decodes the full size."""
        while is_turned and (file.width % divisor or file.height % divisor):
            divisor //= 2  # a partial last column may become the first one and shift all others
        if divisor > 1 and file.draft(None, (file.width // divisor, file.height // divisor)) is not None:
            return divisor
        return 1

    def _divisor(self, box: Box) -> int:
        """Return the largest of 8, 4 and 2 that leaves the box ``size`` pixels a side, or 1."""
        side = min(box[2] - box[0], box[3] - box[1])
        return next((divisor for divisor in _REDUCTIONS if side >= divisor * self.size), 1)

    def _cut(self, image: Image.Image, box: Box) -> np.ndarray:
        return np.asarray(image.resize((self.size, self.size), _FILTERS[self.interpolation], box=box))


def _resize(value: int | Sequence[int]) -> tuple[int, bool]:
    """Return the side that images are resized to, and whether they are stretched to a square."""
    if isinstance(value, int):
        return value, False
    if len(value) != 2 or value[0] != value[1]:
        raise ConfigError(
            f"files.resize={list(value)}: allowed is the short side, such as 256, or twice the same number, such as "
            "[510,510], to stretch images to a square"
        )
    return int(value[0]), True
