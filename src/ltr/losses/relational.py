"""Relational knowledge distillation (RKD; Park et al., CVPR 2019): distances and angles between embeddings.

Both losses compare a batch of student embeddings [N, D_s] with the teacher's [N, D_t] of the same images; the widths
may differ, because only relations inside a batch are compared. No gradient flows into the teacher.

Distances come from a Gram matrix in float64, and an angle from three squared distances by the law of cosines, so that
no tensor larger than N x N holds gradients and none has N x N x D entries. Under autocast the rest is float32. Two
embeddings closer than a millionth of their norms count as one point: their distance is 0, the cosine of an angle with
them is 0 (as in the official code, where a zero vector stays zero), and no gradient flows through either. Both losses
are independent of the scale of the embeddings; the losses and their gradients are finite for any finite embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ltr.configuration.ranges import check_option
from ltr.losses.reductions import RelationalReduction
from ltr.losses.scale import rescale_near_one

_SAME_POINT = 1e-12  # two embeddings are one point below this ratio of squared distance to squared norms
_VANISHING = 2.0**-100  # a squared distance is 0 below this ratio to the largest of the batch
_CHUNK = 1 << 18  # angles per chunk: one megabyte, which fits into the CPU's caches


def rkd_distance(student: Tensor, teacher: Tensor, reduction: RelationalReduction = "all") -> Tensor:
    """Return RKD-D (equations 4 to 6): the Huber loss between pair distances, each divided by the batch's mean.

    Gradients flow through the student's mean distance, as in the official code. The mean covers all ordered pairs of
    different images. The official code would exclude pairs at distance 0, but its floor of 1e-6 excludes none.

    Args:
        student, teacher: [N, D], any float type.
        reduction: ``valid`` is the mean over pairs of different images; ``all``, as in the official code, divides by
            all N^2 entries including the diagonal's zeros and is (N - 1) / N of that mean.

    Returns:
        A scalar, 0 for a single image.
    """
    check_option("reduction", reduction, RelationalReduction)
    with torch.autocast(student.device.type, enabled=False):
        student_distances, teacher_distances = _relative_distances(student), _relative_distances(teacher.detach())
        total = functional.huber_loss(student_distances, teacher_distances.to(student_distances.dtype), reduction="sum")
    images = len(student)
    return total / (images**2 if reduction == "all" else max(images * (images - 1), 1))


def rkd_angle(student: Tensor, teacher: Tensor, reduction: RelationalReduction = "all") -> Tensor:
    """Return RKD-A (equations 7 to 9): the Huber loss between the cosines of the angles of triples.

    It compares the angle at j of all ordered triples (i, j, k). Only first-order derivatives are available.

    Args:
        student, teacher: [N, D], any float type.
        reduction: ``valid`` is the mean over triples of three different images; ``all``, as in the official code,
            divides by all N^3 entries, including the zeros of equal indices, and is (N - 1)(N - 2) / N^2 of that mean
            (0.82 at N = 16, 0.98 at 128).

    Returns:
        A scalar, 0 for fewer than three images.
    """
    check_option("reduction", reduction, RelationalReduction)
    with torch.autocast(student.device.type, enabled=False):
        student_squares, teacher_squares = _relative_squares(student), _relative_squares(teacher.detach())
        dtype = torch.promote_types(student.dtype, torch.float32)
        total: Tensor = _AngleLoss.apply(student_squares, teacher_squares, dtype, reduction == "valid")
    images = len(student)
    return total / (images**3 if reduction == "all" else max(images * (images - 1) * (images - 2), 1))


def squared_distances(embeddings: Tensor) -> Tensor:
    """Return squared Euclidean distances [N, N] in float64 (float32 on MPS); exactly 0 between equal points."""
    points = embeddings.to(_precise_dtype(embeddings))
    points = points - points.detach().mean(0)  # changes rounding errors only
    gram = points @ points.T
    norms = gram.diagonal()
    sums = norms[:, None] + norms[None]
    squares = sums - 2 * gram
    return torch.where(squares > _SAME_POINT * sums, squares, 0.0)


def _relative_squares(embeddings: Tensor) -> Tensor:
    """Return squared distances [N, N] in float64, up to a common factor if they are far from 1.

    The losses are independent of that factor. A distance that is negligible compared with the largest becomes 0.
    """
    squares = squared_distances(rescale_near_one(embeddings, _precise_dtype(embeddings)))
    if not squares.numel():
        return squares
    return torch.where(squares > _VANISHING * squares.detach().amax(), squares, 0.0)


def _precise_dtype(embeddings: Tensor) -> torch.dtype:
    return torch.float64 if embeddings.device.type != "mps" else torch.float32


def _relative_distances(embeddings: Tensor) -> Tensor:
    """Return distances [N, N] divided by their mean, in float32 or better; 0 between equal points."""
    squares = _relative_squares(embeddings)
    is_apart = squares > 0
    # two steps: the root's derivative at 0 is infinite, and infinity times 0 is not a number
    distances = torch.where(is_apart, torch.where(is_apart, squares, 1.0).sqrt(), 0.0)
    images = len(embeddings)
    mean = distances.sum() / max(images * (images - 1), 1)
    return (distances / torch.where(mean > 0, mean, 1.0)).to(torch.promote_types(embeddings.dtype, torch.float32))


class _AngleLoss(torch.autograd.Function):
    """Sum of Huber losses over all triples, from squared distances [N, N]; forward also computes the gradient."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, dtype: torch.dtype, distinct_only: bool) -> Tensor:
        images = len(student)
        needs_gradient = ctx.needs_input_grad[0]
        student_squares, teacher_squares = student.to(dtype), teacher.to(dtype)
        student_inverse, teacher_inverse = _inverse_distances(student).to(dtype), _inverse_distances(teacher).to(dtype)
        total = student_squares.new_zeros(())
        gradient = torch.zeros_like(student_squares)
        chunk_size = max(1, _CHUNK // max(images**2, 1))
        for start in range(0, images, chunk_size):
            vertices = slice(start, start + chunk_size)
            cosines = _cosines(student_squares, student_inverse, vertices)
            excess = cosines - _cosines(teacher_squares, teacher_inverse, vertices)  # [V, N, N]
            if distinct_only:
                excess.diagonal(dim1=1, dim2=2).zero_()
            slope = excess.clamp(-1, 1)  # derivative of the Huber loss, which is slope * (excess - slope / 2)
            total += torch.dot(slope.flatten(), excess.sub_(slope, alpha=0.5).flatten())
            if needs_gradient:
                inverse = student_inverse[vertices]
                by_cosine = torch.einsum("vik,vik->vi", slope, cosines)
                by_inverse = torch.bmm(slope, inverse[:, :, None])[:, :, 0]
                # the length of an arm is in the numerator and in the denominator of a cosine
                gradient[vertices] += inverse * by_inverse - inverse.square() * by_cosine
                # the opposite side is in the numerator only, with a minus sign
                gradient -= 0.5 * torch.einsum("vik,vi,vk->ik", slope, inverse, inverse)
        ctx.save_for_backward(gradient.to(student.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad_output.to(gradient.dtype) * gradient, None, None, None


def _inverse_distances(squares: Tensor) -> Tensor:
    """Return 1 / distance, and 0 where the distance is 0."""
    return torch.where(squares > 0, squares, torch.inf).rsqrt()


def _cosines(squares: Tensor, inverse: Tensor, vertices: slice) -> Tensor:
    """Return cosines [V, N, N] of the angles at ``vertices``: (a^2 + b^2 - c^2) / 2ab; 0 where an arm has length 0."""
    arms, inverse_arms = squares[vertices], inverse[vertices]
    cosines = arms[:, :, None] + arms[:, None, :]
    cosines -= squares
    cosines *= (0.5 * inverse_arms)[:, :, None]
    cosines *= inverse_arms[:, None, :]
    return cosines
