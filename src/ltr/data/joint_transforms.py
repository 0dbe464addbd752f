"""Transformations whose number a network can be asked for: quarter turns, orders of the colour channels, and products.

Each one maps an image to an image of the same shape without loss, so that M of them make M images of one, each with
the label of its transformation (Lee et al., ICML 2020: self-supervised label augmentation).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from ltr.errors import ConfigError, nearest

_TURNS = {"": (0,), "rotation": (0, 1, 2, 3), "rotation2": (0, 2)}
# permutations() begins with the identity; the three cyclic ones keep the channels' order
_ORDERS = {"": ((0, 1, 2),), "colour": tuple(permutations(range(3))), "colour3": ((0, 1, 2), (1, 2, 0), (2, 0, 1))}


@dataclass(frozen=True)
class JointTransforms:
    """A numbered set of M transformations; number 0 leaves an image as it is.

    In a product, number ``turn * len(orders) + order`` turns by ``turns[turn]`` and takes the channels in
    ``orders[order]``.

    Attributes:
        name: as on a config.
        turns: counter-clockwise quarter turns.
        orders: of the channels: channel c of the result is channel ``order[c]`` of the image.
    """

    name: str
    turns: tuple[int, ...]
    orders: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.turns) * len(self.orders)

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Refuse images that the set is not made for.

        Args:
            image_shape: (C, H, W).

        Raises:
            ConfigError: orders of colours on images that have no three channels; quarter turns of oblong images.
        """
        channels, height, width = image_shape
        if len(self.orders) > 1 and channels != 3:
            turned = [name for name in _TURNS if name]
            raise ConfigError(
                f"method.transform={self.name} permutes three colour channels, and the images have {channels}. "
                f"Use method.transform={' or '.join(turned)}"
            )
        if any(turn % 2 for turn in self.turns) and height != width:
            raise ConfigError(
                f"method.transform={self.name} turns images by 90 degrees, which needs square ones; they are "
                f"{height} x {width} (height x width). Use method.transform=rotation2, or colour or colour3"
            )

    def one(self, images: Tensor, number: int) -> Tensor:
        """The images under transformation ``number`` in 0..M-1, in channels_last memory; as they are under number 0.

        Args:
            images: [B, C, H, W] of any type.
        """
        return self._of(images, number).contiguous(memory_format=torch.channels_last) if number else images

    def __call__(self, images: Tensor) -> Tensor:
        """All transformations of all images: row i * M + j is image i under transformation j.

        Args:
            images: [B, C, H, W] of any type.

        Returns:
            [B * M, C, H, W] in channels_last memory; the images themselves where M = 1.
        """
        if len(self) == 1:
            return images
        batch, channels, height, width = images.shape
        rows = images.new_empty(batch, len(self), height, width, channels).permute(0, 1, 4, 2, 3)
        for number in range(len(self)):
            rows[:, number] = self._of(images, number)
        return rows.flatten(0, 1)

    def _of(self, images: Tensor, number: int) -> Tensor:
        turn, order = divmod(number, len(self.orders))
        if self.turns[turn]:
            images = torch.rot90(images, self.turns[turn], (2, 3))
        if order:  # channel by channel: a list of indices would be copied to the device in every step
            images = torch.stack([images[:, channel] for channel in self.orders[order]], dim=-1).permute(0, 3, 1, 2)
        return images


def _named() -> dict[str, JointTransforms]:
    """``none``, both kinds of turns, both kinds of orders, and the four products, e.g. ``rotation_colour``."""
    found = {}
    for turn, turns in _TURNS.items():
        for order, orders in _ORDERS.items():
            name = "_".join(part for part in (turn, order) if part) or "none"
            found[name] = JointTransforms(name, turns, orders)
    return found


TRANSFORMS = _named()


def joint_transforms(name: str) -> JointTransforms:
    """The set of a name: a key of `TRANSFORMS`.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in TRANSFORMS:
        raise ConfigError(f"method.transform={name}; allowed: {', '.join(TRANSFORMS)}{nearest(name, TRANSFORMS)}")
    return TRANSFORMS[name]
