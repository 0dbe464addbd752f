"""Images made by gradients: a start image is moved along the input gradient of an objective, the networks stay as is.

M2m (Kim, Jeong, Shin, CVPR 2020) and the training on non-robust features (Ilyas et al., NeurIPS 2019) both take
steps of fixed length along the gradient's direction, image by image, and stay inside [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = Callable[[Tensor], Tensor]  # pixels in [0, 1], [K, C, H, W] -> logits [K, classes]
Objective = Callable[[Tensor], Tensor]  # pixels in [0, 1], [K, C, H, W] -> one number per image, [K]

_AXES = (1, 2, 3)
_TINY = 1e-10  # as in M2m's code: a gradient of 0 moves nothing


@contextmanager
def untouched(*modules: nn.Module) -> Iterator[None]:
    """Modules in eval mode and their parameters without gradients; afterwards everything is as it was.

    Eval mode keeps BatchNorm statistics and makes an image's gradient independent of the others in its batch. Without
    parameter gradients a forward pass need not keep what only they would need.
    """
    parts = [(part, part.training) for module in modules for part in module.modules()]
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    for part, _ in parts:
        part.training = False
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for part, training in parts:
            part.training = training
        for parameter in trained:
            parameter.requires_grad_(True)


def translate(
    objective: Objective, start: Tensor, *, steps: int, step_size: float, radius: float | None = None
) -> Tensor:
    """Descend an objective in steps of fixed Euclidean length; each image by itself.

    x <- clip(x - step_size * g / (||g|| + 1e-10)), with g the gradient of the image's own objective. Computed in
    float32 also under autocast: a gradient of half precision may underflow before it is normalised.

    Args:
        objective: its sum over the images is differentiated with respect to the pixels alone, so that no gradient of
            a network's weights is computed, let alone accumulated.
        start: pixels in [0, 1], float32 [K, C, H, W].
        steps: T >= 0.
        step_size: eta, in pixel units.
        radius: largest Euclidean distance from ``start`` of each image; None for any.

    Returns:
        Pixels in [0, 1], float32 [K, C, H, W], detached. The memory format is that of ``start``.
    """
    start = start.detach()
    images = start
    with torch.autocast(start.device.type, enabled=False):
        for _ in range(steps):
            with torch.enable_grad():
                images.requires_grad_(True)
                (gradient,) = torch.autograd.grad(objective(images).sum(), images)
            images.requires_grad_(False)
            length = torch.linalg.vector_norm(gradient, dim=_AXES, keepdim=True)
            moved = images - gradient.mul_(step_size / (length + _TINY))
            if radius is not None:
                moved = start + shortened(moved - start, radius)
            images = moved.clamp_(0, 1)
    return images.detach()


def towards(network: Network, target: Tensor) -> Objective:
    """Return the cross-entropy of the classes ``target`` int64 [K]: descending it moves images towards them."""
    return lambda images: F.cross_entropy(network(images).float(), target, reduction="none")


def towards_and_away(generator: Network, trained: Network, target: Tensor, source: Tensor, lam: float) -> Objective:
    """M2m's objective, L(g; x, k) + lam * f_k0(x): towards k, and away from the seed's class by its logit.

    Args:
        generator: g.
        trained: f; not called where ``lam`` is 0.
        target, source: k and k0, int64 [K].
        lam: lambda >= 0.
    """
    reach = towards(generator, target)
    if lam == 0:
        return reach
    return lambda images: reach(images) + lam * trained(images).float().gather(1, source[:, None])[:, 0]


def norms(images: Tensor) -> Tensor:
    """Return Euclidean length [K] of each of [K, C, H, W]."""
    return torch.linalg.vector_norm(images, dim=_AXES)


def shortened(change: Tensor, radius: float) -> Tensor:
    """Shorten each of [K, C, H, W] to Euclidean length ``radius`` if it is longer."""
    length = torch.linalg.vector_norm(change, dim=_AXES, keepdim=True)
    return change * (radius / length.clamp_min(radius))


def limited(noise: Tensor, radius: float, *, whole_batch: bool) -> Tensor:
    """Noise as M2m adds it to a seed before its first step.

    Args:
        noise: uniform in [-0.5, 0.5), [K, C, H, W].
        radius: of the limit.
        whole_batch: the official code's way: the limit is on each colour channel's length over the whole batch, so
            that an image's noise is shorter the more images there are. Otherwise it is on each image's length.
    """
    return noise.renorm(2, 1, radius) if whole_batch else shortened(noise, radius)


def moved_by(images: Tensor, direction: Tensor, length: Tensor) -> Tensor:
    """Move images along directions by Euclidean distances [K] that hold after clipping to [0, 1].

    Where clipping makes that impossible (a distance of the order of the image's own size) the distance is shorter.
    """
    factor = length / norms(direction)
    moved = images
    for _ in range(10):  # clipping takes length away: lengthen until it does not
        moved = (images + factor.view(-1, 1, 1, 1) * direction).clamp_(0, 1)
        factor = factor * length / norms(moved - images).clamp_min(_TINY)
    return moved
