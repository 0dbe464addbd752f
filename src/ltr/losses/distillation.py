"""Distillation of class probabilities (Hinton et al., 2015)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def kl_to_teacher(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 times KL(softmax(teacher / T) || softmax(student / T)) of each row, summed over classes.

    The factor T^2 keeps the gradient's size from shrinking with the temperature. The teacher is not detached here:
    whoever wants no gradient into it detaches it.

    Args:
        student_logits, teacher_logits: [..., C], any float type; computed in float32 or better.
        temperature: T > 0.

    Returns:
        [...], >= 0 but for rounding.
    """
    student = functional.log_softmax(_wide(student_logits) / temperature, dim=-1)
    teacher = functional.log_softmax(_wide(teacher_logits) / temperature, dim=-1)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(dim=-1)


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.element_size() < 4 else logits
