"""AutoAugment, RandAugment and random rotations as batched tensor operations: each runs once on all its images.

The host assigns operations to images by their random numbers; the pixels stay on the device. The operations are
bit-equal to Pillow's, which the papers' code uses (autocontrast: within one level).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ltr.data.augmentation import pixel_operations as pixel
from ltr.data.batch import to_device

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
ENHANCING = ("brightness", "colour", "contrast", "sharpness")
WITHOUT_VALUE = ("autocontrast", "equalize", "invert", "grey")
OPERATIONS = (*GEOMETRIC, *ENHANCING, "posterize", "solarize", "autocontrast", "equalize", "invert", "identity",
              "hue", "grey")  # fmt: skip
_NOT_IN_RANDAUGMENT = ("invert", "hue", "grey")
_NUMBER = {name: number for number, name in enumerate(OPERATIONS)}

# Cubuk et al., CVPR 2019, table 7: 25 sub-policies of two (operation, probability, level 0..9)
CIFAR10_POLICY = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("colour", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("colour", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("colour", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("colour", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("colour", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)


class Step(NamedTuple):
    """One operation and its parameter for each image of a batch."""

    operations: np.ndarray  # int64 [B], numbers into OPERATIONS
    values: np.ndarray  # float64 [B]: shear, pixels, degrees, factor, bits, threshold or share of the hue's circle


class Policy(Protocol):
    """Interface of policies: a pure function on the host from random numbers to steps."""

    draws: int  # number of uniform random numbers per image

    def steps(self, uniform: np.ndarray, side: int) -> list[Step]:
        """Return the steps of B images of side ``side`` from uniform numbers [B, draws]."""
        ...


def number_of(name: str) -> int:
    """Return the number of an operation of ``OPERATIONS``, as `Step` holds it."""
    return _NUMBER[name]


def value_of(name: str, level: float, sign: int, side: int) -> float:
    """Return the parameter of operation ``name`` at ``level`` in [0, 1].

    The ranges are those of the paper (Cubuk et al., CVPR 2019, table 6), mapped as in torchvision and in the
    re-implementations used for long-tailed CIFAR: shear 0.3, translation 150/331 of the side, rotation 30 degrees, the
    four enhancements 1 +- 0.9, posterize 8 to 4 bits, solarize from 255 down to 0. The papers' TensorFlow code maps
    levels differently (enhancement 0.1 + 1.8 level without a sign, posterize 4 to 0 bits, translation 10 pixels).
    """
    if name in ("shear_x", "shear_y"):
        return sign * 0.3 * level
    if name in ("translate_x", "translate_y"):
        return float(int(sign * 150 / 331 * side * level))
    if name == "rotate":
        return sign * 30 * level
    if name in ENHANCING:
        return 1 + sign * 0.9 * level
    if name == "posterize":
        return 8.0 - round(4 * level)
    if name == "solarize":
        return 255 - 255 * level
    return 0.0


class AutoAugment:
    """AutoAugment's policy for CIFAR-10: one of 25 sub-policies per image (Cubuk et al., CVPR 2019)."""

    draws = 5  # sub-policy, then probability and sign of each operation

    def steps(self, uniform: np.ndarray, side: int) -> list[Step]:
        chosen = (uniform[:, 0] * len(CIFAR10_POLICY)).astype(np.int64)
        steps = []
        for position in range(2):
            column = [pair[position] for pair in CIFAR10_POLICY]
            numbers = np.array([_NUMBER[name] for name, _, _ in column])
            probabilities = np.array([probability for _, probability, _ in column])
            values = np.array(
                [[value_of(name, level / 9, sign, side) for sign in (-1, 1)] for name, _, level in column]
            )
            applied = uniform[:, 1 + 2 * position] < probabilities[chosen]
            positive = (uniform[:, 2 + 2 * position] >= 0.5).astype(np.int64)
            steps.append(Step(np.where(applied, numbers[chosen], _NUMBER["identity"]), values[chosen, positive]))
        return steps


