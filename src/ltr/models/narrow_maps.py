"""Strided convolutions of maps that are narrower than their stride, in bf16 on a CPU.

torch (2.9 to 2.15) computes the weight gradient of such a convolution from memory that nothing has written: it is
anything, NaN or a plausible number. An ImageNet network meets it on images of 16 pixels and fewer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn


def guard_narrow_maps(network: nn.Module) -> None:
    """Make the strided convolutions of ``network`` compute in fp32 where bf16 on a CPU gives wrong weight gradients.

    That is where the map is narrower than the stride; everywhere else nothing changes. Guarding twice does no more
    than guarding once.
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
