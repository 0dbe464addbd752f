"""Export for the Hugging Face hub: networks that timm rebuilds, model cards, and refusals."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from ltr.apply.hub import export_hub
from ltr.apply.model_card import model_card
from ltr.errors import ConfigError, TrainingError
from ltr.methods.core import timm_model as timm_model_module
from ltr.methods.core.checkpoint import describe, load_network, network_checkpoint
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.decoupling.posthoc import ADJUSTMENTS
from ltr.methods.decoupling.retrained import ScaledHead
from ltr.models.heads import CosineHead, LinearHead

HOSTILE = "</script>[x](javascript:1)|`\n# heading"
RESNET = {"_target_": "ltr.models.timm_backbone.TimmBackbone", "name": "test_resnet"}
VIT = {**RESNET, "name": "test_vit", "img_size": 64}


@pytest.fixture
def spec_of(checkpoint):
    """Return the specification of a run on digits with another backbone, image shape and settings."""
    stored = describe(checkpoint)

    def make(backbone: dict[str, Any] = RESNET, side: int = 32, channels: int = 1, **changes: Any) -> NetworkSpec:
        settings = Settings(**{**stored["settings"], "backbone": backbone, **changes})
        facts = {**stored["facts"], "image_shape": [channels, side, side], "mean": [0.3] * channels}
        facts["std"] = [0.4] * channels
        return NetworkSpec(settings, DatasetInfo.from_dict(facts), 0, "main")

    return make


def saved(network: ImageClassifier, path: Path) -> Path:
    torch.save(network_checkpoint(network, {"name": "digits_lt"}), path)
    return path


def randomised(network: ImageClassifier) -> ImageClassifier:
    """The network with statistics of batch normalisation that differ from their initial values."""
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize(("backbone", "side", "channels"), [(RESNET, 32, 1), (RESNET, 40, 3), (VIT, 64, 3)])
def test_timm_gives_equal_logits(spec_of, tmp_path, backbone, side, channels):
    network = randomised(ImageClassifier(spec_of(backbone, side, channels)))
    done = export_hub(saved(network, tmp_path / "final.ckpt"), tmp_path / "model")
    assert done.difference == 0
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted(done.files)
    model = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    images = torch.rand(3, channels, side, side)
    with torch.inference_mode():
        expected = network.predict(images)["default"].logits
        torch.testing.assert_close(model(network.normalise(images)), expected, rtol=1e-5, atol=1e-5)


def test_timm_reads_classes_and_preprocessing(spec_of, tmp_path):
    network = ImageClassifier(spec_of(side=32, channels=3))
    export_hub(saved(network, tmp_path / "final.ckpt"), tmp_path / "model")
    model = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)
    assert model.num_classes == 10
    assert list(model.pretrained_cfg["label_names"]) == list(network.dataset_info.class_names)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 32, 32)
    assert tuple(config["mean"]) == (0.3, 0.3, 0.3)
    assert tuple(config["std"]) == (0.4, 0.4, 0.4)
    assert "license" not in json.loads((tmp_path / "model" / "config.json").read_text())["pretrained_cfg"]


@pytest.mark.parametrize(
    ("method", "options"), [*((name, {}) for name in ADJUSTMENTS), ("tau_norm", {"keep_bias": True})]
)
@pytest.mark.parametrize("standardize", [False, True])
def test_adjusted_logits_are_folded_into_the_classifier(spec_of, tmp_path, method, options, standardize):
    spec = spec_of(features={"standardize": standardize} if standardize else None)
    network = ImageClassifier(spec)
    if standardize:
        network.standardization.mean.uniform_(-1, 1)
        network.standardization.factor.uniform_(0.5, 2)
    adjusted = ADJUSTMENTS[method].from_network(network, taus=[0.0, 0.7], chosen=1, **options)
    done = export_hub(saved(adjusted, tmp_path / "final.ckpt"), tmp_path / "model")
    assert done.difference < 1e-4


@pytest.mark.parametrize("bias", [True, False])
def test_the_linear_map_of_scaled_heads_gives_their_logits(bias):
    head = LinearHead(6, 4, bias=bias)
    scaled = ScaledHead(head, 4)
    scaled.scales.data.uniform_(0.5, 2)
    features = torch.randn(5, 6)
    for one in (head, scaled):
        weight, offset = one.linear_map()
        torch.testing.assert_close(features @ weight.T + offset, one(features))
    assert ScaledHead(CosineHead(6, 4), 4).linear_map() is None


def test_other_backbones_are_refused_with_what_to_use(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=r"DigitsNet, which timm does not have\. Use ltr-export RUN --out FOLDER"):
        export_hub(checkpoint, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_heads_that_are_not_linear_are_refused(spec_of, tmp_path):
    head = {"_target_": "ltr.models.heads.CosineHead"}
    checkpoint = saved(ImageClassifier(spec_of(head=head)), tmp_path / "final.ckpt")
    with pytest.raises(ConfigError, match="head CosineHead is not of this form"):
        export_hub(checkpoint, tmp_path / "model")


def test_a_model_with_other_logits_is_not_exported(spec_of, tmp_path, monkeypatch):
    checkpoint = saved(ImageClassifier(spec_of()), tmp_path / "final.ckpt")
    original = ImageClassifier.linear_readout
    monkeypatch.setattr(
        ImageClassifier, "linear_readout", lambda network: (original(network)[0], original(network)[1] + 1)
    )
    with pytest.raises(TrainingError, match="nothing was exported"):
        export_hub(checkpoint, tmp_path / "model")
    assert not list((tmp_path / "model").iterdir())


def test_layers_that_timm_does_not_have_are_refused(spec_of):
    class Added(torch.nn.Module):
        name = "adapter"

        def merge(self, backbone):
            backbone.net.extra = torch.nn.Linear(1, 1)

    network = ImageClassifier(spec_of())
    network.tuning = Added()
    with pytest.raises(ConfigError, match="tune=adapter added layers that timm does not have"):
        timm_model_module.timm_model(network)


RESULT = {
    "config": {"method.name": "erm", "seed": 3, "trainer.limit_train_batches": None},
    "run_hash": "ab12",
    "data": {"split": "digits-exp15", "test_images": 400},
    "rows": [
        {
            "protocol": "closed_set",
            "split": "test",
            "selection": "last",
            "headline": True,
            "metrics": {"accuracy": 0.912, "few": None, "nll": 0.5},
        }
    ],
}


def test_the_card_has_results_use_licence_and_citation(checkpoint):
    card = model_card(describe(checkpoint), RESULT, "digits")
    assert card.startswith("---\nlibrary_name: timm\n")
    assert "| closed\\_set | test | last | accuracy | 91.2 % |" in card
    assert "| few | – |" in card
    assert "400 test images" in card
    for part in ("## Intended use", "## Training", "## Licence", "@software{ltr,", "license: other", "seed 3"):
        assert part in card
    assert "Limited run" not in card


def test_the_card_says_which_results_are_not_comparable(checkpoint):
    selected = {**RESULT, "rows": [{**RESULT["rows"][0], "selection": "best_test"}]}
    card = model_card(describe(checkpoint), selected, "digits", "2 of the recipe's 40 epochs (trainer.max_epochs)")
    assert "**Limited run**: 2 of the recipe's 40 epochs (trainer.max\\_epochs)." in card
    assert "**selected on the test images**" in card
    assert "without its run's result.json" in model_card(describe(checkpoint), None, "digits")


def test_names_are_escaped_in_the_card(checkpoint):
    import yaml

    description = describe(checkpoint)
    description["facts"]["class_names"] = [HOSTILE] * 10
    description["dataset"] = {"name": HOSTILE}
    card = model_card(description, None, HOSTILE)
    _, metadata, body = card.split("---\n", 2)
    assert yaml.safe_load(metadata)["tags"][3].startswith("</script>")
    assert "[x](javascript" not in body.split("```python")[0]
    assert "\n# heading" not in body


def test_an_edited_card_is_not_overwritten(spec_of, tmp_path):
    checkpoint = saved(ImageClassifier(spec_of()), tmp_path / "final.ckpt")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("mine")
    done = export_hub(checkpoint, tmp_path / "model")
    assert done.kept_card
    assert (tmp_path / "model" / "README.md").read_text() == "mine"


def test_the_card_of_another_run_is_refused_before_anything_is_written(spec_of, tmp_path):
    checkpoint = saved(ImageClassifier(spec_of()), tmp_path / "final.ckpt")
    card = tmp_path / "model" / "README.md"
    card.parent.mkdir()
    card.write_text(f"run: {'a' * 64}")
    with pytest.raises(
        ConfigError, match=r"README\.md in it has the metrics of another run.* move .*README\.md elsewhere"
    ):
        export_hub(checkpoint, card.parent)
    assert list(card.parent.iterdir()) == [card]


def test_an_exported_model_is_the_start_of_another_run(spec_of, tmp_path, caplog):
    network = randomised(ImageClassifier(spec_of()))
    export_hub(saved(network, tmp_path / "final.ckpt"), tmp_path / "model")
    backbone = {**RESNET, "weights": f"local-dir:{tmp_path / 'model'}"}
    with caplog.at_level(logging.WARNING):
        started = ImageClassifier(spec_of(backbone))
    expected, actual = network.backbone.state_dict(), started.backbone.state_dict()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert not caplog.records
    again = load_network(saved(started, tmp_path / "second.ckpt")).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in started.state_dict().items())


def test_lora_is_merged_into_the_weights(spec_of, tmp_path):
    spec = spec_of(VIT, 64, 3, tune={"_target_": "ltr.models.tuning_lora.TuneLoRA", "rank": 2})
    network = ImageClassifier(spec)
    for name, parameter in network.backbone.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    done = export_hub(saved(network.eval(), tmp_path / "final.ckpt"), tmp_path / "model")
    assert done.difference < 1e-3
    model = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)
    assert not any("lora" in name for name in model.state_dict())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_of_another_program_is_not_replaced(spec_of, tmp_path, name):
    weights = saved(ImageClassifier(spec_of()), tmp_path / "final.ckpt")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / name).write_text('{"architecture": "resnet50"}')
    with pytest.raises(ConfigError, match=f"{name} is not of ltr-export --hub, and would be replaced"):
        export_hub(weights, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {name: '{"architecture": "resnet50"}'}


@pytest.mark.parametrize("changed", ["README.md", "config.json"])
def test_an_export_is_known_by_its_config_or_its_card(spec_of, tmp_path, changed):
    weights = saved(ImageClassifier(spec_of()), tmp_path / "final.ckpt")
    export_hub(weights, tmp_path / "model")
    file = tmp_path / "model" / changed
    if changed == "README.md":
        file.write_text("my card")
    else:  # as earlier versions wrote it
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "written_by"}))
    assert export_hub(weights, tmp_path / "model").kept_card
    assert json.loads((tmp_path / "model" / "config.json").read_text())["written_by"] == "ltr-export --hub"
