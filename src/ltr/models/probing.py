"""Dry runs that check a network against an image size before training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltr.models.backbones import dry_run, eval_mode

ImageShape = tuple[int, int, int]
_NEAR = 4  # steps of the search in either direction
# common input sizes, which messages propose
_USUAL_SIDES = (32, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)


@dataclass
class ProbeResult:
    """Problems that a forward pass of one image reveals.

    Attributes:
        single_values: names of batch normalisation layers in training mode with a single value per channel.
        cut: patch size of each patch layer, by name, whose patch size does not divide its input.
    """

    single_values: list[str] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)


def probe(network: nn.Module, call: Callable[[Tensor], Any], image_shape: ImageShape, rows: int = 1) -> ProbeResult:
    """Pass one blank image through a network in eval mode, on meta tensors if the network supports them.

    Args:
        network: network in the modes (training or eval) in which it will be trained; they are restored.
        call: function of images [1, C, H, W] that runs the network.
        image_shape: (C, H, W).
        rows: number of rows that each image adds to a training batch.

    Raises:
        Exception: any error that the network raises for such images.
    """
    norms = {
        name: part
        for name, part in network.named_modules()
        if isinstance(part, _BatchNorm) and uses_batch_statistics(part)
    }
    patches = {
        name: part for name, part in network.named_modules() if isinstance(part, nn.Conv2d) and _cuts_patches(part)
    }
    single_values: dict[str, None] = {}
    cut_patches: dict[str, int] = {}

    def norm_hook(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs[0].numel() // inputs[0].shape[1] * rows == 1:
                single_values[name] = None

        return hook

    def patch_hook(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            side = int(module.stride[0])  # type: ignore[index]
            if inputs[0].shape[-1] % side or inputs[0].shape[-2] % side:
                cut_patches[name] = side

        return hook

    hooks = [part.register_forward_pre_hook(norm_hook(name)) for name, part in norms.items()]
    hooks += [part.register_forward_pre_hook(patch_hook(name)) for name, part in patches.items()]
    try:
        dry_run(network, call, image_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return ProbeResult(list(single_values), cut_patches)


def uses_batch_statistics(norm: _BatchNorm) -> bool:
    """Return whether the layer normalises by batch statistics in training."""
    return norm.training or norm.running_mean is None


def _cuts_patches(convolution: nn.Conv2d) -> bool:
    """Return whether the convolution cuts its input into patches, so that it ignores a remainder at the border."""
    side = convolution.stride[0]
    return side > 1 and convolution.kernel_size == convolution.stride == (side, side) and convolution.padding == (0, 0)


def nearest_sides(side: int, takes: Callable[[int], bool], multiples_of: int | None = None) -> str:
    """Return the nearest accepted sides below and above a side, as text for a message; empty if none is known.

    Args:
        side: side in pixels that the network does not accept.
        takes: function that returns whether the network accepts square images of a side.
        multiples_of: restricts the search to multiples of this number; None: nearby and common sides.
    """
    steps = (multiples_of,) if multiples_of else (2, 8)
    near = {side // step * step + number * step for step in steps for number in range(-_NEAR, _NEAR + 2)}
    candidates = sorted(other for other in near | (set() if multiples_of else set(_USUAL_SIDES)) if other > 0)
    above = next((other for other in candidates if other > side and takes(other)), None)
    below = next((other for other in reversed(candidates) if other < side and takes(other)), None)
    return " or ".join(str(other) for other in (below, above) if other is not None)


def ignored_share(backbone: nn.Module, image_shape: ImageShape) -> float:
    """Return the share of an image's pixels, in rows and columns at its borders, on which no feature depends.

    It is measured by the gradient of one random image under the current weights of the backbone.
    """
    pixels = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with eval_mode(backbone), torch.enable_grad():
        features = backbone(pixels)
        weights = torch.rand(features.shape, generator=torch.Generator().manual_seed(1)) - 0.5
        (gradient,) = torch.autograd.grad((features * weights).sum(), pixels)
    is_used = gradient[0].abs().sum(0) > 0
    rows, columns = is_used.any(1).nonzero(), is_used.any(0).nonzero()
    if not len(rows):  # all gradients are zero, which tells nothing
        return 0.0
    used = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
    return 1 - used / math.prod(image_shape[1:])
