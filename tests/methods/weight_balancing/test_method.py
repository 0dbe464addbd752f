"""Weight balancing: the radius, the projection, where the second stage starts and what it trains."""

from __future__ import annotations

import re

import pytest
import torch
from method_plans import planned, state, step

from ltr.errors import ConfigError
from ltr.methods.core.network import ImageClassifier
from ltr.methods.weight_balancing.method import max_norm_radius, project_rows
from resuming import same_bits

WEIGHT = torch.tensor([[3.0, 4.0], [0.6, 0.8], [0.0, 2.0]])  # of norms 5, 1 and 2


@pytest.fixture
def network() -> ImageClassifier:
    """A representation whose BatchNorm statistics are not the initial ones."""
    return planned().representation()


@pytest.mark.parametrize(("fraction", "radius"), [(0.0, 1.0), (0.1, 1.4), (1.0, 5.0)])
def test_the_radius_lies_between_the_smallest_and_the_largest_norm(fraction, radius):
    assert max_norm_radius(WEIGHT, fraction).item() == pytest.approx(radius)


def test_only_rows_outside_the_radius_are_scaled_back():
    projected = project_rows(WEIGHT, torch.tensor(2.5))
    torch.testing.assert_close(projected, torch.tensor([[1.5, 2.0], [0.6, 0.8], [0.0, 2.0]]))


def test_projecting_twice_equals_projecting_once():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(50, 20, generator=generator, dtype=torch.float64)
    once = project_rows(weight, torch.tensor(4.0, dtype=torch.float64))
    assert (once.norm(dim=1) <= 4.0 + 1e-12).all()
    torch.testing.assert_close(project_rows(once, torch.tensor(4.0, dtype=torch.float64)), once)


def test_rows_of_zeros_are_unchanged():
    assert torch.equal(project_rows(torch.zeros(2, 3), torch.tensor(0.0)), torch.zeros(2, 3))


def test_the_second_stage_starts_with_the_logits_of_the_representation(network):
    plan = planned("method=weight_balancing")
    second = plan.second(network)
    assert same_bits(state(network.head), state(second.head))
    torch.testing.assert_close(second.radius, max_norm_radius(network.head.weight.detach(), 0.1))


def test_only_the_classifier_is_trained(network):
    plan = planned("method=weight_balancing", "method.freeze_bn_stats=true")
    second = plan.second(network)
    backbone, head = state(second.backbone), state(second.head)
    step(second, plan.batch(), steps=2)
    assert same_bits(backbone, state(second.backbone))
    assert not same_bits(head, state(second.head))


@pytest.mark.parametrize(("projection", "is_inside"), [("epoch", True), ("step", True), ("never", False)])
def test_the_weights_of_a_finished_stage_lie_inside_the_radius(ltr_train, projection, is_inside):
    done = ltr_train(
        *("method=weight_balancing", "debug=fast", "method.classifier.epochs=2", "method.classifier.optimizer.lr=0.5"),
        *("method.classifier.loss=cross_entropy", "method.classifier.optimizer.weight_decay=0"),
        f"method.projection={projection}",
    )
    assert done.code == 0, done.err
    weights = torch.load(done.directory / "checkpoints" / "final.ckpt", weights_only=True)["state_dict"]
    inside = weights["head.weight"].norm(dim=1) <= weights["radius"] * (1 + 1e-6)
    assert inside.all().item() is is_inside


def test_a_head_without_linear_weights_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"needs head=linear, not CosineHead: it bounds the norms"):
        planned("method=weight_balancing", "head=cosine")


def test_the_convex_solver_is_refused(ltr_train):
    stored = ("features=stored", "features.solver=lbfgs", "features.l2=0.01", "augment=none", "backbone.trainable=none")
    done = ltr_train("method=weight_balancing", *stored, "stages=plan")
    assert done.code == 2
    assert re.search(r"features\.solver=lbfgs.*method=weight_balancing", done.err)
