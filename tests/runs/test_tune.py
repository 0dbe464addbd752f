"""Runs that tune a part of a backbone: their identity, their checkpoints, and their messages."""

from __future__ import annotations

import pytest
import torch

import ltr
from ltr.apply.export import export, load_exported
from ltr.errors import CheckpointError
from ltr.methods.core.checkpoint import load_network, read_checkpoint
from ltr.methods.core.settings import Settings
from ltr.models.state_file import read_state
from ltr.models.weights import load_backbone
from ltr.runs.keys import run_hash

SHORT = ["debug=fast", "trainer.precision=fp32"]


def outcome(tmp_path, *overrides):
    folders = [f"paths.outputs={tmp_path}/o", f"paths.stages={tmp_path}/s"]
    return ltr.train([*SHORT, *folders, *overrides], quiet=True)


def test_the_default_does_not_change_the_identity_of_a_run():
    config = ltr.config(SHORT)
    assert run_hash(config) == run_hash({key: value for key, value in config.items() if key != "tune"})
    assert run_hash(config) != run_hash(ltr.config([*SHORT, "tune=norm"]))


@pytest.mark.parametrize("tune", ["none", "norm", "lora"])
def test_a_tuned_network_is_rebuilt_from_its_checkpoint(tmp_path, tune, digits):
    run = outcome(tmp_path, f"tune={tune}")
    network = load_network(run.directory / "checkpoints" / "final.ckpt")
    assert isinstance(network.settings, Settings)
    assert network.settings.tune["_target_"].startswith("ltr.models.tuning")
    first, second = (ltr.load(run.directory).predict(digits) for _ in range(2))
    assert (first == second).all()
    with torch.no_grad():
        logits = network(torch.as_tensor(digits).permute(0, 3, 1, 2).float() / 255)
    assert (logits.softmax(1).numpy().argmax(1) == first.argmax(1)).all()


@pytest.fixture
def digits():
    from ltr.data.sources.digits import digits as source

    return source().images[:4]


def test_frozen_random_weights_warn(tmp_path, capsys):
    ltr.train([*SHORT, "tune=norm", "stages=plan", f"paths.outputs={tmp_path}"], quiet=True)
    assert "tune trains a part of the backbone, and there are no weights" in capsys.readouterr().err


def test_a_later_stage_has_the_tuned_structure(tmp_path):
    run = outcome(tmp_path, "method=crt", "tune=lora", "tune.rank=2")
    network = load_network(run.directory / "checkpoints" / "final.ckpt")
    assert any(".lora_" in name for name in network.state_dict())


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.pth"
    torch.save(ltr.build("erm", num_classes=10, backbone="digits_net", channels=1).backbone.state_dict(), path)
    return path


@pytest.mark.parametrize("tune", ["none", "norm", "lora"])
def test_a_checkpoint_holds_the_tuned_parameters_and_the_digest_of_the_base(tmp_path, tune, base, digits):
    run = outcome(tmp_path, f"tune={tune}", f"backbone.weights={base}")
    path = run.directory / "checkpoints" / "final.ckpt"
    stored, network = read_checkpoint(path), load_network(path)
    frozen = {name for name, p in network.backbone.named_parameters() if not p.requires_grad}
    assert not {name for name in stored["state_dict"] if name.removeprefix("backbone.") in frozen}
    assert stored["base"]["digest"] == network.base.digest
    whole = outcome(tmp_path / "whole", f"tune={tune}", f"backbone.weights={base}", "checkpoint.tuned=whole")
    other = load_network(whole.directory / "checkpoints" / "final.ckpt")
    first, second = network.state_dict(), other.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "base" not in read_checkpoint(whole.directory / "checkpoints" / "final.ckpt")


