"""torchvision models as backbones."""

from __future__ import annotations

import pytest
import torch
import torchvision

from ltr.errors import CheckpointError, ConfigError
from ltr.models.torchvision_backbone import TorchvisionBackbone
from ltr.models.weights import seeded_construction

STRIDES = {
    "resnet18": (2, 4, 8, 16, 32),
    "mobilenet_v3_small": (2, 4, 8, 16, 32),
    "densenet121": (2, 4, 8, 16, 32),
    "squeezenet1_1": (2, 4, 8, 16),
    "shufflenet_v2_x0_5": (2, 4, 8, 16, 32),
    "mnasnet0_5": (2, 4, 8, 16, 32),
}


@pytest.mark.parametrize("name", STRIDES)
def test_every_family_has_features_and_maps_of_the_declared_shapes(name):
    backbone = TorchvisionBackbone(3, name=name).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, maps = backbone.features_and_maps(images)
        torch.testing.assert_close(backbone(images), features)
    assert features.shape == (2, backbone.num_features)
    assert backbone.map_strides == STRIDES[name]
    assert tuple(feature_map.shape[1] for feature_map in maps) == backbone.map_channels
    assert [round(64 / feature_map.shape[2]) for feature_map in maps] == pytest.approx(list(STRIDES[name]), rel=0.35)


def test_features_are_the_input_of_torchvisions_classifier():
    with seeded_construction(5):
        backbone = TorchvisionBackbone(3, name="resnet18").eval()
    with seeded_construction(5):
        model = torchvision.models.resnet18().eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.fc(backbone(images)), model(images))


def test_swins_maps_are_channels_first():
    backbone = TorchvisionBackbone(3, name="swin_t").eval()
    with torch.no_grad():
        maps = backbone.feature_maps(torch.randn(1, 3, 64, 64))
    assert [tuple(feature_map.shape[1:]) for feature_map in maps] == [
        (96, 16, 16),
        (192, 8, 8),
        (384, 4, 4),
        (768, 2, 2),
    ]


def test_drop_path_stays_on_when_modes_are_restored_without_train():
    backbone = TorchvisionBackbone(3, name="mobilenet_v3_small").eval()
    for module in backbone.modules():
        module.training = True  # what Lightning does after validation
    images = torch.randn(4, 3, 32, 32)
    assert not torch.equal(backbone(images), backbone(images))


@pytest.mark.parametrize(
    ("name", "path"),
    [("resnet18", "layer4.1"), ("densenet121", "features.denseblock4"), ("squeezenet1_1", "features.12")],
)
def test_last_block_is_the_last_residual_or_transformer_block(name, path):
    backbone = TorchvisionBackbone(3, name=name)
    assert backbone.last_block() is backbone.net.get_submodule(path)


def test_other_numbers_of_channels_are_accepted():
    backbone = TorchvisionBackbone(1, name="squeezenet1_1").eval()
    assert backbone(torch.randn(2, 1, 64, 64)).shape == (2, 512)


@pytest.mark.parametrize("in_channels", [1, 2, 4, 6])
def test_pretrained_first_layers_are_adapted_to_the_images_channels(monkeypatch, in_channels):
    get_model = torchvision.models.get_model
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: get_model(name, weights=None))
    with seeded_construction(1):
        colour = TorchvisionBackbone(3, name="resnet18", pretrained=True).net.conv1
    with seeded_construction(1):
        other = TorchvisionBackbone(in_channels, name="resnet18", pretrained=True).net.conv1
    assert other.weight.shape == (64, in_channels, 7, 7)
    grey = torch.rand(1, 1, 32, 32)
    response, expected = other(grey.expand(1, in_channels, -1, -1)), colour(grey.expand(1, 3, -1, -1))
    if in_channels in (1, 6):  # the filters of all colours are there, equally often
        torch.testing.assert_close(response, expected)
    else:
        for channel in range(in_channels):
            torch.testing.assert_close(other.weight[:, channel] * in_channels / 3, colour.weight[:, channel % 3])


def test_a_transformer_without_maps_is_refused_with_three_that_have_them(monkeypatch):
    small = torchvision.models.VisionTransformer(224, 32, 1, 1, 16, 16)
    monkeypatch.setattr(torchvision.models, "get_model", lambda *a, **k: small)
    backbone = TorchvisionBackbone(3, name="vit_b_32")
    assert backbone.map_channels == ()
    assert backbone.num_features == 16
    assert backbone.last_block() is backbone.net.encoder.layers[-1]
    with pytest.raises(ConfigError, match=r"'vit_b_32' has no multi-scale.*resnet50, convnext_tiny or swin_t"):
        backbone.feature_maps(torch.randn(1, 3, 224, 224))


def test_a_torchvision_classifiers_file_loads(tmp_path):
    model = torchvision.models.resnet18(num_classes=5)
    torch.save(model.state_dict(), tmp_path / "five.pth")
    backbone = TorchvisionBackbone(3, name="resnet18", weights=str(tmp_path / "five.pth"))
    assert torch.equal(backbone.net.conv1.weight, model.conv1.weight)


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(ConfigError, match="Did you mean 'resnet18'"):
        TorchvisionBackbone(3, name="resnet_18")


def test_a_failed_download_points_to_a_local_file(monkeypatch):
    def offline(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    with pytest.raises(CheckpointError, match=r"no route to host.*backbone\.weights=FILE"):
        TorchvisionBackbone(3, name="resnet18", pretrained=True)
