"""The contract of every backbone config: features, maps, last block, trainable parts, bf16 with channels_last."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from ltr.configuration.configs import read_config
from ltr.configuration.targets import instantiate
from ltr.models.backbones import Backbone

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "backbone").glob("*.yaml"))
SMALL = {  # (changes of the config, channels, size): small enough for a test, otherwise as shipped
    "digits_net": ({}, 1, 8),
    "timm": ({"name": "test_resnet"}, 3, 64),
    "torchvision": ({"name": "mobilenet_v3_small"}, 3, 64),
}


def build(config: Path, **changes) -> tuple[Backbone, torch.Tensor]:
    renamed, channels, size = SMALL.get(config.stem, ({}, 3, 16))
    node = {**read_config(f"backbone/{config.stem}"), **renamed, **changes}
    images = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    return instantiate(node, channels), images


configs = pytest.mark.parametrize("config", CONFIGS, ids=[config.stem for config in CONFIGS])


@configs
def test_features_and_maps_have_the_declared_shapes(config):
    backbone, images = build(config)
    backbone.eval()
    with torch.no_grad():
        features, maps = backbone.features_and_maps(images)
        alone, maps_alone = backbone(images), backbone.feature_maps(images)
    assert features.shape == (2, backbone.num_features)
    assert tuple(feature_map.shape[1] for feature_map in maps) == backbone.map_channels
    assert tuple(images.shape[2] // feature_map.shape[2] for feature_map in maps) == backbone.map_strides
    assert tuple(sorted(backbone.map_strides)) == backbone.map_strides
    torch.testing.assert_close(alone, features)
    torch.testing.assert_close(maps_alone, maps)


@configs
def test_bf16_channels_last_trains(config):
    backbone, images = build(config)
    backbone.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        features, maps = backbone.features_and_maps(images.to(memory_format=torch.channels_last))
    assert features.isfinite().all()
    (features.float().square().sum() + sum(feature_map.float().mean() for feature_map in maps)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


@configs
def test_only_the_last_block_is_trained_if_requested(config):
    backbone, images = build(config, trainable="last_block")
    block = {id(p) for p in backbone.last_block().parameters()}
    trained = {id(p) for p in backbone.parameters() if p.requires_grad}
    assert trained == block
    assert 0 < len(block) < len(list(backbone.parameters()))
    backbone(images).sum().backward()
    assert all((p.grad is not None) == (id(p) in block) for p in backbone.parameters())


@configs
def test_no_parameter_of_a_frozen_backbone_is_trained(config):
    backbone, images = build(config, trainable="none")
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not backbone(images).requires_grad


@configs
def test_weights_saved_from_one_load_into_another(config, tmp_path):
    first, images = build(config)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in first.state_dict().items()}}, tmp_path / "run.ckpt")
    second, _ = build(config, weights=str(tmp_path / "run.ckpt"))
    with torch.no_grad():
        torch.testing.assert_close(first.eval()(images), second.eval()(images))


@configs
def test_a_deep_copy_is_independent(config):
    backbone, images = build(config)
    twin = copy.deepcopy(backbone).eval()
    with torch.no_grad():
        before = twin.feature_maps(images)
        for parameter in backbone.parameters():
            parameter.zero_()
        torch.testing.assert_close(twin.feature_maps(images), before)
