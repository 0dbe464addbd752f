"""Summary of peculiarities of a set of images: 16 bits, transparency, several frames, a single value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ltr.data.images.decode import Notes
from ltr.data.source import Decoding

SHOWN = 10
_HALF = 1 << 15  # a 16-bit image whose highest value is below this loses at least half of its 256 levels
_FEW_LEVELS = 16  # an image with fewer levels than this, next to images of full range, probably has another bit depth


@dataclass
class _Group:
    """Number of images with a peculiarity, and the paths of the first ones."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, path: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(path)

    def images(self) -> str:
        return "1 image" if self.count == 1 else f"{self.count:,} images"

    def has(self) -> str:
        return "has" if self.count == 1 else "have"

    def shown(self) -> str:
        return ", ".join(self.first) + (", ..." if self.count > len(self.first) else "")


class Tally:
    """Collector of the notes of many images.

    Args:
        decoding: options with which the images are decoded.
        dataset: the dataset config, if any; messages suggest only keys that it has.
    """

    def __init__(self, decoding: Decoding, dataset: Mapping[str, Any] | None = None) -> None:
        self.decoding = decoding
        self.dataset = dataset or {}
        self.highest = 0
        self._sixteen, self._wide, self._transparent = _Group(), _Group(), _Group()
        self._frames, self._constant = _Group(), _Group()
        self._dim, self._alpha = _Group(), _Group()

    @property
    def may_be_low(self) -> bool:
        """True if no decoded 16-bit image uses the upper half of the values, and no white level is set."""
        return bool(self._sixteen.count) and self.decoding.white_level is None and self.highest < _HALF

    def add(self, path: str, notes: Notes) -> None:
        """Count the notes of one image; ``path`` is its name in messages."""
        if notes.highest is not None:
            self._sixteen.add(path)
            self.add_highest(path, notes.highest)
        if notes.transparent is None:
            self._alpha.add(path)
        for group, applies in (
            (self._wide, notes.wide_colour),
            (self._transparent, notes.transparent is True),
            (self._frames, notes.frames),
        ):
            if applies:
                group.add(path)
        if notes.constant is not None:
            value = notes.constant[0] if len(set(notes.constant)) == 1 else notes.constant
            self._constant.add(f"{path} ({value})")

    def add_highest(self, path: str, highest: int) -> None:
        """Record the highest value of a 16-bit image that is already counted; -1 is unknown."""
        self.highest = max(self.highest, highest)
        if highest > 0 and self._levels(highest) < _FEW_LEVELS:
            self._dim.add(f"{path} ({highest:,})")

    def lines(self) -> list[str]:
        """Return one or two sentences for each peculiarity that occurs."""
        lines = []
        if self.may_be_low:
            lines.append(self._lower_bits())
        elif self._dim.count and self._levels(self.highest) >= 128:
            lines.append(
                f"{self._dim.images()} of 16 bits {self._dim.has()} far lower values than others, which reach "
                f"{self.highest:,}, and {self._dim.has()} fewer than {_FEW_LEVELS} of 256 levels once decoded. Convert "
                f"images of another bit depth to 8 bits, and keep images that are really dark: {self._dim.shown()}"
            )
        if self._wide.count:
            lines.append(
                f"{self._wide.images()} with 16 bits per colour: only the upper 8 bits are read: {self._wide.shown()}"
            )
        if self._transparent.count:
            lines.append(self._ground())
        if self._frames.count:
            lines.append(
                f"{self._frames.images()} {self._frames.has()} several frames, of which the first is read: "
                f"{self._frames.shown()}"
            )
        if self._constant.count:
            lines.append(
                f"{self._constant.images()} {self._constant.has()} the same value in every pixel once decoded: "
                f"{self._constant.shown()}"
            )
        return lines

    def _levels(self, highest: int) -> int:
        """Return the number of levels, of 256, that the values from 0 to ``highest`` use."""
        white = (1 << 16) - 1 if self.decoding.white_level is None else self.decoding.white_level
        return highest * 256 // (white + 1) + 1

    def _lower_bits(self) -> str:
        levels = self._levels(self.highest)
        left = "all is black" if levels == 1 else f"only {levels} of 256 levels are left"
        white = max((1 << self.highest.bit_length()) - 1, 255)
        # without a dataset config a trained network is applied: it reads images as in training, so no key can change
        advice = "Convert to 8 bits"
        if "white_level" in self.dataset:
            advice = f"dataset.white_level={white} makes that value white"
        return (
            f"{self._sixteen.images()} {self._sixteen.has()} 16 bits and a highest value of {self.highest:,}, where "
            f"65,535 is white: {left}. {advice}: {self._sixteen.shown()}"
        )

    def _ground(self) -> str:
        ground = "the alpha channel is dropped, which shows the colour under it"
        if self.decoding.matte is not None:
            name = self.dataset.get("matte") or "#{:02x}{:02x}{:02x}".format(*self.decoding.matte)
            ground = f"transparent pixels get the background {name}" + (
                " (dataset.matte)" if "matte" in self.dataset else ""
            )
        group = self._transparent
        more = f" (so may {self._alpha.count:,} others that were not decoded)" if self._alpha.count else ""
        return f"{group.images()} {group.has()} transparency{more}; {ground}: {group.shown()}"


def constant_value(pixels: np.ndarray) -> tuple[int, ...] | None:
    """Return the common value of all pixels [H, W, C], or None if they differ."""
    flat = pixels.reshape(-1, pixels.shape[-1])
    return tuple(flat[0].tolist()) if len(flat) and (flat == flat[0]).all() else None


def tally_arrays(images: np.ndarray, tally: Tally) -> None:
    """Count constant images among images uint8 [N, H, W, C]."""
    lowest, highest = images.min(axis=(1, 2)), images.max(axis=(1, 2))
    for index in np.flatnonzero((lowest == highest).all(axis=1)).tolist():
        tally.add(f"image {index}", Notes(constant=tuple(lowest[index].tolist())))
