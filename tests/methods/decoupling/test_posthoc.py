"""tau-normalisation and post-hoc logit adjustment: their equations, their limits, and the choice of tau."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_plans import planned

from ltr.errors import ConfigError
from ltr.evaluation.closed_set import ClosedSet
from ltr.methods.decoupling import posthoc
from ltr.methods.decoupling.posthoc import PriorAdjusted, TauNormalised

VAL = "dataset.val=train_fraction"
GRID = [0.0, 0.35, 1.0, 1.7]


@pytest.fixture
def network():
    network = planned().representation()
    with torch.no_grad():  # norms that differ, as after long-tailed training
        network.head.weight.mul_(torch.linspace(1.5, 0.5, 10).unsqueeze(1))
    return network


@pytest.fixture
def images():
    return planned().batch("test").images


def features_of(network, images):
    with torch.no_grad():
        return network.features(network.to_unit(images))


def test_tau_zero_is_the_network_without_its_bias(network, images):
    (scores,) = TauNormalised.from_network(network, [0.0], 0).predict(images).values()
    assert torch.equal(scores.logits, F.linear(features_of(network, images), network.head.weight))


def test_tau_one_is_full_normalisation(network, images):
    (scores,) = TauNormalised.from_network(network, [1.0], 0).predict(images).values()
    expected = F.linear(features_of(network, images), F.normalize(network.head.weight, dim=1))
    torch.testing.assert_close(scores.logits, expected)


@pytest.mark.parametrize("tau", GRID)
def test_weights_are_divided_by_a_power_of_their_norm(network, images, tau):
    (scores,) = TauNormalised.from_network(network, [tau], 0).predict(images).values()
    weight = network.head.weight.double()
    weight = weight / weight.norm(dim=1, keepdim=True) ** tau
    torch.testing.assert_close(scores.logits, F.linear(features_of(network, images).double(), weight).float())


@pytest.mark.parametrize("tau", GRID)
def test_a_kept_bias_is_added_unscaled(network, images, tau):
    with torch.no_grad():
        network.head.bias.uniform_(-1, 1)
    (without,) = TauNormalised.from_network(network, [tau], 0).predict(images).values()
    (kept,) = TauNormalised.from_network(network, [tau], 0, keep_bias=True).predict(images).values()
    torch.testing.assert_close(kept.logits.double() - without.logits.double(), network.head.bias.double().expand(
        len(images), -1), rtol=0, atol=1e-5)  # fmt: skip


def test_with_a_kept_bias_tau_zero_is_the_network_itself(network, images):
    (scores,) = TauNormalised.from_network(network, [0.0], 0, keep_bias=True).predict(images).values()
    torch.testing.assert_close(scores.logits, network.predict(images)["default"].logits)


def test_a_bias_can_be_kept_only_where_there_is_one():
    with pytest.raises(ConfigError, match=r"method\.keep_bias=true keeps the bias .*, and head\.bias=false"):
        planned("method=tau_norm", "method.keep_bias=true", "head.bias=false")
    network = planned("head.bias=false").representation()
    with pytest.raises(ConfigError, match="and this network has none"):
        TauNormalised.from_network(network, [1.0], 0, keep_bias=True)


def test_the_search_and_the_predictor_keep_the_bias(network):
    with torch.no_grad():
        network.head.bias.copy_(torch.linspace(-20, 20, 10))
    plan = planned("method=tau_norm", VAL, "method.tau=auto", "method.grid.step=0.5", "method.keep_bias=true")
    actual = plan.compute("tau", network)
    dropped = planned("method=tau_norm", VAL, "method.tau=auto", "method.grid.step=0.5").compute("tau", network)
    assert (actual["correct"] != dropped["correct"]).any()
    assert actual["correct"][:, -1].tolist() == [actual["n"][-1]] * 3  # the largest bias wins
    predictor = plan.method.predictor(plan.outputs(network, tau={"taus": actual["taus"], "chosen": np.int64(1)}))
    assert predictor.keeps_bias


def test_posthoc_adjustment_with_tau_zero_is_the_network_itself(network, images):
    (scores,) = PriorAdjusted.from_network(network, [0.0], 0).predict(images).values()
    assert torch.equal(scores.logits, network.predict(images)["default"].logits)


@pytest.mark.parametrize("tau", GRID)
def test_posthoc_adjustment_subtracts_tau_times_the_log_prior(network, images, tau):
    (scores,) = PriorAdjusted.from_network(network, [tau], 0).predict(images).values()
    counts = torch.tensor(network.dataset_info.class_counts, dtype=torch.float64)
    expected = network.predict(images)["default"].logits - tau * (counts / counts.sum()).log()
    torch.testing.assert_close(scores.logits, expected.float())


@pytest.mark.parametrize("kind", [TauNormalised, PriorAdjusted])
def test_each_tau_of_a_grid_is_a_variant_with_the_scores_of_a_single_tau(network, images, kind):
    together = kind.from_network(network, GRID, 2)
    actual = together.predict(images)
    assert list(actual) == ["tau=0", "tau=0.35", "tau=1", "tau=1.7"]
    assert together.headline == "tau=1"
    for tau, scores in zip(GRID, actual.values()):
        (alone,) = kind.from_network(network, [tau], 0).predict(images).values()
        torch.testing.assert_close(scores.logits, alone.logits)


def test_the_images_pass_the_backbone_once_for_all_taus(network, images, monkeypatch):
    adjusted = TauNormalised.from_network(network, GRID, 0)
    passes = []
    adjusted.backbone.register_forward_hook(lambda *arguments: passes.append(1))
    adjusted.predict(images)
    assert len(passes) == 1


@pytest.mark.parametrize("method", ["tau_norm", "posthoc_la"])
def test_the_search_equals_evaluating_each_value_separately(network, method):
    plan = planned(f"method={method}", VAL, "method.tau=auto", "method.grid.step=0.25")
    actual = plan.compute("tau", network)
    assert actual["taus"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    metrics = []
    for tau in actual["taus"]:
        alone = posthoc.ADJUSTMENTS[method].from_network(network, [tau], 0)
        protocol = ClosedSet(np.array(plan.dataset_info.class_counts), link="softmax", keep_predictions=False)
        for batch in plan.data.evaluation_loader("val"):
            protocol.update(next(iter(alone.predict(batch.images).values())), batch.labels)
        metrics.append(protocol.compute().metrics)
    for name in ("balanced_accuracy", "many", "medium", "few"):
        np.testing.assert_allclose(actual[name], [one[name] for one in metrics])
    assert actual["chosen"] == np.argmax(actual["balanced_accuracy"])
    assert actual["correct"].shape == (5, 10)
    assert actual["n"].sum() == len(plan.data.split.val)


def test_a_fixed_tau_reads_no_image(network):
    actual = planned("method=tau_norm", "method.tau=0.7").compute("tau", network)
    assert actual["taus"].tolist() == [0.7]
    assert actual["chosen"] == 0
    assert planned("method=tau_norm").stages["tau"].reads == ()


def test_the_first_of_equal_values_is_chosen():
    n = np.array([4, 4])
    actual = posthoc.accuracy_curve(n, np.array([[1, 1], [3, 1], [2, 2]]), np.array([200, 10]))
    assert actual["balanced_accuracy"].tolist() == [0.25, 0.5, 0.5]
    assert np.argmax(actual["balanced_accuracy"]) == 1


def test_classes_without_validation_images_are_excluded_from_the_curve():
    actual = posthoc.accuracy_curve(np.array([4, 0, 2]), np.array([[2, 0, 2]]), np.array([200, 50, 10]))
    assert actual["balanced_accuracy"].tolist() == [0.75]
    assert actual["many"].tolist() == [0.5]
    assert np.isnan(actual["medium"]).all()


@pytest.mark.parametrize(("chosen", "warns"), [(0, True), (1, False), (3, True)])
def test_a_choice_at_the_edge_of_the_grid_warns(network, chosen, warns, recwarn):
    plan = planned("method=tau_norm", VAL, "method.tau=auto")
    outputs = plan.outputs(network, tau={"taus": np.array(GRID), "chosen": np.int64(chosen)})
    predictor = plan.method.predictor(outputs)
    assert predictor.headline == posthoc.variant_name(GRID[chosen])
    messages = [str(one.message) for one in recwarn if "end of the grid" in str(one.message)]
    assert bool(messages) is warns
    assert not any("method.grid.start" in message for message in messages if GRID[chosen] == 0)


@pytest.mark.parametrize("method", ["tau_norm", "posthoc_la"])
def test_a_fixed_tau_does_not_warn(network, method, recwarn):
    plan = planned(f"method={method}")
    plan.method.predictor(plan.outputs(network, tau={"taus": np.array([1.0]), "chosen": np.int64(0)}))
    assert not [one for one in recwarn if "grid" in str(one.message)]


def test_tau_may_be_any_number_from_zero():
    assert posthoc.TauNorm(tau=3, grid={"start": 0, "stop": 1, "step": 1}).taus == [3.0]
    with pytest.raises(ConfigError, match=r"method\.tau=-0\.5: allowed is \[0, inf\) or auto"):
        posthoc.TauNorm(tau=-0.5, grid={"start": 0, "stop": 1, "step": 1})
