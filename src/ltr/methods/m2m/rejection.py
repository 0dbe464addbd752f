"""M2m's rejection rule: the generated images that enter the batch, by g's confidence and by chance."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def acceptance(source_counts: np.ndarray, target_counts: np.ndarray, beta: float) -> np.ndarray:
    """Compute 1 - beta^(N_k0 - N_k)+, the probability to accept a seed of class k0 for class k; float64, broadcast.

    It is 0 if class k0 is not larger, and approaches 1 as the gap grows. M2m samples seeds in proportion to it and
    accepts generated images with it: Q proportional to P maximises E_Q[log P] + H(Q) (section 3.2 of the paper).
    """
    gap = np.maximum(np.asarray(source_counts, dtype=np.float64) - target_counts, 0.0)
    return 1.0 - np.power(float(beta), gap)  # 0^0 is 1: no gap, no acceptance, for beta = 0 too


def is_confident(losses: Tensor, gamma: float, accept_on: str) -> Tensor:
    """Return whether g is confident in generated images, bool [K].

    Args:
        losses: cross-entropy of each image with its target class under g, [K].
        gamma: smallest probability of the target (``accept_on=prob``) or largest loss (``loss``).
    """
    return losses <= gamma if accept_on == "loss" else (-losses).exp() >= gamma


def accepted(confident: Tensor, chance: Tensor, rejection: str) -> Tensor:
    """Return the images that pass the tests of ``rejection``, bool [K].

    Args:
        confident: see `is_confident`, bool [K].
        chance: True with probability `acceptance`, bool [K].
        rejection: ``both``, ``confidence``, ``chance`` or ``none``.
    """
    passed = torch.ones_like(confident)
    if rejection in ("both", "confidence"):
        passed &= confident
    return passed & chance if rejection in ("both", "chance") else passed
