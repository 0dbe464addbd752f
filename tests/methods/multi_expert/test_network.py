"""Networks of several experts: where a backbone is cut, reduced widths, initial weights, predictions, refusals."""

from __future__ import annotations

import pytest
import torch
from method_plans import planned, state

from ltr.errors import ConfigError
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.multi_expert.ride import DiverseExperts
from ltr.methods.multi_expert.splitting import narrow, split, width_of
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.timm_backbone import TimmBackbone
from ltr.models.torchvision_backbone import TorchvisionBackbone

BACKBONES = {
    "resnet32": lambda: CifarResNet(3, depth=32),
    "resnet20, padded after": lambda: CifarResNet(3, depth=20, shortcut_padding="after"),
    "torchvision resnet18": lambda: TorchvisionBackbone(3, name="resnet18"),
    "timm resnet10t": lambda: TimmBackbone(3, name="resnet10t"),
}
SIZES = {"resnet32": 32, "resnet20, padded after": 32}


def network_spec(plan, stage) -> NetworkSpec:
    return NetworkSpec(stage.settings, plan.dataset_info, 0, stage.role)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_halves_in_sequence_are_the_backbone(name):
    backbone = BACKBONES[name]().eval()
    images = torch.randn(2, 3, SIZES.get(name, 64), SIZES.get(name, 64))
    halves = split(backbone)
    with torch.no_grad():
        torch.testing.assert_close(halves.branch(halves.trunk(images)), backbone(images))


@pytest.mark.parametrize("name", BACKBONES)
def test_reduced_stages_have_three_quarters_of_the_channels(name):
    size = SIZES.get(name, 64)
    backbone = BACKBONES[name]()
    full, trunk = backbone.num_features, state(split(backbone).trunk)
    halves = split(backbone)
    narrow(halves, (3, size, size))
    assert width_of(halves, (3, size, size)) == full * 3 // 4
    assert all(torch.equal(tensor, trunk[key]) for key, tensor in state(halves.trunk).items())
    halves.branch(halves.trunk(torch.randn(2, 3, size, size))).sum().backward()


def test_reduced_resnet32_has_the_parameters_of_the_official_network():
    plan = planned("method=ride", "backbone=resnet32", "head=cosine")
    network = plan.stages["representation"].network(plan.dataset_info, 0)
    # grey images and ten classes; conv1, layer1: 16 channels; of an expert layer2: 16 to 24, layer3: 24 to 48, cosines
    trunk = 16 * 9 + 32 + 10 * (16 * 16 * 9 + 32)
    layer2 = 16 * 24 * 9 + 9 * 24 * 24 * 9 + 10 * 48
    layer3 = 24 * 48 * 9 + 9 * 48 * 48 * 9 + 10 * 96
    assert sum(p.numel() for p in network.parameters()) == trunk + 3 * (layer2 + layer3 + 48 * 10)


def test_other_backbones_are_refused():
    backbone = TorchvisionBackbone(3, name="squeezenet1_1")
    with pytest.raises(ConfigError, match=r"squeezenet1_1.*resnet32"):
        split(backbone)


@pytest.fixture(scope="module")
def plan():
    return planned("method=ride", "augment=digits")


@pytest.fixture(scope="module")
def network(plan):
    return plan.representation()


def test_experts_start_from_different_weights_that_depend_on_the_seed(plan, network):
    first, second = network.backbone.branches[0], network.backbone.branches[1]
    assert not torch.equal(next(first.parameters()), next(second.parameters()))
    again = plan.stages["representation"].network(plan.dataset_info, 0)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters()))
    other = plan.stages["representation"].network(plan.dataset_info, 1)
    assert not torch.equal(next(first.parameters()), next(other.backbone.branches[0].parameters()))


def test_the_ensemble_is_the_mean_of_the_experts(plan, network):
    batch = plan.batch("test")
    scores = network.predict(batch.images)
    each = [scores[f"expert_{k}"].logits for k in (1, 2, 3)]
    torch.testing.assert_close(scores["ensemble"].logits, torch.stack(each).mean(0))
    with torch.no_grad():
        torch.testing.assert_close(scores["ensemble"].logits, network(network.to_unit(batch.images)))
    assert torch.equal(
        scores["ensemble"].features, torch.cat([scores[f"expert_{k}"].features for k in (1, 2, 3)], dim=1)
    )


def test_one_expert_without_diversity_has_the_plain_loss(plan):
    options = {**plan.stages["representation"].options, "experts": 1, "diversity_factor": 0.0}
    stage = plan.stages["representation"]
    one = DiverseExperts(network_spec(plan, stage), **options)
    batch = plan.batch()
    logits = one(one.to_unit(batch.images))
    torch.testing.assert_close(one.training_step(batch, 0)["loss"], one.loss(logits, batch.labels))


def test_the_last_block_has_a_separate_learning_rate():
    plan = planned("method=ride", "optimizer.last_block_lr=0.5", "backbone=resnet20")
    optimizer, _ = plan.stages["representation"].network(plan.dataset_info, 0).optimisation(8)
    counts = {group["name"]: (group["lr"], len(group["params"])) for group in optimizer.param_groups}
    assert counts["last_block"] == (0.5, 3 * 6)  # two convolutions and two BatchNorms of each expert's last block


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tune=norm"], "tune.*tune=all"),
        (["head=cosine", "head.initial=class_means"], "head.initial=class_means"),
        (["backbone=torchvision", "backbone.pretrained=true"], "method.reduce_dimension=false"),
        (["backbone=resnet20", "backbone.initial=glorot"], "backbone.initial=null"),
        (["loss=focal_sigmoid"], "loss=ldam"),
    ],
)
def test_options_that_experts_do_not_support_are_refused(overrides, message):
    plan = planned("method=ride", *overrides)
    stage = plan.stages["representation"]
    with pytest.raises(ConfigError, match=message):
        DiverseExperts(network_spec(plan, stage), **stage.options)