def test_without_its_base_or_with_another_one_a_checkpoint_is_refused(tmp_path, base):
    path = outcome(tmp_path, "tune=norm", f"backbone.weights={base}").directory / "checkpoints" / "final.ckpt"
    before = load_network(path).state_dict()
    with pytest.raises(CheckpointError, match="holds only the tuned part of its weights"):
        read_state(path)
    moved = base.rename(path.parent / base.name)
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_network(path).state_dict().items())
    state = torch.load(moved, weights_only=True)
    torch.save({**state, next(iter(state)): next(iter(state.values())) + 1}, moved)
    with pytest.raises(CheckpointError, match="has changed since it was tuned"):
        load_network(path)
    moved.unlink()
    with pytest.raises(CheckpointError, match=r"which does not exist\. Put the file back"):
        load_network(path)


def test_an_export_needs_no_base(tmp_path, base, digits):
    path = outcome(tmp_path, "tune=lora", f"backbone.weights={base}").directory / "checkpoints" / "final.ckpt"
    before = load_network(path).predict_headline(torch.as_tensor(digits).permute(0, 3, 1, 2)).logits
    export(path, tmp_path / "exported")
    base.unlink()
    exported = load_exported(tmp_path / "exported")
    after = exported.predict_headline(torch.as_tensor(digits).permute(0, 3, 1, 2)).logits
    assert torch.allclose(after, before, atol=1e-5)


def with_large_update(path):
    """Give the update of a checkpoint's LoRA values that change its logits; return the logits' network."""
    content = read_checkpoint(path)
    for name, tensor in content["state_dict"].items():
        if ".lora_B." in name:
            tensor.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    path.unlink()  # a link to the stage's file
    torch.save(content, path)
    return load_network(path)


def test_an_export_of_lora_is_a_plain_network_with_the_same_logits(tmp_path, base, digits):
    path = (
        outcome(tmp_path, "tune=lora", "tune.alpha=12", f"backbone.weights={base}").directory / "checkpoints/final.ckpt"
    )
    images = torch.as_tensor(digits).permute(0, 3, 1, 2)
    tuned = with_large_update(path)
    done = export(path, tmp_path / "exported")
    plain = load_exported(tmp_path / "exported")
    assert plain.tuning is None
    assert not any("lora" in name for name in plain.state_dict())
    assert torch.allclose(plain.predict_headline(images).logits, tuned.predict_headline(images).logits, atol=1e-5)
    assert 0 <= done.merged_difference < 1e-5
    untuned = ltr.build("erm", num_classes=10, backbone="digits_net", channels=1).backbone.eval()
    untuned.load_state_dict(torch.load(base, weights_only=True))
    unit = images.float() / 255
    assert not torch.allclose(plain.backbone(unit), untuned(unit), atol=1e-2)


@pytest.mark.parametrize("way", ["whole", "exported"])
def test_a_run_starts_from_the_merged_backbone_of_lora(tmp_path, base, digits, way):
    options = ["tune=lora", f"backbone.weights={base}", *(["checkpoint.tuned=whole"] if way == "whole" else [])]
    path = outcome(tmp_path, *options).directory / "checkpoints" / "final.ckpt"
    tuned = with_large_update(path)
    if way == "exported":
        export(path, tmp_path / "exported")
        path = tmp_path / "exported" / "model.safetensors"
    backbone = ltr.build("erm", num_classes=10, backbone="digits_net", channels=1).backbone.eval()
    load_backbone(backbone, path)
    unit = torch.as_tensor(digits).permute(0, 3, 1, 2).float() / 255
    assert torch.allclose(backbone(unit), tuned.backbone(unit), atol=1e-5)


def test_the_file_of_a_damaged_update_is_named(tmp_path, base):
    path = outcome(tmp_path, "tune=lora", "checkpoint.tuned=whole").directory / "checkpoints" / "final.ckpt"
    content = read_checkpoint(path)
    up = next(name for name in content["state_dict"] if ".lora_B." in name)
    torch.save(
        {**content, "state_dict": {n: t for n, t in content["state_dict"].items() if n != up}}, tmp_path / "a.ckpt"
    )
    with pytest.raises(CheckpointError, match="a low-rank update does not fit"):
        read_state(tmp_path / "a.ckpt")
    torch.save({**content, "description": "{}"}, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match="without their scale"):
        read_state(tmp_path / "b.ckpt")
