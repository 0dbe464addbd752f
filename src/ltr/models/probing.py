"""What a network would make of images of a size, found out on one blank image before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltr.models.backbones import dry_run

ImageShape = tuple[int, int, int]
# sides that networks are usually built for: what a message proposes is one of them
_NEAR = 4  # steps to either side
_USUAL_SIDES = (32, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)


@dataclass
class Seen:
    """What a pass of one image has shown.

    Attributes:
        single_values: batch normalisation in training mode that sees one value of each channel, by name.
        cut: patches whose side does not divide the map that they are cut from, by name of the layer.
    """

    single_values: list[str] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)


def probe(network: nn.Module, call: Callable[[Tensor], Any], image_shape: ImageShape, rows: int = 1) -> Seen:
    """Pass one blank image through a network in evaluation mode, on shapes alone where the network allows it.

    Args:
        network: whose modules are looked at, in the modes in which it will be trained; they are left as they are.
        call: images [1, C, H, W] to anything, through these modules.
        image_shape: (C, H, W).
        rows: of a training batch that each image makes.

    Raises:
        Exception: whatever the network raises for such images.
    """
    norms = {name: part for name, part in network.named_modules() if isinstance(part, _BatchNorm) and _counts(part)}
    patches = {name: part for name, part in network.named_modules() if isinstance(part, nn.Conv2d) and _tiles(part)}
    single: dict[str, None] = {}
    cut: dict[str, int] = {}

    def look_at_norm(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs[0].numel() // inputs[0].shape[1] * rows == 1:
                single[name] = None

        return hook

    def look_at_patch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            side = int(module.stride[0])  # type: ignore[index]
            if inputs[0].shape[-1] % side or inputs[0].shape[-2] % side:
                cut[name] = side

        return hook

    hooks = [part.register_forward_pre_hook(look_at_norm(name)) for name, part in norms.items()]
    hooks += [part.register_forward_pre_hook(look_at_patch(name)) for name, part in patches.items()]
    try:
        dry_run(network, call, image_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return Seen(list(single), cut)


def _counts(norm: _BatchNorm) -> bool:
    """Whether it normalises by the statistics of a batch in training."""
    return norm.training or norm.running_mean is None


def _tiles(convolution: nn.Conv2d) -> bool:
    """Whether it cuts a map into patches: what is left over at the border is never looked at."""
    side = convolution.stride[0]
    return side > 1 and convolution.kernel_size == convolution.stride == (side, side) and convolution.padding == (0, 0)


def nearest_sides(side: int, takes: Callable[[int], bool], multiples_of: int | None = None) -> str:
    """The nearest sides below and above that a network takes, for a message; an empty text where none is known.

    Args:
        side: in pixels, that it does not take.
        takes: whether it takes square images of a side.
        multiples_of: look among these; None looks at sides near by, and at the usual ones.
    """
    steps = (multiples_of,) if multiples_of else (2, 8)
    near = {side // step * step + number * step for step in steps for number in range(-_NEAR, _NEAR + 2)}
    candidates = sorted(one for one in near | (set() if multiples_of else set(_USUAL_SIDES)) if one > 0)
    above = next((one for one in candidates if one > side and takes(one)), None)
    below = next((one for one in reversed(candidates) if one < side and takes(one)), None)
    return " or ".join(str(one) for one in (below, above) if one is not None)


def ignored_share(backbone: nn.Module, image_shape: ImageShape) -> float:
    """The share of an image's pixels, in rows and columns at its borders, on which no feature depends.

    It is measured by the gradient of one random image, with the weights that the backbone has.
    """
    pixels = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with _evaluated(backbone), torch.enable_grad():
        features = backbone(pixels)
        weights = torch.rand(features.shape, generator=torch.Generator().manual_seed(1)) - 0.5
        (gradient,) = torch.autograd.grad((features * weights).sum(), pixels)
    looked_at = gradient[0].abs().sum(0) > 0
    rows, columns = looked_at.any(1).nonzero(), looked_at.any(0).nonzero()
    if not len(rows):  # a network without any gradient says nothing of its pixels
        return 0.0
    used = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
    return 1 - used / math.prod(image_shape[1:])


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def first_line(error: BaseException) -> str:
    """The first line of what a library says, in short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
