"""Transformations for self-supervised label augmentation: quarter turns, channel permutations, and their products.

Each maps an image to an image of the same shape without loss. A set of M transformations turns one image into M images,
each labelled by its transformation (Lee et al., ICML 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from ltr.errors import ConfigError, nearest

_TURNS = {"": (0,), "rotation": (0, 1, 2, 3), "rotation2": (0, 2)}
# permutations() begins with the identity; `colour3` has the cyclic permutations only
_ORDERS = {"": ((0, 1, 2),), "colour": tuple(permutations(range(3))), "colour3": ((0, 1, 2), (1, 2, 0), (2, 0, 1))}


@dataclass(frozen=True)
class JointTransforms:
    """Numbered set of M transformations; number 0 is the identity.

    In a product, transformation ``turn * len(orders) + order`` rotates by ``turns[turn]`` and permutes the channels by
    ``orders[order]``.

    Attributes:
        name: name in a config.
        turns: counter-clockwise quarter turns.
        orders: channel permutations; channel c of the result is channel ``order[c]`` of the image.
    """

    name: str
    turns: tuple[int, ...]
    orders: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.turns) * len(self.orders)

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Refuse images that the set cannot transform.

        Args:
            image_shape: (C, H, W).

        Raises:
            ConfigError: channel permutations of images without three channels, or quarter turns of images that are not
                square.
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
        """Apply transformation ``number`` in 0..M-1 to images, in channels_last memory; number 0 returns the input.

        Args:
            images: [B, C, H, W] of any type.
        """
        return self._of(images, number).contiguous(memory_format=torch.channels_last) if number else images

    def __call__(self, images: Tensor) -> Tensor:
        """Return all transformations of all images: row i * M + j is image i under transformation j.

        Args:
            images: [B, C, H, W] of any type.

        Returns:
            [B * M, C, H, W] in channels_last memory; for M = 1 the images themselves.
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
        if order:  # channel by channel: indexing by a list would copy the list to the device at every step
            images = torch.stack([images[:, channel] for channel in self.orders[order]], dim=-1).permute(0, 3, 1, 2)
        return images


def _all_transforms() -> dict[str, JointTransforms]:
    """Return ``none``, both kinds of turns and of orders, and their four products, such as ``rotation_colour``."""
    transforms = {}
    for turn, turns in _TURNS.items():
        for order, orders in _ORDERS.items():
            name = "_".join(part for part in (turn, order) if part) or "none"
            transforms[name] = JointTransforms(name, turns, orders)
    return transforms


TRANSFORMS = _all_transforms()


def joint_transforms(name: str) -> JointTransforms:
    """Return the set with a name of `TRANSFORMS`.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in TRANSFORMS:
        raise ConfigError(f"method.transform={name}; allowed: {', '.join(TRANSFORMS)}{nearest(name, TRANSFORMS)}")
    return TRANSFORMS[name]
