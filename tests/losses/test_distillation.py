"""Distillation of class probabilities against a float64 formula, and its identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from ltr.losses.distillation import kl_to_teacher


def logits(seed: int, rows: int = 5, classes: int = 4) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_it_is_the_formula(temperature):
    student, teacher = logits(1), logits(2)
    p, q = softmax(teacher.numpy() / temperature, axis=1), softmax(student.numpy() / temperature, axis=1)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1)
    assert kl_to_teacher(student, teacher, temperature).numpy() == pytest.approx(expected, abs=1e-12)


def test_equal_probabilities_cost_nothing():
    assert kl_to_teacher(logits(1), logits(1) + 3.0, 2.0).abs().max() < 1e-12


def test_its_gradient_in_the_students_logits_is_t_times_the_difference_of_probabilities():
    student, teacher = logits(1).requires_grad_(), logits(2)
    kl_to_teacher(student, teacher, 3.0).sum().backward()
    expected = 3.0 * (softmax(student.detach().numpy() / 3, axis=1) - softmax(teacher.numpy() / 3, axis=1))
    assert student.grad.numpy() == pytest.approx(expected, abs=1e-12)


def test_half_precision_is_computed_in_float32():
    assert kl_to_teacher(logits(1).bfloat16(), logits(2).bfloat16()).dtype == torch.float32
