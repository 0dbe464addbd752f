"""Weights of folders in timm's layout, and of the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch

from ltr.errors import CheckpointError
from ltr.models import hub_weights
from ltr.models.hub_weights import hub_config, weights_file, with_weights_file
from ltr.models.preprocessing import timm_preprocessing
from ltr.models.timm_backbone import TimmBackbone


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small model with unusual preprocessing, as timm saves it."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    preprocessing = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "input_size": [3, 64, 64], "crop_pct": 0.5}
    config = {"pretrained_cfg": {**preprocessing, "interpolation": "bicubic"}}
    timm.models.save_for_hf(model, str(tmp_path / "model"), model_config=config, safe_serialization="both")
    return tmp_path / "model"


@pytest.fixture
def hub(monkeypatch, folder):
    """The hub as a function of tests: a model ``owner/name`` with the files of ``folder``."""
    asked = []

    def download(model: str, file: str, revision: str | None = None) -> str:
        asked.append((model, file, revision))
        if model != "owner/name":
            raise ConnectionError("Cannot reach the hub\nand more")
        if not (folder / file).is_file():
            raise huggingface_hub.errors.EntryNotFoundError(file)
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    hub_weights._downloaded.cache_clear()
    yield asked
    hub_weights._downloaded.cache_clear()


def same_weights(backbone: TimmBackbone, folder: Path) -> bool:
    expected = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).state_dict()
    actual = backbone.net.state_dict()
    return list(expected) == list(actual) and all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.parametrize("kept", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_with_either_weights_file_is_accepted(folder, kept):
    for name in ("model.safetensors", "pytorch_model.bin"):
        if name != kept:
            (folder / name).unlink()
    assert same_weights(TimmBackbone(3, name="test_resnet", weights=f"local-dir:{folder}"), folder)


def test_a_folder_of_another_architecture_is_refused_with_both_names(folder):
    with pytest.raises(CheckpointError) as error:
        TimmBackbone(3, name="test_vit", weights=f"local-dir:{folder}")
    assert f"{folder / 'config.json'} names the architecture test_resnet, and backbone.name asks for test_vit" in str(
        error.value
    )
    assert "Set backbone.name=test_resnet" in str(error.value)


@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:"])
def test_a_model_of_the_hub_is_downloaded_once(hub, folder, prefix):
    name = f"{prefix}owner/name@v2"
    assert same_weights(TimmBackbone(3, name="test_resnet", weights=name), folder)
    assert weights_file(name) == str(folder / "model.safetensors")
    assert hub == [("owner/name", "config.json", "v2"), ("owner/name", "model.safetensors", "v2")]


def test_a_model_of_the_hub_without_safetensors_has_its_older_file(hub, folder):
    (folder / "model.safetensors").unlink()
    assert weights_file("hf-hub:owner/name") == str(folder / "pytorch_model.bin")


def test_without_a_network_connection_the_error_says_what_to_do(hub):
    with pytest.raises(CheckpointError, match=r"Cannot reach the hub\).*set backbone.weights=local-dir:FOLDER"):
        TimmBackbone(3, name="test_resnet", weights="hf-hub:owner/other")
    assert len(hub) == 1  # not asked again for the preprocessing
    assert hub_config("hf-hub:owner/other") is None
    assert len(hub) == 1


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"the folder has no model.safetensors or pytorch_model.bin. Give the"):
        weights_file(f"local-dir:{tmp_path}")
    with pytest.raises(CheckpointError, match="there is no such folder"):
        weights_file(f"local-dir:{tmp_path / 'none'}")


@pytest.mark.parametrize("written", ["local-dir:{}", "{}/model.safetensors"])
def test_the_folder_describes_its_preprocessing(folder, written):
    described = timm_preprocessing("test_resnet", False, written.format(folder))
    assert described is not None
    assert described.mean == (0.1, 0.2, 0.3)
    assert described.std == (0.5, 0.6, 0.7)
    assert (described.size, described.resize, described.interpolation) == (64, 128, "bicubic")


@pytest.mark.parametrize("content", ["[]", "{", json.dumps({"pretrained_cfg": 3}), json.dumps({"image_shape": [1]})])
def test_unrelated_config_files_are_ignored(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert hub_config(str(tmp_path / "weights.pth")) is None


def test_a_config_with_a_plain_path_is_unchanged(folder):
    for weights in (None, "weights.pth"):
        config = {"name": "test_resnet", "weights": weights}
        assert with_weights_file(config) is config
    resolved = with_weights_file({"name": "test_resnet", "weights": f"local-dir:{folder}"})
    assert resolved == {"name": "test_resnet", "weights": str(folder / "model.safetensors")}
