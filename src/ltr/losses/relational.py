"""Relational knowledge distillation (RKD; Park et al., CVPR 2019): distances and angles between embeddings.

Both losses compare a batch of student embeddings [N, D_s] with the teacher's [N, D_t] of the same images; the widths
may differ, for only relations inside a batch are compared. The teacher is a constant: no gradient flows into it.

Distances come from a Gram matrix in float64, and an angle from three squared distances by the law of cosines, so that
no tensor larger than N x N holds gradients and none has N x N x D entries. Under autocast the rest is float32. Two
embeddings nearer to each other than a millionth of their norms count as one point: their distance is 0, an angle with
them is 0 (as in the official code, where a zero vector stays zero), and no gradient flows through either. Neither loss
depends on the scale of embeddings; both and their gradients are finite for any finite numbers.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ltr.errors import ConfigError
from ltr.losses.scale import near_one

Reduction = Literal["all", "valid"]
REDUCTIONS = ("all", "valid")
_SAME_POINT = 1e-12  # squared distance over squared norms, below which two embeddings are one point
_VANISHING = 2.0**-100  # squared distance over the largest of the batch, below which there is none
_CHUNK = 1 << 18  # angles that are looked at together: a megabyte, which caches hold


def rkd_distance(student: Tensor, teacher: Tensor, reduction: Reduction = "all") -> Tensor:
    """RKD-D (equations 4 to 6): Huber's loss between the distances of pairs, each over the batch's mean distance.

    The student's mean is part of its gradient, as in the official code. Its mean runs over all ordered pairs of
    different images; the official one leaves out those whose distance is 0, which it never is there (1e-6 at least).

    Args:
        student, teacher: [N, D], any float type.
        reduction: ``all``, the official one, divides by the N^2 entries, of which the diagonal's are 0, so that the
            loss is (N - 1) / N of a mean over pairs; ``valid`` is that mean.

    Returns:
        A scalar, 0 for a single image.
    """
    check_reduction(reduction)
    with torch.autocast(student.device.type, enabled=False):
        ours, theirs = _relative_distances(student), _relative_distances(teacher.detach())
        total = functional.huber_loss(ours, theirs.to(ours.dtype), reduction="sum")
    images = len(student)
    return total / (images**2 if reduction == "all" else max(images * (images - 1), 1))


def rkd_angle(student: Tensor, teacher: Tensor, reduction: Reduction = "all") -> Tensor:
    """RKD-A (equations 7 to 9): Huber's loss between the cosines of the angles of triples.

    The angle at j between i and k is compared for all ordered triples (i, j, k). It has a derivative of first order
    only.

    Args:
        student, teacher: [N, D], any float type.
        reduction: ``all``, the official one, divides by the N^3 entries, of which those with equal indices are 0, so
            that the loss is (N - 1)(N - 2) / N^2 of a mean over triples of three images (0.82 at N = 16, 0.98 at 128);
            ``valid`` is that mean.

    Returns:
        A scalar, 0 for fewer than three images.
    """
    check_reduction(reduction)
    with torch.autocast(student.device.type, enabled=False):
        ours, theirs = _relative_squares(student), _relative_squares(teacher.detach())
        total: Tensor = _AngleLoss.apply(ours, theirs, _wide(student), reduction == "valid")
    images = len(student)
    return total / (images**3 if reduction == "all" else max(images * (images - 1) * (images - 2), 1))


def squared_distances(embeddings: Tensor) -> Tensor:
    """Squared Euclidean distances [N, N] in float64 (float32 on devices without it); exactly 0 for one point."""
    points = embeddings.to(_precise(embeddings))
    points = points - points.detach().mean(0)  # moves nothing but the rounding errors
    gram = points @ points.T
    norms = gram.diagonal()
    sums = norms[:, None] + norms[None]
    squares = sums - 2 * gram
    return torch.where(squares > _SAME_POINT * sums, squares, 0.0)


def _relative_squares(embeddings: Tensor) -> Tensor:
    """Squared distances [N, N] in float64, but for a common factor where they are far from 1.

    Losses here do not depend on it. A distance that is vanishing beside the largest counts as none.
    """
    squares = squared_distances(near_one(embeddings, _precise(embeddings)))
    if not squares.numel():
        return squares
    return torch.where(squares > _VANISHING * squares.detach().amax(), squares, 0.0)


def _precise(embeddings: Tensor) -> torch.dtype:
    return torch.float64 if embeddings.device.type != "mps" else torch.float32


def check_reduction(reduction: str) -> None:
    """A ConfigError for a reduction that does not exist."""
    if reduction not in REDUCTIONS:
        raise ConfigError(f"reduction={reduction}: allowed is one of {', '.join(REDUCTIONS)}")


def _relative_distances(embeddings: Tensor) -> Tensor:
    """Distances [N, N] over their mean, in float32 or better; zeros where there is no distance."""
    squares = _relative_squares(embeddings)
    apart = squares > 0
    # two steps: the root's derivative at 0 is infinite, and infinity times 0 is not a number
    distances = torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)
    images = len(embeddings)
    mean = distances.sum() / max(images * (images - 1), 1)
    return (distances / torch.where(mean > 0, mean, 1.0)).to(_wide(embeddings))


class _AngleLoss(torch.autograd.Function):
    """Sum of Huber's losses over all triples, from squared distances [N, N]; the gradient is made on the way."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, dtype: torch.dtype, distinct: bool) -> Tensor:
        images = len(student)
        wants_gradient = ctx.needs_input_grad[0]
        ours, theirs = student.to(dtype), teacher.to(dtype)
        our_inverse, their_inverse = _inverse_distances(student).to(dtype), _inverse_distances(teacher).to(dtype)
        total = ours.new_zeros(())
        gradient = torch.zeros_like(ours)
        at_once = max(1, _CHUNK // max(images**2, 1))
        for start in range(0, images, at_once):
            vertices = slice(start, start + at_once)
            cosines = _cosines(ours, our_inverse, vertices)
            excess = cosines - _cosines(theirs, their_inverse, vertices)  # [V, N, N]
            if distinct:
                excess.diagonal(dim1=1, dim2=2).zero_()
            slope = excess.clamp(-1, 1)  # Huber's derivative; and its loss is slope * (excess - slope / 2)
            total += torch.dot(slope.flatten(), excess.sub_(slope, alpha=0.5).flatten())
            if wants_gradient:
                inverse = our_inverse[vertices]
                by_cosine = torch.einsum("vik,vik->vi", slope, cosines)
                by_inverse = torch.bmm(slope, inverse[:, :, None])[:, :, 0]
                # an arm's length enters two cosines of each pair, above and below the fraction
                gradient[vertices] += inverse * by_inverse - inverse.square() * by_cosine
                # and the side opposite to the vertex one, with a minus; it is scaled by both inverse lengths
                gradient -= 0.5 * torch.einsum("vik,vi,vk->ik", slope, inverse, inverse)
        ctx.save_for_backward(gradient.to(student.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad_output.to(gradient.dtype) * gradient, None, None, None


def _inverse_distances(squares: Tensor) -> Tensor:
    """1 / distance, and 0 where there is none."""
    return torch.where(squares > 0, squares, torch.inf).rsqrt()


def _cosines(squares: Tensor, inverse: Tensor, vertices: slice) -> Tensor:
    """Cosines [V, N, N] of the angles at these vertices: (a^2 + b^2 - c^2) / 2ab; 0 where an arm has no length."""
    arms, inverse_arms = squares[vertices], inverse[vertices]
    found = arms[:, :, None] + arms[:, None, :]
    found -= squares
    found *= (0.5 * inverse_arms)[:, :, None]
    found *= inverse_arms[:, None, :]
    return found


def _wide(embeddings: Tensor) -> torch.dtype:
    return torch.float32 if embeddings.element_size() < 4 else embeddings.dtype
