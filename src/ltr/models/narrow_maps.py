"""Workaround for strided convolutions in bf16 on a CPU whose input is narrower than their stride.

torch (2.9 to 2.15) computes the weight gradient of such a convolution from uninitialised memory: it may be NaN or a
plausible number. ImageNet networks meet this case on images of 16 pixels and below.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn


def guard_narrow_maps(network: nn.Module) -> None:
    """Make the strided convolutions of ``network`` compute in fp32 if bf16 on a CPU gives wrong weight gradients.

    This is the case if the map is narrower than the stride; otherwise nothing changes. The function is idempotent.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _may_be_wrong(module) and "forward" not in vars(module):
            module.forward = functools.partial(_forward, module.forward, module.stride[1])  # type: ignore[method-assign]


def _may_be_wrong(convolution: nn.Conv2d) -> bool:
    return convolution.stride[1] > 1 and convolution.kernel_size[1] > 1


def _forward(convolve: Callable[[Tensor], Tensor], stride: int, images: Tensor) -> Tensor:
    is_wrong = images.shape[-1] < stride and images.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    if not is_wrong:
        return convolve(images)
    with torch.autocast("cpu", enabled=False):
        return convolve(images.float()).to(torch.get_autocast_dtype("cpu"))
