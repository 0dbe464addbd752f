"""timm models as backbones; timm's own ``test_*`` models stand for their families."""

from __future__ import annotations

import contextlib

import pytest
import timm
import torch

from ltr.errors import CheckpointError, ConfigError
from ltr.models.timm_backbone import TimmBackbone

FAMILIES = {
    "test_resnet": (2, 4, 8, 16, 32),
    "test_convnext": (4, 8, 16, 32),
    "test_efficientnet": (2, 4, 8, 16, 32),
    "test_vit": (16, 16, 16, 16),
}
families = pytest.mark.parametrize("name", FAMILIES)


@families
def test_features_equal_those_of_timm_and_maps_share_the_weights(name):
    backbone = TimmBackbone(3, name=name).eval()
    reference = timm.create_model(name, num_classes=0).eval()
    reference.load_state_dict(backbone.net.state_dict())
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, maps = backbone.features_and_maps(images)
        torch.testing.assert_close(features, reference(images))
        torch.testing.assert_close(backbone.feature_maps(images), maps)
    assert backbone.map_strides == FAMILIES[name]
    assert tuple(feature_map.shape[1] for feature_map in maps) == backbone.map_channels
    assert tuple(160 // feature_map.shape[2] for feature_map in maps) == backbone.map_strides


def test_a_vision_transformer_has_maps_of_four_depths():
    backbone = TimmBackbone(3, name="test_vit").eval()  # six blocks
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        expected = backbone.net.forward_intermediates(images, indices=[0, 2, 3, 5], intermediates_only=True)
        torch.testing.assert_close(backbone.feature_maps(images), expected)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("test_resnet", "layer4.0"),
        ("test_convnext", "stages.3.blocks.1"),
        ("test_efficientnet", "blocks.4.0"),
        ("test_vit", "blocks.5"),
    ],
)
def test_the_last_block_is_the_last_residual_block(name, path):
    backbone = TimmBackbone(3, name=name)
    assert backbone.last_block() is backbone.net.get_submodule(path)


def test_other_numbers_of_channels_are_accepted():
    assert TimmBackbone(1, name="test_resnet").eval()(torch.randn(2, 1, 32, 32)).shape[0] == 2


def test_a_transformer_is_built_for_another_image_size():
    backbone = TimmBackbone(3, name="test_vit", img_size=64).eval()
    assert backbone.feature_maps(torch.randn(1, 3, 64, 64))[-1].shape[2:] == (4, 4)


