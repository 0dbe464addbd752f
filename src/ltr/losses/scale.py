"""Rescaling by a power of two, so that the squares of very large or small numbers neither overflow nor vanish."""

from __future__ import annotations

import torch
from torch import Tensor

_ORDINARY = 30  # numbers with exponents from -30 to 30 are not rescaled
_LARGEST = 1000  # largest exponent used in float64, well inside its range


def rescale_near_one(values: Tensor, dtype: torch.dtype, *, grow: bool = True, target: int = 0) -> Tensor:
    """Multiply ``values`` by a power of two that brings the largest magnitude near 1, unless it is in 2^-30..2^30.

    Use it for losses that are independent of scale. It does not synchronise with the device.

    Args:
        values: any shape, any float type. If all magnitudes are below the type's smallest normal number and ``grow`` is
            set, the result and its gradient are 0.
        dtype: type of the result.
        grow: False leaves small numbers unchanged.
        target: exponent; the largest magnitude becomes about 2^target.

    Returns:
        Tensor of the shape of ``values`` and of type ``dtype``.
    """
    wide = values.to(dtype)
    if not values.numel():
        return wide
    peak = values.detach().abs().amax()
    exponent = torch.frexp(peak.to(dtype))[1]
    ordinary = (exponent <= _ORDINARY) & ((exponent >= -_ORDINARY) if grow else True)
    power = torch.where(ordinary, 0, target - exponent.clamp(-_limit(dtype), _limit(dtype)))
    factor = torch.ldexp(torch.ones((), dtype=dtype, device=wide.device), power)
    if grow:
        factor = torch.where(peak < torch.finfo(values.dtype).tiny, 0.0, factor)
    return wide * factor


def _limit(dtype: torch.dtype) -> int:
    return _LARGEST if dtype == torch.float64 else 120
