"""Outputs of a backbone for an image: a vector, its last map, or its tokens."""

from __future__ import annotations

import pytest
import torch
import torchvision
from timm.models.swin_transformer import SwinTransformer
from torchvision.models import VisionTransformer

from ltr.errors import ConfigError
from ltr.models.backbone_output import VECTOR, BackboneOutput, local_features
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.timm_backbone import TimmBackbone, TimmFeatures
from ltr.models.torchvision_backbone import TorchvisionBackbone

MAP, TOKENS, ALL_TOKENS = BackboneOutput("map"), BackboneOutput("tokens"), BackboneOutput("tokens", True)
IMAGE = (3, 64, 64)


@pytest.fixture(scope="module")
def vit():
    return TimmBackbone(3, name="test_vit", img_size=64).eval()


def images(size=64):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "backbone",
    [
        lambda: CifarResNet(3, depth=8),
        lambda: TimmBackbone(3, name="test_resnet"),
        lambda: TimmBackbone(3, name="test_efficientnet"),
        lambda: TorchvisionBackbone(3, name="shufflenet_v2_x0_5"),
    ],
    ids=["cifar_resnet", "timm resnet", "timm efficientnet", "torchvision shufflenet"],
)
@torch.no_grad()
def test_the_average_of_the_last_map_is_the_vector(backbone):
    built = backbone().eval()
    output = MAP(built, images())
    assert output.shape[1:] == MAP.shape(built, IMAGE)
    assert MAP.width(built, IMAGE) == built.num_features == output.shape[1]
    assert torch.allclose(local_features(output).mean(1), built(images()), atol=1e-5)


@torch.no_grad()
def test_a_map_with_channels_last_is_turned():
    small = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "num_classes": 0}
    swin = TimmFeatures(SwinTransformer(**small), "swin", (3, 32, 32)).eval()
    assert MAP.shape(swin, (3, 32, 32)) == (16, 4, 4)
    assert torch.allclose(MAP(swin, images(32)).mean((2, 3)), swin(images(32)), atol=1e-5)


@torch.no_grad()
def test_tokens_include_or_exclude_prefix_tokens(vit):
    tokens, all_tokens = TOKENS(vit, images()), ALL_TOKENS(vit, images())
    patches = (64 // 16) ** 2
    assert tokens.shape == (2, patches, vit.num_features)
    assert all_tokens.shape == (2, patches + vit.num_prefix_tokens, vit.num_features)
    assert torch.equal(all_tokens[:, vit.num_prefix_tokens :], tokens)
    assert (TOKENS.width(vit, IMAGE), ALL_TOKENS.shape(vit, IMAGE)) == (vit.num_features, all_tokens.shape[1:])


@torch.no_grad()
def test_the_class_token_is_the_first_of_all_tokens(monkeypatch):
    small = {"patch_size": 32, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8}
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, **_: VisionTransformer(224, **small))
    vit = TorchvisionBackbone(3, name="vit_b_32").eval()
    assert torch.equal(ALL_TOKENS(vit, images(224))[:, 0], vit(images(224)))


def test_map_positions_become_rows():
    output = torch.arange(24).view(1, 2, 3, 4)
    assert torch.equal(local_features(output)[0, 5], output[0, :, 1, 1])
    assert torch.equal(local_features(local_features(output)), local_features(output))


def test_an_unsupported_output_is_refused_with_the_supported_one(vit):
    with pytest.raises(ConfigError, match=r"features.output=map: the backbone 'test_vit' .*Use features.output=tokens"):
        MAP.shape(vit, IMAGE)
    for backbone in (
        CifarResNet(3, depth=8),
        TimmBackbone(3, name="test_resnet"),
        TorchvisionBackbone(3, name="squeezenet1_1"),
    ):
        with pytest.raises(ConfigError, match=r"has no tokens. Use features.output=map"):
            TOKENS.shape(backbone, IMAGE)


def test_vector_output_does_not_change_identities():
    assert BackboneOutput.of(None) == BackboneOutput.of({"views": 0}) == VECTOR
    assert VECTOR.spec() == {}
    assert MAP.spec() == {"output": "map"}
    assert TOKENS.spec() != ALL_TOKENS.spec()