def test_weights_of_another_image_size_are_resized_as_timm_does(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    backbone = TimmBackbone(3, name="test_vit", img_size=64, weights=str(tmp_path / "vit.pth"))
    saved = torch.load(tmp_path / "vit.pth", weights_only=True)
    assert torch.equal(backbone.net.blocks[0].attn.qkv.weight, saved["blocks.0.attn.qkv.weight"])
    assert backbone.net.pos_embed.shape != saved["pos_embed"].shape


def test_a_timm_classifiers_file_loads_without_its_classifier(tmp_path):
    model = timm.create_model("test_convnext", num_classes=7)
    torch.save(model.state_dict(), tmp_path / "seven.pth")
    backbone = TimmBackbone(3, name="test_convnext", weights=str(tmp_path / "seven.pth"))
    assert torch.equal(backbone.net.head.norm.weight, model.head.norm.weight)
    assert "head.fc.weight" not in backbone.net.state_dict()


def test_a_file_of_another_model_is_refused_by_name(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(
        CheckpointError, match=r"(?s)ConvNeXt.*missing in the file \(\d+\): stem.*unexpected in the file \(\d+\): conv1"
    ):
        TimmBackbone(3, name="test_convnext", weights=str(tmp_path / "resnet.pth"))


def test_drop_path_reaches_the_model():
    with_drop = TimmBackbone(3, name="test_convnext", drop_path=0.5)
    assert any(getattr(module, "drop_prob", 0) for module in with_drop.modules())
    assert not any(getattr(module, "drop_prob", 0) for module in TimmBackbone(3, name="test_convnext").modules())


def test_an_option_that_the_model_lacks_is_named():
    with pytest.raises(ConfigError, match=r"backbone\.img_size=64"):
        TimmBackbone(3, name="test_resnet", img_size=64)


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(ConfigError, match="Did you mean 'resnet50'"):
        TimmBackbone(3, name="resnett50")


def test_a_hub_name_is_refused_without_pretrained():
    with pytest.raises(ConfigError, match="pretrained=true"):
        TimmBackbone(3, name="hf-hub:someone/something")


def test_a_failed_download_points_to_a_local_file(monkeypatch):
    def offline(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(CheckpointError, match=r"no route to host.*backbone\.weights=FILE"):
        TimmBackbone(3, name="test_resnet", pretrained=True)


def test_nothing_is_downloaded_unless_requested(monkeypatch):
    asked = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: asked.append(k["pretrained"]) or create(*a, **k))
    TimmBackbone(3, name="test_resnet")
    assert asked == [False]


def test_pretrained_and_a_file_together_are_refused():
    with pytest.raises(ConfigError, match="Choose one: pretrained=false"):
        TimmBackbone(3, name="test_resnet", pretrained=True, weights="some.pth")


def test_a_model_without_maps_is_refused_with_three_that_have_them(monkeypatch):
    monkeypatch.delattr(type(timm.create_model("test_resnet")), "forward_intermediates")
    backbone = TimmBackbone(3, name="test_resnet").eval()
    assert backbone.map_channels == ()
    assert backbone(torch.randn(1, 3, 32, 32)).shape == (1, backbone.num_features)
    with pytest.raises(ConfigError, match=r"'test_resnet' has no multi-scale.*resnet50, convnext_tiny or swin"):
        backbone.feature_maps(torch.randn(1, 3, 32, 32))


def tokens_of(backbone: TimmBackbone, images: torch.Tensor) -> torch.Tensor:
    return backbone.net.forward_features(images)


def test_features_of_a_transformer_are_the_class_token_or_pool_the_other_tokens():
    images = torch.randn(2, 3, 160, 160)
    for pool in ("cls", "mean", "max"):
        backbone = TimmBackbone(3, name="test_vit", pool=pool).eval()
        with torch.no_grad():
            tokens = tokens_of(backbone, images)
            rest = tokens[:, backbone.net.num_prefix_tokens :]
            expected = {"cls": tokens[:, 0], "mean": rest.mean(1), "max": rest.amax(1)}[pool]
            assert torch.allclose(backbone(images), expected, atol=1e-6)
            assert torch.allclose(backbone.features_and_maps(images)[0], expected, atol=1e-6)


def test_weights_of_another_pooling_can_be_loaded(tmp_path):
    """SigLIP-like towers bring an attention pooling, which pooling by the mean leaves out."""
    name = "vit_base_patch16_siglip_224"
    small = {"depth": 1, "embed_dim": 24, "num_heads": 2}
    tower = timm.create_model(name, num_classes=0, **small)
    assert tower.attn_pool is not None
    torch.save(tower.state_dict(), tmp_path / "tower.pth")
    with small_models(small):
        own = TimmBackbone(3, name=name, weights=str(tmp_path / "tower.pth")).eval()
        mean = TimmBackbone(3, name=name, weights=str(tmp_path / "tower.pth"), pool="mean").eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(own(images), tower.eval()(images))
        assert torch.allclose(mean(images), tower.forward_features(images).mean(1), atol=1e-6)


@contextlib.contextmanager
def small_models(options: dict):
    """Timm's models with fewer blocks, for the time of a block."""
    create = timm.create_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", lambda *args, **kwargs: create(*args, **{**options, **kwargs}))
        yield


@pytest.mark.parametrize(
    ("name", "pool", "message"),
    [
        ("test_resnet", "cls", r"test_resnet has no class token. Use backbone\.pool=mean"),
        ("test_vit2", "cls", "no class token"),
        ("test_vit", "middle", "pool=middle: allowed is one of: null, cls, mean, max"),
    ],
)
def test_an_unsupported_pooling_is_refused(name, pool, message):
    with pytest.raises(ConfigError, match=message):
        TimmBackbone(3, name=name, pool=pool)


def test_weights_of_another_model_of_the_family_are_refused_with_its_name(tmp_path):
    torch.save(timm.create_model("test_convnext2").state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"are those of test_convnext2: set backbone"):
        TimmBackbone(3, name="test_convnext", weights=str(tmp_path / "other.pth"))


def test_odd_image_sizes_interpolate_the_position_embeddings(tmp_path):
    square = timm.create_model("test_vit", num_classes=0).eval()
    torch.save(square.state_dict(), tmp_path / "vit.pth")
    assert TimmBackbone.options_for({"name": "vit_tiny_patch16_224"}, (3, 96, 128)) == {"img_size": (96, 128)}
    backbone = TimmBackbone(3, name="test_vit", weights=str(tmp_path / "vit.pth"), img_size=(96, 128)).eval()
    expected = timm.layers.resample_abs_pos_embed(square.pos_embed, (6, 8), num_prefix_tokens=square.num_prefix_tokens)
    assert torch.allclose(backbone.net.pos_embed, expected, atol=1e-6)
