"""`ltr.build` and `ltr.config`: every method's network in one line, and the configuration as plain data."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import ltr
from ltr.configuration.configs import config_names
from ltr.data.batch import Batch
from ltr.errors import CheckpointError, ConfigError
from ltr.methods.core.checkpoint import network_checkpoint
from ltr.models.digits_net import DigitsNet

NEEDED = {"background_splitting": {"aux": {"weight": 0}}}  # pseudo-labels come from images or a teacher's weights
EMBEDDING = ("triplet", "prototypical", "rkd")


class Pooled(nn.Sequential):
    """A user's backbone: width 6, no attribute of ours."""

    def __init__(self, *tail: nn.Module) -> None:
        super().__init__(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), *tail)


POOLING = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("method", config_names("method"))
def test_every_method_gives_a_network_that_predicts(method):
    network = ltr.build(method, num_classes=8, **NEEDED.get(method, {}))
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert not network.training
    scores = network.predict_headline(images)
    assert scores.logits.shape == (3, 0 if method in EMBEDDING else 8)
    assert torch.isfinite(scores.logits).all()
    assert torch.isfinite(scores.features).all()
    assert torch.isfinite(network(network.to_unit(images))).all()


@pytest.mark.parametrize("method", ["erm", "rpl", "sla"])
def test_a_built_network_learns(method):
    network = ltr.build(method, num_classes=3, backbone="digits_net", channels=1).train()
    optimizer, _ = network.optimisation(1)
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    batch = Batch(images, torch.arange(6) % 3, torch.arange(6))
    network.training_step(batch, 0)["loss"].backward()
    before = next(network.parameters()).clone()
    optimizer.step()
    assert not torch.equal(before, next(network.parameters()))


def test_options_choices_and_nested_options_reach_the_network():
    network = ltr.build(
        "crt", num_classes=5, head="cosine", loss="ldam", class_counts=[50, 20, 10, 5, 1],
        trainable="last_block", classifier={"optimizer": "adamw", "epochs": 3}, batch_size=8,
    )  # fmt: skip
    assert network.settings.batch_size == 8
    assert network.head.head_kind == "cosine"
    assert network.options["trainable"] == "last_block"
    assert network.settings.epochs == 3
    assert network.settings.optimizer["_target_"].endswith("adamw")
    assert network.dataset_info.class_counts == (50, 20, 10, 5, 1)


def test_a_second_stage_starts_from_the_first_ones_backbone():
    first, second = (ltr.build(method, num_classes=5, seed=3) for method in ("erm", "crt"))
    for name, tensor in first.backbone.state_dict().items():
        torch.testing.assert_close(second.backbone.state_dict()[name], tensor, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in second.backbone.parameters())


def test_an_option_without_its_default_changes_nothing_else():
    plain, other = ltr.build("herbs", num_classes=4), ltr.build("herbs", num_classes=4, temperature=32.0, paths="both")
    assert {**plain.options, "temperature": 32.0} == dict(other.options)


@pytest.mark.parametrize("name", ["resnet18", "timm"])
def test_a_timm_model_by_name_has_its_usual_size(name):
    network = ltr.build(num_classes=3, backbone=name)
    assert network.dataset_info.image_shape == (3, 224, 224)


def test_a_module_is_accepted_as_a_backbone_and_not_modified():
    module = Pooled(*POOLING)
    network = ltr.build("lws", num_classes=3, backbone=module, image_size=16)
    assert network.backbone.num_features == 6
    torch.testing.assert_close(network.backbone.net[0].weight, module[0].weight, rtol=0, atol=0)
    assert module[0].weight.requires_grad
    assert not network.backbone.net[0].weight.requires_grad
    assert network.predict(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))["default"].logits.shape == (2, 3)


def test_a_timm_model_as_an_object_loses_its_classifier_and_has_maps():
    model = timm.create_model("resnet18", num_classes=7)
    network = ltr.build("herbs", num_classes=4, backbone=model, image_size=64)
    assert network.backbone.num_features == 512
    assert len(network.backbone.map_channels) == 5
    assert network.predict_headline(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 4)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_a_backbone_object_of_ltr_is_accepted():
    network = ltr.build(num_classes=3, backbone=DigitsNet(1), channels=1)
    assert network.dataset_info.image_shape == (1, 8, 8)


def test_the_declared_width_of_a_module_is_checked():
    module = Pooled(*POOLING)
    module.num_features = 6
    assert ltr.build(num_classes=3, backbone=module, image_size=16).backbone.num_features == 6
    module.num_features = 7
    with pytest.raises(ConfigError, match=r"num_features is 7.*\[1, 6\]"):
        ltr.build(num_classes=3, backbone=module, image_size=16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": Pooled()}, r"output for one image is \[1, 6, .*pooling"),
        ({"backbone": nn.Linear(5, 2)}, "cannot be applied to images of shape"),
        ({"backbone": "resnett18"}, "backbone=resnett18.*torch.nn.Module.*Did you mean"),
        ({"num_classes": 1}, "num_classes=1"),
        ({"class_counts": [1, 2]}, "class_counts.*num_classes=3"),
        ({"image_size": 0, "backbone": "resnet20", "channels": 0}, "channels=0"),
        ({"mean": [0.5]}, "mean=.*one per channel"),
        ({"lamm": 1}, "method.lamm"),
        ({"loss": "ldamm"}, "ldamm"),
        ({"batch_size": 0}, r"batch_size=0.*int \[1, inf\)"),
    ],
)
def test_invalid_builds_are_refused_by_name(arguments, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        ltr.build("m2m", **{"num_classes": 3, **arguments})


def test_an_unknown_method_gets_the_nearest_name():
    with pytest.raises(ConfigError, match=r"there is no method.*Did you mean 'herbs'"):
        ltr.build("herb", num_classes=3)


def test_a_method_that_needs_maps_names_backbones_that_have_them():
    with pytest.raises(ConfigError, match=r"feature maps.*timm model"):
        ltr.build("herbs", num_classes=3, backbone=Pooled(*POOLING), image_size=32)


def test_methods_with_an_unknown_number_of_pseudo_classes_are_refused():
    with pytest.raises(ConfigError, match=r"method\.aux\.weight=0"):
        ltr.build("background_splitting", num_classes=3, aux={"partition": "kmeans", "features": "pixels"})


def test_a_network_of_a_module_cannot_be_described_in_a_checkpoint():
    network = ltr.build(num_classes=3, backbone=Pooled(*POOLING), image_size=16)
    with pytest.raises(CheckpointError, match=r"given as a module.*state_dict"):
        network_checkpoint(network, {})


def test_the_configuration_is_plain_and_checked():
    config = ltr.config(["method=crt", "seed=3"])
    assert config["seed"] == 3
    assert config["method"]["classifier"]["epochs"] == 10
    assert ltr.config()["method"]["name"] == "erm"
    with pytest.raises(ConfigError, match=r"seed=-1.*int \[0, inf\)"):
        ltr.config(["seed=-1"])
    with pytest.raises(ConfigError, match="recipe=nothing"):
        ltr.config(["recipe=nothing"])
