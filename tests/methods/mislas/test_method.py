"""MiSLAS: where its second stage starts, what it trains and at which rates."""

from __future__ import annotations

import re

import pytest
import torch
from method_plans import planned, state, step

from ltr.losses.smoothing import LabelAwareSmoothing
from ltr.methods.core.network import ImageClassifier
from resuming import same_bits


@pytest.fixture
def network() -> ImageClassifier:
    """A representation whose BatchNorm statistics are not the initial ones."""
    return planned().representation()


def logits(network, batch) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(network.to_unit(batch.images))


def test_the_representation_is_that_of_erm():
    plan = planned("method=mislas", "augment=cifar_mixup", "method.classifier.augment=digits")
    assert plan.keys["representation"] == planned("augment=cifar_mixup").keys["representation"]


def test_the_second_stage_starts_with_the_logits_of_the_representation(network):
    plan = planned("method=mislas")
    batch = plan.batch("test")
    assert torch.equal(logits(plan.second(network), batch), logits(network, batch))


def test_only_classifier_and_factors_are_trained(network):
    plan = planned("method=mislas", "method.freeze_bn_stats=true")
    second = plan.second(network)
    backbone, head = state(second.backbone), state(second.head)
    step(second, plan.batch(), steps=2)
    assert same_bits(backbone, state(second.backbone))
    assert {name for name, tensor in state(second.head).items() if not torch.equal(tensor, head[name])} == set(head)


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_statistics_are_updated_unless_they_are_frozen(network, frozen):
    plan = planned("method=mislas", f"method.freeze_bn_stats={str(frozen).lower()}")
    second = plan.second(network)
    before = state(second.backbone)
    step(second, plan.batch())
    assert same_bits(before, state(second.backbone)) is frozen


def test_the_factors_have_a_separate_learning_rate(network):
    second = planned("method=mislas", "optimizer.lr=0.3").second(network)
    optimizer, _ = second.optimisation(10)
    rates = {
        group["name"]: group["initial_lr"] if "initial_lr" in group else group["lr"] for group in optimizer.param_groups
    }
    assert rates == {"head": 0.02, "scales": 0.3}
    counts = {group["name"]: len(group["params"]) for group in optimizer.param_groups}
    assert counts == {"head": 2, "scales": 1}


def test_the_factor_multiplies_the_logit_including_its_bias(network):
    plan = planned("method=mislas")
    batch, second = plan.batch("test"), plan.second(network)
    factors = torch.linspace(0.5, 2.0, 10)
    with torch.no_grad():
        second.head.scales.copy_(factors)
    torch.testing.assert_close(logits(second, batch), logits(network, batch) * factors)
    torch.testing.assert_close(second.weight_norms(), network.weight_norms() * factors.double())


def test_labels_are_smoothed_by_the_class_counts(network):
    second = planned("method=mislas").second(network)
    assert isinstance(second.loss, LabelAwareSmoothing)
    counts = second.loss.class_counts
    assert second.loss.smoothing[counts.argmax()].item() == pytest.approx(0.4)
    assert second.loss.smoothing[counts.argmin()].item() == pytest.approx(0.1)


def test_the_convex_solver_is_refused(ltr_train):
    stored = ("features=stored", "features.solver=lbfgs", "features.l2=0.01", "augment=none", "backbone.trainable=none")
    done = ltr_train("method=mislas", *stored, "stages=plan")
    assert done.code == 2
    assert re.search(r"features\.solver=lbfgs.*method=mislas", done.err)
