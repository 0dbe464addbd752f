"""Loss terms of the point-based open-set methods, against loops over their equations and finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from ltr.methods.reciprocal_points import losses as open_set

B, C, M = 5, 4, 3


@pytest.fixture
def distances() -> torch.Tensor:
    return torch.rand(B, C, M, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4


LABELS = torch.tensor([0, 3, 1, 1, 2])


def test_distances_to_the_points_of_the_label_are_selected(distances):
    expected = torch.stack([distances[row, label] for row, label in enumerate(LABELS)])
    assert torch.equal(open_set.label_distances(distances, LABELS), expected)


def test_a_larger_distance_makes_a_class_more_likely(distances):
    farther = distances.clone()
    farther[:, 2] += 1
    of_class_2 = torch.full((B,), 2)
    assert (open_set.reciprocal_class(farther, of_class_2) < open_set.reciprocal_class(distances, of_class_2)).all()


def test_the_reciprocal_class_term_follows_its_equation(distances):
    for row, label in enumerate(LABELS):
        weights = [math.exp(0.7 * sum(distances[row, k].tolist()) / M) for k in range(C)]
        expected = -math.log(weights[label] / sum(weights))
        actual = open_set.reciprocal_class(distances, LABELS, gamma=0.7)[row]
        assert float(actual) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("term", [open_set.reciprocal_class, open_set.prototype_class])
def test_the_class_term_is_invariant_to_a_constant_on_all_distances(distances, term):
    torch.testing.assert_close(term(distances + 3.5, LABELS), term(distances, LABELS))


@pytest.mark.parametrize("term", [open_set.reciprocal_class, open_set.prototype_class])
def test_the_class_term_does_not_depend_on_the_order_of_points(distances, term):
    torch.testing.assert_close(term(distances[:, :, [2, 0, 1]], LABELS), term(distances, LABELS))


def test_the_open_space_term_is_the_mean_squared_gap_to_the_radius(distances):
    own, radius = open_set.label_distances(distances, LABELS), torch.linspace(0.5, 2.5, B, dtype=torch.float64)
    for row in range(B):
        expected = sum((float(d) - float(radius[row])) ** 2 for d in own[row]) / M
        assert float(open_set.open_space(own, radius)[row]) == pytest.approx(expected, rel=1e-12)


def test_the_margin_is_zero_up_to_one_less_than_the_radius():
    own = torch.tensor([[0.0], [1.0], [1.5], [4.0]])
    actual = open_set.adversarial_margin(own, torch.full((4,), 2.0))
    torch.testing.assert_close(actual, torch.tensor([0.0, 0.0, 0.5, 3.0]))


def test_with_one_prototype_the_class_term_is_the_cross_entropy_of_minus_the_distance(distances):
    one = distances[:, :, :1]
    torch.testing.assert_close(open_set.prototype_class(one, LABELS), open_set.reciprocal_class(-one, LABELS))


def test_the_pull_is_half_the_distance_to_the_nearest_prototype():
    torch.testing.assert_close(
        open_set.prototype_pull(torch.tensor([[3.0, 1.0], [2.0, 5.0]])), torch.tensor([0.5, 1.0])
    )


def test_confusion_lies_between_one_over_the_classes_and_one():
    assert float(open_set.confusion(torch.zeros(6, C))) == pytest.approx(1 / C)
    assert float(open_set.confusion(1000 * torch.eye(C))) == pytest.approx(1.0)


def test_gradients_equal_finite_differences(distances):
    radius = torch.linspace(0.6, 2.4, B, dtype=torch.float64, requires_grad=True)
    points = distances.requires_grad_()

    def terms(d: torch.Tensor, r: torch.Tensor) -> tuple[torch.Tensor, ...]:
        own = open_set.label_distances(d, LABELS)
        return (
            open_set.reciprocal_class(d, LABELS, 0.5),
            open_set.prototype_class(d, LABELS, 0.5),
            open_set.open_space(own, r),
            open_set.adversarial_margin(own, r),
            open_set.prototype_pull(own),
            open_set.confusion(d.mean(2)),
        )

    assert torch.autograd.gradcheck(terms, (points, radius))
