"""How an image file becomes pixels of one size: which part of it is cut, and at what size it is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ltr.data.decode import Notes, has_more_frames, open_image, orientation, refuse_too_many_pixels, turned_to_rgb
from ltr.data.source import PLAIN, Decoding
from ltr.errors import ConfigError
from ltr.identity import named

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
ATTEMPTS = 10
_REDUCTIONS = (8, 4, 2)  # that Pillow offers while decoding a JPEG


@named("augment/file_crop")
class FileCrop:
    """How a decoded image becomes ``size`` x ``size`` pixels: at random for training, always the same for evaluation.

    Args:
        size: side in pixels of what comes out.
        resize: for evaluation: the middle ``size`` of an image whose short side is ``resize``. None is 8/7 of ``size``
            (256 for 224). Twice the same number, such as (510, 510): of an image that was stretched to a square of
            that side (HERBS and PIM).
        random: train on random crops; else on evaluation's.
        window: random crops are windows of ``size`` pixels a side of the image resized as for evaluation (torchvision's
            Resize and RandomCrop). Without it they are random-resized crops (Szegedy et al., CVPR 2015).
        scale: share of the area that a random-resized crop covers.
        ratio: its width over its height.
        reduced: decode a JPEG at a half, a quarter or an eighth of its size, which is faster, where a random crop has
            ``size`` pixels a side even then. Its pixels differ a little from those of the whole image resized;
            evaluation always decodes the whole.

    Raises:
        ConfigError: a value outside its range.
    """

    def __init__(
        self,
        size: int,
        *,
        resize: int | Sequence[int] | None = None,
        random: bool = False,
        window: bool = False,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        reduced: bool = True,
    ) -> None:
        self.size = size
        self.reduced = reduced
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
        """The middle ``size / resize`` of the short side; without the rounding of a resize and a crop done apart."""
        across, down = self._window(width, height)
        left, top = (width - across) / 2, (height - down) / 2
        return left, top, left + across, top + down

    def window_box(self, width: int, height: int, uniform: np.ndarray) -> Box:
        """A window at a random place; the places are the whole pixels of the resized image, as torchvision's are.

        Args:
            uniform: float64 [4 or more] in [0, 1): the third says how far down, the fourth how far right.
        """
        across, down = self._window(width, height)
        # pixels of the resized image (torchvision cuts its longer side to whole ones) by which the window can move
        free_right, free_down = int(width * self.size / across) - self.size, int(height * self.size / down) - self.size
        left = int(uniform[3] * (free_right + 1)) * across / self.size
        top = int(uniform[2] * (free_down + 1)) * down / self.size
        return left, top, left + across, top + down

    def _window(self, width: int, height: int) -> tuple[float, float]:
        """Width and height, in pixels of the file, of what becomes ``size`` x ``size`` of the resized image."""
        share = self.size / self.resize
        if self.stretch:
            return width * share, height * share
        return min(width, height) * share, min(width, height) * share

    def random_box(self, width: int, height: int, uniform: np.ndarray) -> Box:
        """A random-resized crop in whole pixels, by torchvision's rule.

        Area uniform in ``scale``, logarithm of the ratio uniform; the first of ten tries that fits the image counts,
        else the largest middle box with an allowed ratio.

        Args:
            uniform: float64 [40] in [0, 1): area, ratio, top and left of each try.
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
        self, opened: Any, uniform: np.ndarray | None, how: Decoding = PLAIN, *, notes: Notes | None = None
    ) -> np.ndarray:
        """Decode, crop and resize one file.

        Args:
            opened: what Pillow opens (a path, a binary stream), or a decoded image.
            uniform: for a random crop, see `random_box` and `window_box`; None for evaluation's.
            how: how pixels become RGB.
            notes: filled in with what stands out; not of a decoded image.

        Returns:
            uint8 [size, size, 3].
        """
        if isinstance(opened, Image.Image):
            return self._cut(opened, self._box(*opened.size, uniform))
        with open_image(opened) as file:
            refuse_too_many_pixels(file)
            if notes is not None:
                notes.frames = has_more_frames(file, opened)
            turned = orientation(file) if how.exif else 1
            box = self._box(*(file.size[::-1] if turned >= 5 else file.size), uniform)
            divisor = self._divisor(box) if self.reduced and uniform is not None else 1
            while turned > 1 and (file.width % divisor or file.height % divisor):
                divisor //= 2  # a last column that is not full may become the first one, and move all others
            # only JPEGs can, others say None
            if divisor > 1 and file.draft(None, (file.width // divisor, file.height // divisor)) is not None:
                left, top, right, bottom = box
                box = left / divisor, top / divisor, right / divisor, bottom / divisor
            return self._cut(turned_to_rgb(file, how, notes), box)

    def _box(self, width: int, height: int, uniform: np.ndarray | None) -> Box:
        if uniform is None:
            return self.centre_box(width, height)
        return self.window_box(width, height, uniform) if self.window else self.random_box(width, height, uniform)

    def _divisor(self, box: Box) -> int:
        """The largest of 8, 4 and 2 after which the box has still ``size`` pixels a side; 1 where there is none."""
        side = min(box[2] - box[0], box[3] - box[1])
        return next((divisor for divisor in _REDUCTIONS if side >= divisor * self.size), 1)

    def _cut(self, image: Image.Image, box: Box) -> np.ndarray:
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box))


def _resize(given: int | Sequence[int]) -> tuple[int, bool]:
    """The side that an image is brought to, and whether it is stretched to a square of it."""
    if isinstance(given, int):
        return given, False
    if len(given) != 2 or given[0] != given[1]:
        raise ConfigError(
            f"files.resize={list(given)}: allowed is the short side, such as 256, or twice the same number, such as "
            "[510,510], to stretch images to a square"
        )
    return int(given[0]), True
