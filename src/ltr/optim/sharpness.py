"""Sharpness-aware minimisation: the gradient is taken at perturbed weights (SAM, ASAM, ImbSAM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ltr.configuration.ranges import Positive, PositiveInt, check_option
from ltr.identity import named

BatchNorm = Literal["both", "first"]
_TINY = 1e-12  # keeps the perturbation finite where the gradient is zero; davda54/sam's


@torch.no_grad()
def perturbations(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], rho: float, adaptive: bool = False
) -> list[Tensor]:
    """Return the ascent step of each parameter: rho g / |g|, or rho w^2 g / |w g| where ``adaptive``.

    Norms are over all parameters together (Foret et al., ICLR 2021, eq. 2; Kwon et al., ICML 2021, eq. 4 with
    T_w = |w|).

    Args:
        gradients: gradients of the loss, in the order of ``parameters``.
        rho: length of the step, above 0.
    """
    scaled = torch._foreach_mul(list(parameters), list(gradients)) if adaptive else list(gradients)
    norm = torch.nn.utils.get_total_norm(scaled)
    steps = torch._foreach_mul(list(parameters), scaled) if adaptive else scaled
    return list(torch._foreach_mul(steps, rho / (norm + _TINY)))


@named("sharpness/sam")
class SAM:
    """SAM: each step's gradient is taken at w + rho g / |g| (Foret et al., ICLR 2021).

    A step has two forward and two backward passes. In several processes each perturbs by the gradient of its own
    images, as the paper's code does.

    Args:
        rho: length of the ascent step; Rangwani et al. (NeurIPS 2022) take 0.1 to 0.8 on CIFAR-LT.
        adaptive: True scales each weight's step by the weight (ASAM, Kwon et al., ICML 2021), with ten times the rho.
        batch_norm: passes that update the running statistics of batch normalisation: `both`, as in the code of Rangwani
            et al. and of ImbSAM, or the `first` only, as in davda54/sam's example.
    """

    def __init__(self, *, rho: Positive = 0.05, adaptive: bool = False, batch_norm: BatchNorm = "both") -> None:
        self.rho = check_option("sharpness.rho", rho, Positive)
        self.adaptive = adaptive
        self.batch_norm = check_option("sharpness.batch_norm", batch_norm, BatchNorm)

    def tail_factors(self, class_counts: Sequence[int]) -> np.ndarray | None:
        """Return the factor of each class's images in the perturbed loss, float32 [C]; None: all images, factor 1."""
        return None


@named("sharpness/imbsam")
class ImbSAM(SAM):
    """ImbSAM: SAM for the tail classes only (Zhou et al., ICCV 2023).

    The gradient is that of the other classes' losses at w plus that of the tail's losses at w + rho g / |g|, with g the
    gradient of the tail's losses.

    Args:
        eta: a class with fewer training images belongs to the tail.
        tail_weight: factor of the tail's losses: 2 in the authors' code, 1 in the paper.
    """

    def __init__(
        self,
        *,
        rho: Positive = 0.05,
        adaptive: bool = False,
        batch_norm: BatchNorm = "both",
        eta: PositiveInt = 20,
        tail_weight: Positive = 2.0,
    ) -> None:
        super().__init__(rho=rho, adaptive=adaptive, batch_norm=batch_norm)
        self.eta = check_option("sharpness.eta", eta, PositiveInt)
        self.tail_weight = check_option("sharpness.tail_weight", tail_weight, Positive)

    def tail_factors(self, class_counts: Sequence[int]) -> np.ndarray:
        return np.where(np.asarray(class_counts) < self.eta, self.tail_weight, 0.0).astype(np.float32)
