"""Loss terms of HERBS (Chou, Kao and Lin, arXiv 2303.06442) and PIM beside the loss of the merged output.

Each term sums over the levels of a network, given as lists. Logits of locations are [B, N, C] with N locations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ltr.errors import ConfigError
from ltr.losses.distillation import kl_to_teacher
from ltr.losses.functional import at_least_float32, cross_entropy

REFINEMENTS = ("sum_over_classes", "mean_over_classes")
PAPER_EPOCHS = 80  # length of the paper's schedule, in whose epochs periods of the temperature are counted
_FLOOR = 0.0625  # constant of the paper's formula for the period

Mixed = tuple[Tensor, Tensor]


def layer_loss(logits: Sequence[Tensor], labels: Tensor, mix: Mixed | None = None) -> Tensor:
    """Return the cross-entropy of each level's image-wise logits [B, C], averaged over images, summed over levels.

    Args:
        logits: logits of each level, the mean over its locations.
        labels: int64 [B].
        mix: second labels and the weight of the first, see `ltr.losses.base.ClassificationLoss.per_image`.
    """
    return torch.stack([_cross_entropy(level_logits, labels, mix) for level_logits in logits]).sum()


def dropped_loss(logits: Sequence[Tensor], dropped: Sequence[Tensor]) -> Tensor:
    """Return the mean of (tanh(z) + 1)^2 over dropped locations, images and classes, summed over levels.

    The term drives all logits z of locations that were not selected towards minus infinity.

    Args:
        logits: [B, N, C] of each level.
        dropped: bool [B, N] of each level, the same number for each image. A level without dropped locations adds 0.
    """
    terms = []
    for z, rows in zip(logits, dropped, strict=True):
        per_location = (torch.tanh(at_least_float32(z)) + 1).square().mean(2)
        terms.append((per_location * rows).sum() / rows.sum().clamp_min(1))
    return torch.stack(terms).sum()


def dropped_tanh(logits: Sequence[Tensor], dropped: Sequence[Tensor], *, each_image: bool = False) -> Tensor:
    """Return the mean of tanh over the dropped locations, averaged over levels: near -1 if suppression has worked.

    Args:
        logits, dropped: see `dropped_loss`. Levels without dropped locations are excluded; NaN without any level.
        each_image: return a mean for each image [B], instead of their mean.
    """
    means = [
        (torch.tanh(at_least_float32(z)).mean(2) * rows).sum(1) / rows.sum(1)
        for z, rows in zip(logits, dropped, strict=True)
    ]
    image_means = torch.stack(means).nanmean(0)
    return image_means if each_image else image_means.mean()


def refinement_loss(
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    temperature: float,
    reduction: str = "sum_over_classes",
) -> Tensor:
    """Return KL(softmax(teacher / T) || softmax(student / T)) of locations, without a factor T^2, summed over levels.

    No gradient flows into the teachers.

    Args:
        students, teachers: [B, N, C] of each level, with the same N.
        temperature: T > 0.
        reduction: ``sum_over_classes`` sums over the classes and averages over images and locations, the paper's.
            ``mean_over_classes`` averages over the classes as well: the released code, whose criterion has PyTorch's
            default reduction and so is smaller by the number of classes.

    Raises:
        ConfigError: another reduction.
    """
    if reduction not in REFINEMENTS:
        raise ConfigError(f"method.refinement_reduction={reduction}: allowed are {', '.join(REFINEMENTS)}")
    terms = [
        kl_to_teacher(student, teacher.detach(), temperature).mean()
        for student, teacher in zip(students, teachers, strict=True)
    ]
    total = torch.stack(terms).sum() / temperature**2
    return total / students[0].shape[-1] if reduction == "mean_over_classes" else total


def temperature_at(epoch: int, epochs: int, initial: float, period: float | None = None) -> float:
    """Return the temperature T_e = T0 * 0.5^floor(e / period), a function of the epoch only.

    Args:
        epoch: e, from 0.
        epochs: epochs of the run. The period is in epochs of a run of 80 and scales with it.
        initial: T0 > 0.
        period: epochs between two halvings; None is the paper's formula, -log2(0.0625 / T0): 10 for T0 = 64, 11 for
            128. The released code has 10 whatever T0 is.
    """
    period = paper_period(initial) if period is None else period
    return initial * 0.5 ** math.floor(epoch * PAPER_EPOCHS / (epochs * period))


def paper_period(initial: float) -> float:
    """Return the epochs between two halvings by the paper's formula, at least 1 (also for T0 < 0.125)."""
    return max(1.0, -math.log2(_FLOOR / initial))


def _cross_entropy(logits: Tensor, labels: Tensor, mix: Mixed | None) -> Tensor:
    losses = cross_entropy(logits, labels)
    if mix is not None:
        losses = mix[1] * losses + (1 - mix[1]) * cross_entropy(logits, mix[0])
    return losses.mean()
