"""The terms of HERBS against loops, and its temperature against the paper's list."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ltr.errors import ConfigError
from ltr.methods.herbs.losses import (
    dropped_loss,
    dropped_tanh,
    layer_loss,
    paper_period,
    refinement_loss,
    temperature_at,
)

B, N, C = 2, 6, 4


def logits(seed: int, n: int = N) -> torch.Tensor:
    return torch.randn(B, n, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_layers_are_summed_cross_entropies():
    labels = torch.tensor([1, 3])
    of_levels = [logits(seed).mean(1) for seed in range(3)]
    expected = sum(F.cross_entropy(level, labels) for level in of_levels)
    torch.testing.assert_close(layer_loss(of_levels, labels), expected)


def test_mixed_labels_are_weighted():
    first, second, weight = torch.tensor([1, 3]), torch.tensor([0, 2]), torch.tensor([0.25, 1.0], dtype=torch.float64)
    level = logits(0).mean(1)
    both = [F.cross_entropy(level, labels, reduction="none") for labels in (first, second)]
    torch.testing.assert_close(
        layer_loss([level], first, (second, weight)), (weight * both[0] + (1 - weight) * both[1]).mean()
    )


def test_the_dropped_term_is_the_squared_distance_of_tanh_from_minus_one():
    levels = [logits(0), logits(1, 3)]
    masks = [torch.tensor([[1, 1, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1]]).bool(), torch.tensor([[0, 1, 0], [1, 0, 0]]).bool()]
    expected = sum(
        F.mse_loss(level[mask].tanh(), -torch.ones(mask.sum(), C).double()) for level, mask in zip(levels, masks)
    )
    torch.testing.assert_close(dropped_loss(levels, masks), expected)
    means = [level[mask].tanh().mean() for level, mask in zip(levels, masks)]
    torch.testing.assert_close(dropped_tanh(levels, masks), (means[0] + means[1]) / 2)


def test_the_mean_of_tanh_is_over_images_and_skips_levels_without_dropped_locations():
    levels = [logits(0), logits(1, 3)]
    masks = [torch.tensor([[1, 1, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1]]).bool(), torch.zeros(B, 3, dtype=torch.bool)]
    torch.testing.assert_close(dropped_tanh(levels, masks), levels[0][masks[0]].tanh().mean())
    of_images = dropped_tanh(levels, masks, each_image=True)
    torch.testing.assert_close(of_images[1], levels[0][1, 3:].tanh().mean())
    assert dropped_tanh(levels[1:], masks[1:]).isnan()


def test_selected_locations_get_no_gradient_of_the_dropped_term():
    level = logits(0).requires_grad_()
    mask = torch.tensor([[1, 1, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1]]).bool()
    dropped_loss([level], [mask]).backward()
    assert (level.grad[~mask] == 0).all()
    assert (level.grad[mask] > 0).all()


def test_a_level_without_dropped_locations_has_zero_loss():
    level = logits(0).requires_grad_()
    loss = dropped_loss([level], [torch.zeros(B, N, dtype=torch.bool)])
    loss.backward()
    assert loss == 0
    assert (level.grad == 0).all()


@pytest.mark.parametrize("temperature", [64.0, 1.0, 0.5])
def test_refinement_equals_a_hand_written_divergence_in_both_reductions(temperature):
    students, teachers = [logits(0), logits(1, 3)], [logits(2), logits(3, 3)]
    by_hand = 0.0
    for student, teacher in zip(students, teachers):
        for b in range(B):
            for n in range(student.shape[1]):
                p, q = (teacher[b, n] / temperature).softmax(0), (student[b, n] / temperature).softmax(0)
                by_hand += (p * (p / q).log()).sum() / (B * student.shape[1])
    torch.testing.assert_close(refinement_loss(students, teachers, temperature), by_hand)
    released = sum(
        F.kl_div((s / temperature).log_softmax(2), (t / temperature).softmax(2), reduction="none").mean()
        for s, t in zip(students, teachers)
    )
    torch.testing.assert_close(refinement_loss(students, teachers, temperature, "mean_over_classes"), released)


def test_no_gradient_flows_into_the_teacher():
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    refinement_loss([student], [teacher], 2.0).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ConfigError, match="sum_over_classes, mean_over_classes"):
        refinement_loss([logits(0)], [logits(1)], 1.0, "sum")


def test_the_temperature_falls_from_64_to_a_half_in_eighty_epochs():
    actual = [temperature_at(epoch, 80, 64.0) for epoch in range(80)]
    assert actual[::10] == [64, 32, 16, 8, 4, 2, 1, 0.5]
    assert all(actual[epoch] == actual[epoch // 10 * 10] for epoch in range(80))


@pytest.mark.parametrize(("initial", "period"), [(64, 10), (128, 11), (32, 9)])
def test_the_period_is_the_papers_formula(initial, period):
    assert paper_period(initial) == period
    actual = [temperature_at(epoch, 80, initial) for epoch in range(80)]
    assert actual[:period] == [initial] * period
    assert actual[period] == initial / 2


def test_the_released_schedule_halves_every_ten_epochs_for_any_start():
    assert [temperature_at(epoch, 80, 128.0, 10) for epoch in (0, 9, 10, 79)] == [128, 128, 64, 1]


@pytest.mark.parametrize("epochs", [8, 40, 200])
def test_the_period_scales_with_the_schedule(epochs):
    actual = [temperature_at(epoch, epochs, 64.0) for epoch in range(epochs)]
    assert sorted(set(actual), reverse=True) == [64, 32, 16, 8, 4, 2, 1, 0.5]
    assert all(actual.count(value) == epochs // 8 for value in set(actual))
