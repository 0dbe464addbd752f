"""Standardisation of features: zero mean and unit variance over the training images, stored with the network."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Standardization(nn.Module):
    """Layer that subtracts the mean of features [B, D] or [B, N, D] and divides by their standard deviation.

    It is the identity before `fit`. Mean and standard deviation are buffers, so that a checkpoint holds them. Constant
    features become zero.

    Args:
        num_features: width D.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("factor", torch.ones(num_features))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Compute mean and standard deviation of batches of features, float32 [b, D], with sums in float64."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        shift: Tensor | None = None  # close to the mean, so that squares lose no digits
        for batch in batches:
            wide = batch.double()
            shift = wide.mean(0) if shift is None else shift
            centred = wide - shift
            count += len(wide)
            total, squares = total + centred.sum(0), squares + centred.square().sum(0)
        assert shift is not None
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        usual = deviation.mean().clamp_min(torch.finfo(torch.float32).tiny)
        self.mean.copy_(shift + mean)
        self.factor.copy_(torch.where(deviation > 1e-6 * usual, 1 / deviation, torch.zeros_like(deviation)))

    def forward(self, features: Tensor) -> Tensor:
        return (features.float() - self.mean) * self.factor
