"""Class points: distances against loops, their relation to a linear classifier, what is refused."""

from __future__ import annotations

import pytest
import torch

from ltr.errors import ConfigError
from ltr.methods.reciprocal_points.heads import Prototypes, ReciprocalPoints
from ltr.methods.reciprocal_points.options import RPLOptions
from ltr.models.weights import seeded_construction

B, C, M, D = 6, 4, 3, 5


def built(kind=ReciprocalPoints, **options):
    with seeded_construction(0):
        return kind(D, C, **{"num_points": M, "init_std": 1.0, **options}).double()


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def squares(features, head) -> torch.Tensor:
    return (features[:, None, None] - head.points.detach()[None]).square().sum(3)


def test_squared_distances_and_inner_products_equal_the_direct_form(features):
    head = built()
    measured = head.measure(features)
    torch.testing.assert_close(measured.squares, squares(features, head))
    torch.testing.assert_close(measured.dots, torch.einsum("bd,cmd->bcm", features, head.points))


@pytest.mark.parametrize("divided", ["both", "open_space", "none"])
def test_division_by_the_width_follows_the_option(features, divided):
    head = built(divided=divided)
    plain = squares(features, head)
    torch.testing.assert_close(head(features), plain.mean(2) / (D if divided == "both" else 1))
    torch.testing.assert_close(
        head.open_space_distances(head.measure(features)), plain / (1 if divided == "none" else D)
    )


def test_both_distances_are_the_square_over_the_width_less_the_inner_product(features):
    head = built(distance="both", gamma=0.5)
    dots = torch.einsum("bd,cmd->bcm", features, head.points)
    torch.testing.assert_close(head(features), 0.5 * (squares(features, head) / D - dots).mean(2))


def test_larger_inner_products_are_smaller_distances(features):
    head = built(distance="dot")
    torch.testing.assert_close(head(features), -torch.einsum("bd,cmd->bcm", features, head.points).mean(2))


@pytest.mark.parametrize("distance", ["l2", "dot", "both"])
def test_the_softmax_is_that_of_a_linear_classifier(features, distance):
    head = built(distance=distance, gamma=0.8)
    weight, bias = head.linear()
    linear = features @ weight.t() + bias
    torch.testing.assert_close(head(features).softmax(1), linear.softmax(1))


def test_only_a_single_prototype_per_class_is_a_linear_classifier(features):
    head = built(Prototypes, num_points=1)
    weight, bias = head.linear()
    torch.testing.assert_close(head(features).softmax(1), (features @ weight.t() + bias).softmax(1))
    assert built(Prototypes).linear() is None


def test_the_distance_score_is_not_determined_by_the_softmax():
    head = built(num_points=1)
    with torch.no_grad():  # a direction in which all points are alike
        head.points[:, :, -1] = 0
    near = torch.zeros(1, D, dtype=torch.float64)
    far = near.clone()
    far[0, -1] = 10
    torch.testing.assert_close(head(near).softmax(1), head(far).softmax(1))
    with torch.no_grad():
        scores = [float(head.knownness(head.measure(x), head(x))) for x in (near, far)]
    assert scores[1] > scores[0] + 1


def test_far_from_reciprocal_points_and_near_to_prototypes_is_known(features):
    for head, sign in ((built(), 1), (built(Prototypes), -1)):
        logits = head(features)
        actual = head.knownness(head.measure(features), logits)
        of_predicted = squares(features, head)[torch.arange(B), logits.argmax(1)]
        distance = of_predicted.mean(1) if sign == 1 else of_predicted.amin(1)
        torch.testing.assert_close(actual, sign * distance / D)


def test_the_nearest_prototype_decides_by_a_sum_of_exponentials(features):
    head = built(Prototypes, divided=False)
    likelihoods = torch.exp(-squares(features, head)).sum(2)
    torch.testing.assert_close(head(features).softmax(1), likelihoods / likelihoods.sum(1, keepdim=True))


@pytest.mark.parametrize(("kind", "shape"), [("per_class", (C,)), ("scalar", (1,))])
def test_the_radius_is_one_number_for_each_class_or_for_all(kind, shape):
    head = built(radius=kind, radius_init=0.5)
    assert head.radius.shape == shape
    assert head.radius_of(torch.tensor([3, 0])).tolist() == [0.5, 0.5]


def test_distances_are_float32_and_finite_where_half_precision_overflows():
    head = ReciprocalPoints(64, 3)
    with torch.autocast("cpu", torch.bfloat16):
        actual = head(torch.full((2, 64), 300.0).half())
    assert actual.dtype is torch.float32
    assert torch.isfinite(actual).all()


def test_gradients_of_distances_equal_finite_differences(features):
    head = built(distance="both")
    assert torch.autograd.gradcheck(head, (features.requires_grad_(),))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_points": 0}, "num_points=0"),
        ({"init_std": -1.0}, "init_std=-1"),
        ({"gamma": 0.0}, "gamma=0"),
        ({"radius_init": float("nan")}, "radius_init=nan"),
    ],
)
def test_a_value_outside_its_range_is_named(options, named):
    with pytest.raises(ConfigError, match=named):
        RPLOptions(**options)