class RandAugment:
    """RandAugment: ``num_ops`` uniformly sampled operations at one magnitude (Cubuk et al., NeurIPS 2020).

    It uses the 14 operations of the paper (with identity, without invert).

    Args:
        num_ops: operations per image, the paper's N.
        magnitude: 0 to 30, the paper's M.
    """

    def __init__(self, num_ops: int, magnitude: float) -> None:
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.draws = 2 * num_ops
        self._choices = [name for name in OPERATIONS if name not in _NOT_IN_RANDAUGMENT]

    def steps(self, uniform: np.ndarray, side: int) -> list[Step]:
        numbers = np.array([_NUMBER[name] for name in self._choices])
        values = np.array([[value_of(n, self.magnitude / 30, sign, side) for sign in (-1, 1)] for n in self._choices])
        steps = []
        for position in range(self.num_ops):
            chosen = (uniform[:, 2 * position] * len(numbers)).astype(np.int64)
            positive = (uniform[:, 2 * position + 1] >= 0.5).astype(np.int64)
            steps.append(Step(numbers[chosen], values[chosen, positive]))
        return steps


class Rotation:
    """Rotation by a uniformly sampled angle, with nearest-neighbour interpolation.

    Args:
        degrees: the largest angle in either direction, 15 in the codes of RIDE and SADE.
    """

    draws = 1

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def steps(self, uniform: np.ndarray, side: int) -> list[Step]:
        return [Step(np.full(len(uniform), _NUMBER["rotate"]), (2 * uniform[:, 0] - 1) * self.degrees)]


class _Group(NamedTuple):
    """Images of one step with the same operation; all geometric operations form one group."""

    operation: str
    rows: np.ndarray  # int64 [n], into the batch
    values: np.ndarray  # float64 [n]
    coefficients: np.ndarray  # int64 [n, 6], fixed-point maps of the geometric operations


def apply_steps(pixels: Tensor, steps: list[Step], fill: Tensor) -> Tensor:
    """Run the steps in order, in place.

    Args:
        pixels: uint8 [B, H, W, C], overwritten.
        fill: uint8 [C], colour of the pixels that a shear, shift or rotation leaves empty.
    """
    groups = [group for step in steps for group in _groups(step, *pixels.shape[1:3])]
    if not groups:
        return pixels
    # one transfer per step for the whole batch, independent of the number of operations
    rows = to_device(np.concatenate([group.rows for group in groups]), pixels.device)
    values = to_device(np.concatenate([group.values for group in groups]).astype(np.float32), pixels.device)
    coefficients = to_device(np.concatenate([group.coefficients for group in groups]), pixels.device)
    end = 0
    for group in groups:
        part = slice(end, end := end + len(group.rows))
        images = pixels.index_select(0, rows[part])
        changed = _run(group.operation, images, values[part], coefficients[part], fill)
        pixels.index_copy_(0, rows[part], changed)
    return pixels


def _groups(step: Step, height: int, width: int) -> list[_Group]:
    groups, geometric = [], []
    for number in np.unique(step.operations):
        name = OPERATIONS[number]
        rows = np.flatnonzero(step.operations == number)
        values = step.values[rows]
        if name in GEOMETRIC:
            maps = pixel.fixed_point(pixel.inverse_maps(name, values, height, width))
            geometric.append(_Group("affine", rows, values, maps))
        elif name != "identity":
            groups.append(_Group(name, rows, values, np.zeros((len(rows), 6), dtype=np.int64)))
    if geometric:
        groups.append(_Group("affine", *(np.concatenate([group[field] for group in geometric]) for field in (1, 2, 3))))
    return groups


def _run(operation: str, images: Tensor, values: Tensor, coefficients: Tensor, fill: Tensor) -> Tensor:
    if operation == "affine":
        return pixel.affine(images, coefficients, fill)
    function = getattr(pixel, operation)
    return function(images) if operation in WITHOUT_VALUE else function(images, values)


def fill_colour(fill: list[float], device: torch.device) -> Tensor:
    """Convert a colour in [0, 1] to uint8 [C]."""
    return to_device(np.rint(np.array(fill) * 255).astype(np.uint8), device)
