"""Mixup, Remix and cutmix: combinations of two images of a batch, with a weight for each label."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ltr.data.batch import Mix, to_device
from ltr.randomness import generator

MixName = Literal["mixup", "remix", "cutmix"]


def mix_batch(
    images: Tensor,
    labels: Tensor,
    *,
    kind: str,
    alpha: float,
    probability: float,
    seed: int,
    first_position: int,
    labels_by: Callable[[float, Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Mix]:
    """Mix every image with another image of the batch; the partner of image i is ``permutation[i]``.

    The whole batch uses one weight, one permutation and one box, as in the code of both papers. They follow from
    ``seed`` and the batch's first position, and therefore depend on the batch size. With probability
    ``1 - probability`` the batch is not mixed, and the weight is 1.

    Args:
        images: uint8 [B, C, H, W].
        labels: int64 [B].
        kind: ``mixup``, ``remix`` or ``cutmix``.
        alpha: parameter of the weight's distribution Beta(alpha, alpha), above 0.
        probability: probability of mixing the batch.
        seed: seed of the epoch.
        first_position: position of the first image in the epoch's global sample.
        labels_by: (weight of the first image, first labels [B], other labels [B]) -> weights of the first labels
            [B]; None: those of the images.

    Returns:
        Images float32 [B, C, H, W] in [0, 1], in the memory format of ``images``, and the partners' labels with the
        weight of the first labels.
    """
    random = generator(seed, "mix", first_position)
    weight = float(random.beta(alpha, alpha))
    applied = bool(random.random() < probability)
    centre = random.random(2)
    partner = to_device(random.permutation(len(images)), images.device)
    unit = images.float().mul_(1 / 255)
    if not applied:
        weight = 1.0
    elif kind in ("mixup", "remix"):
        unit = mixup(unit, partner, weight)
    else:
        unit, weight = cutmix(unit, partner, weight, centre)
    other_labels = labels.index_select(0, partner)
    if labels_by is not None and applied:
        return unit, Mix(other_labels, labels_by(weight, labels, other_labels))
    return unit, Mix(other_labels, torch.full((len(images),), weight, dtype=torch.float32, device=images.device))


def mixup(images: Tensor, partner: Tensor, weight: float) -> Tensor:
    """Return ``weight * x_i + (1 - weight) * x_partner(i)`` for float images [B, C, H, W] (Zhang et al., ICLR 2018)."""
    return images.mul(weight).add_(images.index_select(0, partner), alpha=1 - weight)


def remix_weights(weight: float, first: Tensor, other: Tensor, kappa: float, tau: float) -> Tensor:
    """Return the weight of the first label of each image, float32 [B] (Remix, Chou et al., ECCV 2020 workshop, eq. 10).

    An image of a large and a small class gets the label of the small one alone, unless its share of the image is small:
    0 where n_first / n_other >= kappa and weight < tau, 1 where n_first / n_other <= 1 / kappa and 1 - weight < tau,
    else the weight.

    Args:
        weight: weight of the first images, in [0, 1].
        first, other: training images of the classes of both labels, [B].
        kappa: ratio of counts from which classes differ, at least 1; 3 in the paper.
        tau: share of an image below which its label may be dropped; 0.5 in the paper.
    """
    weights = torch.full(first.shape, weight, dtype=torch.float32, device=first.device)
    if 1 - weight < tau:
        weights = weights.masked_fill(kappa * first <= other, 1.0)
    if weight < tau:
        weights = weights.masked_fill(first >= kappa * other, 0.0)
    return weights


def cutmix(images: Tensor, partner: Tensor, weight: float, centre: np.ndarray) -> tuple[Tensor, float]:
    """Paste a box of the partner (Yun et al., ICCV 2019, eq. 1-2).

    The box has sides ``int(W * sqrt(1 - weight))`` and ``int(H * sqrt(1 - weight))`` around a uniformly sampled pixel,
    and is clipped at the border. The returned weight is the share of pixels outside the clipped box, as in the paper's
    code; the paper's text uses the sampled weight.

    Args:
        images: float [B, C, H, W].
        partner: int64 [B], index of each image's partner.
        weight: sampled weight of the first image, in [0, 1].
        centre: centre of the box as fractions of height and width, two numbers in [0, 1).
    """
    height, width = images.shape[2:]
    side = math.sqrt(1 - weight)
    (top, bottom), (left, right) = (
        _clip(int(share * length), int(length * side), length) for share, length in zip(centre, (height, width))
    )
    mixed = images.clone()
    box = images[:, :, top:bottom, left:right]
    mixed[:, :, top:bottom, left:right] = box.index_select(0, partner)
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _clip(centre: int, side: int, length: int) -> tuple[int, int]:
    return max(centre - side // 2, 0), min(centre + side // 2, length)
