"""Perturbations of CC-SAM: of parameters by class, and of features by class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_TINY = 1e-12  # keeps a perturbation finite where the gradient is zero


def class_scales(class_counts: Sequence[int]) -> np.ndarray:
    """Return 1 / (sqrt 2 (n - 1)^(1/4)) for each class, float64 [C]: the dependence of its radius on its size.

    A class of one image, for which the expression is infinite, has the scale of one of two images.
    """
    counts = np.maximum(np.asarray(class_counts, dtype=np.float64) - 1, 1)
    return 1 / (math.sqrt(2) * counts**0.25)


@torch.no_grad()
def parameter_steps(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], class_scale: float, radius: float
) -> list[Tensor]:
    """Return the perturbation of each parameter for one class, as the official code computes it.

    That of parameter i is radius * scale * P^(1/4) * sqrt(|w| / |g_i|) * g_i / |g_i|, with the norm |w| of all
    perturbed parameters together, their number P, and the norm of each parameter's own gradient.

    Args:
        parameters: the perturbed parameters.
        gradients: gradients of the mean loss of the class's images, in the same order.
        class_scale: entry of `class_scales`.
        radius: above 0.
    """
    numbers = sum(parameter.numel() for parameter in parameters)
    size = torch.nn.utils.get_total_norm(list(parameters)).sqrt() * (radius * class_scale * numbers**0.25)
    norms = torch._foreach_norm(list(gradients))
    return [size * gradient / (norm + _TINY) ** 1.5 for gradient, norm in zip(gradients, norms, strict=True)]


def class_strengths(class_counts: Sequence[int], divisor: float) -> np.ndarray:
    """Return log(n_max / n + 0.01) / divisor for each class, float64 [C]; rare classes have the larger ones."""
    counts = np.asarray(class_counts, dtype=np.float64)
    return np.log(counts.max() / np.maximum(counts, 1) + 0.01) / divisor


@torch.no_grad()
def feature_steps(gradients: Tensor, labels: Tensor, strengths: Tensor, length: float) -> Tensor:
    """Return the step to adversarial features of each image, [B, D].

    The gradients of a class's images are divided by their norm over all of these images, and multiplied by the length
    and by the class's strength.

    Args:
        gradients: gradient of each image's loss with respect to its features, [B, D].
        labels: int64 [B].
        strengths: [C], see `class_strengths`.
        length: at least 0.
    """
    squares = gradients.new_zeros(len(strengths)).index_add(0, labels, gradients.square().sum(1))
    factors = length * strengths.to(gradients.dtype) / (squares.sqrt() + _TINY)
    return gradients * factors[labels, None]
