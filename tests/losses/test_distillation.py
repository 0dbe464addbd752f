"""Distillation of class probabilities, hints and attention against float64 formulas, and their identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from ltr.losses.distillation import HintRegressor, attention_transfer, hint_loss, kl_to_teacher


def logits(seed: int, rows: int = 5, classes: int = 4) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_to_teacher_equals_its_formula(temperature):
    student, teacher = logits(1), logits(2)
    p, q = softmax(teacher.numpy() / temperature, axis=1), softmax(student.numpy() / temperature, axis=1)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1)
    assert kl_to_teacher(student, teacher, temperature).numpy() == pytest.approx(expected, abs=1e-12)


def test_equal_probabilities_have_zero_loss():
    assert kl_to_teacher(logits(1), logits(1) + 3.0, 2.0).abs().max() < 1e-12


def test_the_gradient_in_the_students_logits_is_t_times_the_difference_of_probabilities():
    student, teacher = logits(1).requires_grad_(), logits(2)
    kl_to_teacher(student, teacher, 3.0).sum().backward()
    expected = 3.0 * (softmax(student.detach().numpy() / 3, axis=1) - softmax(teacher.numpy() / 3, axis=1))
    assert student.grad.numpy() == pytest.approx(expected, abs=1e-12)


def test_half_precision_is_computed_in_float32():
    assert kl_to_teacher(logits(1).bfloat16(), logits(2).bfloat16()).dtype == torch.float32


# --- hints and attention


def maps(seed: int, channels: int = 3, side: int = 4, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_a_hint_loss_is_the_mean_squared_difference():
    actual, expected = maps(1), maps(2)
    assert float(hint_loss(actual, expected)) == pytest.approx(float((actual - expected).square().mean()))


def test_attention_transfer_compares_normalised_mean_squares():
    actual, teacher_maps = maps(1, channels=3), maps(2, channels=5)

    def attention(one):
        squares = (one.numpy() ** 2).mean(axis=1).reshape(2, -1)
        return squares / np.linalg.norm(squares, axis=1, keepdims=True)

    expected = ((attention(actual) - attention(teacher_maps)) ** 2).mean()
    assert float(attention_transfer(actual, teacher_maps)) == pytest.approx(expected)


def test_attention_is_invariant_to_the_scale_of_an_images_map():
    actual = maps(1)
    assert float(attention_transfer(actual, 7.0 * actual)) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("loss", [hint_loss, attention_transfer])
def test_maps_of_another_size_are_averaged_down_to_the_smaller_one(loss):
    small = maps(1, side=2)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert float(loss(small, large)) == pytest.approx(0, abs=1e-15)
    assert float(loss(large, small)) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("loss", [hint_loss, attention_transfer])
def test_a_teachers_map_gets_no_gradient_and_half_precision_is_computed_in_float32(loss):
    actual, expected = maps(1, dtype=torch.bfloat16).requires_grad_(), maps(2, dtype=torch.bfloat16).requires_grad_()
    cost = loss(actual, expected)
    cost.backward()
    assert cost.dtype == torch.float32
    assert expected.grad is None
    wide = actual.detach().float().requires_grad_()
    loss(wide, expected.float()).backward()
    torch.testing.assert_close(actual.grad.float(), wide.grad, rtol=1e-2, atol=1e-4)


def test_a_regressor_maps_channels_to_the_teachers_and_learns():
    regressor = HintRegressor(3, 5).double()
    regressed = regressor(maps(1))
    assert regressed.shape == (2, 5, 4, 4)
    assert [name for name, _ in regressor.named_parameters()] == ["convolution.weight"]
    hint_loss(regressed, maps(2, channels=5)).backward()
    assert regressor.convolution.weight.grad.abs().max() > 0
