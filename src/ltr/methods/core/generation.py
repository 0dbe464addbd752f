"""Gradient descent on images: steps along the input gradient of an objective, with frozen networks.

M2m (Kim, Jeong, Shin, CVPR 2020) and the training on non-robust features (Ilyas et al., NeurIPS 2019) normalise the
gradient of each image, so that every step has the same length, and clip pixels to [0, 1].
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
_TINY = 1e-10  # as in M2m's code: an image with a zero gradient does not change


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Put modules in eval mode and disable gradients of their parameters; restore both on exit.

    Eval mode keeps BatchNorm statistics and makes an image's gradient independent of the others in its batch. Without
    parameter gradients, autograd stores fewer activations.
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
    """Minimise an objective for each image by steps of fixed Euclidean length.

    x <- clip(x - step_size * g / (||g|| + 1e-10)), where g is the gradient of the image's objective. Autocast is
    disabled, because a gradient in half precision may underflow before it is normalised.

    Args:
        objective: function from images to one number per image; only gradients with respect to pixels are computed.
        start: pixels in [0, 1], float32 [K, C, H, W].
        steps: T >= 0.
        step_size: eta, in pixel units.
        radius: largest Euclidean distance of each image from ``start``; None for no limit.

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
                moved = start + clip_norm(moved - start, radius)
            images = moved.clamp_(0, 1)
    return images.detach()


def towards(network: Network, target: Tensor) -> Objective:
    """Return an objective: the cross-entropy of each image with its target class, int64 [K]."""
    return lambda images: F.cross_entropy(network(images).float(), target, reduction="none")


def towards_and_away(generator: Network, trained: Network, target: Tensor, source: Tensor, lam: float) -> Objective:
    """Return M2m's objective, L(g; x, k) + lam * f_k0(x): the target's loss plus the logit of the seed's class.

    Args:
        generator: g.
        trained: f; not called if ``lam`` is 0.
        target, source: k and k0, int64 [K].
        lam: lambda >= 0.
    """
    target_loss = towards(generator, target)
    if lam == 0:
        return target_loss
    return lambda images: target_loss(images) + lam * trained(images).float().gather(1, source[:, None])[:, 0]


def norms(images: Tensor) -> Tensor:
    """Return the Euclidean norms [K] of images [K, C, H, W]."""
    return torch.linalg.vector_norm(images, dim=_AXES)


def clip_norm(change: Tensor, radius: float) -> Tensor:
    """Scale each image's change [K, C, H, W] to at most ``radius`` in Euclidean norm."""
    length = torch.linalg.vector_norm(change, dim=_AXES, keepdim=True)
    return change * (radius / length.clamp_min(radius))


def limit_noise(noise: Tensor, radius: float, *, whole_batch: bool) -> Tensor:
    """Scale noise to at most ``radius`` in Euclidean norm, as M2m does before it adds noise to seeds.

    Args:
        noise: uniform in [-0.5, 0.5), [K, C, H, W].
        radius: largest norm.
        whole_batch: as in the official code, limit each colour channel's norm over the whole batch, so that noise per
            image shrinks with the batch size. False limits each image's norm.
    """
    return noise.renorm(2, 1, radius) if whole_batch else clip_norm(noise, radius)


def move_by(images: Tensor, direction: Tensor, length: Tensor) -> Tensor:
    """Move images along directions so that after clipping to [0, 1] they have moved by Euclidean distances [K].

    If clipping makes the distance unreachable, the image moves less.
    """
    factor = length / norms(direction)
    moved = images
    for _ in range(10):  # clipping shortens the move: lengthen it and try again
        moved = (images + factor.view(-1, 1, 1, 1) * direction).clamp_(0, 1)
        factor = factor * length / norms(moved - images).clamp_min(_TINY)
    return moved
