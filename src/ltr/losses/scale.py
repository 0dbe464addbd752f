"""Numbers far from 1 brought near it by a power of two, so that their squares neither overflow nor vanish."""

from __future__ import annotations

import torch
from torch import Tensor

_ORDINARY = 30  # exponents from -30 to 30 are left as they are, to the bit
_LARGEST = 1000  # exponent of a power of two that float64 holds, with room


def near_one(values: Tensor, dtype: torch.dtype, *, grow: bool = True, target: int = 0) -> Tensor:
    """Return ``values`` times a power of two that brings the largest near 1, if it is not in 2^-30..2^30 already.

    It is meant for what does not depend on the scale. Nothing here waits for the device.

    Args:
        values: any shape, any float type; of a batch without a number above the type's smallest normal one nothing is
            left but zeros, whose gradient is 0.
        dtype: of the result.
        grow: False leaves small numbers as they are.
        target: exponent of the power of two that the largest comes near.
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
