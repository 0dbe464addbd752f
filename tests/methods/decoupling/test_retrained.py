"""cRT and LWS: what they start from, what they train, and what stays as it was."""

from __future__ import annotations

import pytest
import torch
from method_plans import planned, state, step

from ltr.configuration.targets import instantiate
from ltr.methods.core.network import ImageClassifier
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed
from resuming import same_bits

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
FROZEN = "method.freeze_bn_stats=true"


def only(actual: dict, statistics: bool) -> dict:
    return {name: tensor for name, tensor in actual.items() if name.endswith(STATISTICS) is statistics}


@pytest.fixture
def network() -> ImageClassifier:
    """A representation whose BatchNorm statistics are not the initial ones."""
    return planned().representation()


def logits(network, batch) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(network.to_unit(batch.images))


def test_crt_starts_with_a_random_head_on_the_features_of_the_representation(network):
    plan = planned("method=crt")
    batch, second = plan.batch("test"), plan.second(network)
    with seeded_construction(derive_seed(0, "classifier", "init")):
        instantiate(second.settings.backbone, 1)  # drawn before the head
        head = instantiate(second.settings.head, 64, 10)
    with torch.no_grad():
        expected = head(network.features(network.to_unit(batch.images)))
    assert torch.equal(logits(second, batch), expected)
    assert not torch.equal(second.head.weight, network.head.weight)


def test_crt_without_a_learning_rate_keeps_its_random_head(network):
    plan = planned("method=crt")
    second = plan.second(network)
    second.settings = second.settings.replaced(optimizer={**second.settings.optimizer, "lr": 0.0})
    before = state(second.head)
    step(second, plan.batch(), steps=2)
    assert same_bits(before, state(second.head))


def test_the_heads_initial_weights_follow_from_the_seed(network):
    plan = planned("method=crt")
    first, again, other = plan.second(network), plan.second(network), plan.second(network, seed=1)
    assert same_bits(state(first), state(again))
    assert not torch.equal(first.head.weight, other.head.weight)
    assert same_bits(state(first.backbone), state(other.backbone))


def test_lws_starts_with_the_logits_of_the_representation(network):
    plan = planned("method=lws")
    batch, second = plan.batch("test"), plan.second(network)
    assert torch.equal(logits(second, batch), logits(network, batch))


def test_lws_scales_the_whole_logit(network):
    plan = planned("method=lws")
    batch, second = plan.batch("test"), plan.second(network)
    factors = torch.linspace(0.5, 2.0, 10)
    with torch.no_grad():
        second.head.scales.copy_(factors)
    assert network.head.bias is not None
    torch.testing.assert_close(logits(second, batch), logits(network, batch) * factors)


@pytest.mark.parametrize("method", ["crt", "lws"])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_frozen_backbone_keeps_its_weights_and_its_statistics_with_freeze_bn_stats(network, method, frozen):
    plan = planned(f"method={method}", f"method.freeze_bn_stats={str(frozen).lower()}")
    second = plan.second(network)
    before = state(second.backbone)
    step(second, plan.batch(), steps=2)
    after = state(second.backbone)
    assert same_bits(only(before, statistics=False), only(after, statistics=False))
    assert same_bits(only(before, statistics=True), only(after, statistics=True)) is frozen


@pytest.mark.parametrize(("method", "trained"), [("crt", ["weight", "bias"]), ("lws", ["scales"])])
def test_only_the_head_has_gradients_and_is_optimised(network, method, trained):
    plan = planned(f"method={method}")
    second = plan.second(network)
    before = state(second.head)
    step(second, plan.batch())
    with_gradient = [name for name, parameter in second.named_parameters() if parameter.grad is not None]
    assert with_gradient == [f"head.{name}" for name in trained]
    optimizer, _ = second.optimisation(8)
    trained_ids = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained_ids == {id(dict(second.head.named_parameters())[name]) for name in trained}
    changed = [name for name, tensor in state(second.head).items() if not torch.equal(tensor, before[name])]
    assert changed == trained


def test_a_frozen_backbone_has_no_autograd_graph(network):
    second = planned("method=crt").second(network)
    features = second.features(second.to_unit(planned().batch().images))
    assert not features.requires_grad


@pytest.mark.parametrize(
    ("trainable", "moves"),
    [("classifier", []), ("last_block", ["stage3"]), ("all", ["stage1", "stage2", "stage3"])],
)
def test_trainable_selects_the_part_of_the_backbone_that_is_trained(network, trainable, moves):
    plan = planned("method=crt", f"method.trainable={trainable}", FROZEN)
    second = plan.second(network)
    before = state(second.backbone)
    step(second, plan.batch())
    changed = {name.split(".")[0] for name, t in state(second.backbone).items() if not torch.equal(t, before[name])}
    assert sorted(changed) == moves


def test_frozen_statistics_stay_frozen_after_an_evaluation(network):
    second = planned("method=crt", FROZEN).second(network)
    second.eval()
    second.train()
    assert second.training
    assert second.head.training
    assert not any(module.training for module in second.backbone.modules())


@pytest.mark.parametrize(("method", "name"), [("crt", "head"), ("lws", "head")])
def test_weight_decay_applies_to_trained_parameters(network, method, name):
    second = planned(f"method={method}").second(network)
    optimizer, _ = second.optimisation(8)
    assert [(group["name"], group["weight_decay"]) for group in optimizer.param_groups] == [(name, 2e-4)]


@pytest.mark.parametrize("method", ["crt", "lws"])
def test_a_sigmoid_loss_can_train_the_second_stage(network, method):
    plan = planned(f"method={method}", "loss@method.classifier.loss=focal_sigmoid")
    second = plan.second(network)
    assert second.link == "sigmoid"
    step(second, plan.batch())


class _Trainer:
    """Stand-in for the trainer, with the attributes that a network reads when training starts."""

    def __init__(self, data):
        from pytorch_lightning.plugins.precision import Precision

        self.datamodule = data
        self.precision_plugin = Precision()
        self.current_epoch = 0


@pytest.mark.parametrize("method", ["crt", "lws"])
def test_cached_features_are_those_of_the_un_augmented_images(network, method, monkeypatch):
    plan = planned(f"method={method}", FROZEN, "method.features=cached")
    second = plan.second(network)
    monkeypatch.setattr(type(second), "trainer", _Trainer(plan.data))
    monkeypatch.setattr(type(second), "current_epoch", 0)
    second.on_train_start()
    batch = next(iter(plan.data.train_dataloader()))  # in random order, some classes more than once
    expected = second.head(second.features(second.to_unit(batch.images)))
    torch.testing.assert_close(second.head(second.batch_features(batch)), expected, rtol=1e-5, atol=1e-5)
    wrong_images = batch._replace(images=torch.zeros_like(batch.images))
    assert torch.equal(second.batch_features(batch), second.batch_features(wrong_images))
    assert not any("cache" in name for name in second.state_dict())


def test_training_on_cached_features_uses_no_augmentation():
    augmented = planned("method=crt", FROZEN).stages["classifier"].settings.augment
    cached = planned("method=crt", FROZEN, "method.features=cached").stages["classifier"].settings.augment
    assert not instantiate(augmented, (1, 8, 8)).identity
    assert instantiate(cached, (1, 8, 8)).identity
