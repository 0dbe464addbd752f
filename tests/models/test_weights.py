"""Weights from files and reproducible initialisation."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ltr.errors import CheckpointError, ConfigError
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.digits_net import DigitsNet
from ltr.models.heads import LinearHead
from ltr.models.weights import load_state, seeded_construction, set_trainable


@pytest.fixture
def network() -> DigitsNet:
    return DigitsNet(1)


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".pth.tar", ".safetensors"])
def test_every_format_gives_the_same_weights(network, tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(network.state_dict(), path)
    assert same(DigitsNet(1, weights=str(path)), network)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "backbone.", "backbone._orig_mod."])
def test_prefixes_of_wrappers_are_dropped(network, tmp_path, prefix):
    torch.save({prefix + name: value for name, value in network.state_dict().items()}, tmp_path / "file.pth")
    assert same(DigitsNet(1, weights=str(tmp_path / "file.pth")), network)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_training_checkpoint_is_unwrapped(network, tmp_path, key):
    torch.save({"epoch": 3, "optimizer": {"state": {}}, key: network.state_dict()}, tmp_path / "file.ckpt")
    assert same(DigitsNet(1, weights=str(tmp_path / "file.ckpt")), network)


def test_classifier_entries_are_skipped_and_listed(network, tmp_path, caplog):
    state = {**network.state_dict(), "linear.weight": torch.zeros(10, 64), "linear.bias": torch.zeros(10)}
    torch.save(state, tmp_path / "file.pth")
    with caplog.at_level(logging.INFO, "ltr.models.weights"):
        assert same(DigitsNet(1, weights=str(tmp_path / "file.pth")), network)
    assert "linear.weight, linear.bias" in caplog.text


def test_only_the_backbone_of_a_run_is_loaded(network, tmp_path):
    state = {f"backbone.{name}": value for name, value in network.state_dict().items()}
    torch.save(
        {"state_dict": {**state, "head.weight": torch.zeros(10, 64), "loss.prior": torch.zeros(3)}}, tmp_path / "a.pt"
    )
    assert same(DigitsNet(1, weights=str(tmp_path / "a.pt")), network)


def test_batch_counters_may_be_missing(network, tmp_path):
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "old.pth")
    assert same(DigitsNet(1, weights=str(tmp_path / "old.pth")), network)


def test_missing_unexpected_and_mis_shaped_names_are_listed(network, tmp_path):
    state = network.state_dict()
    del state["stage1.0.weight"]
    state["stage9.weight"] = torch.zeros(1)
    state["stage2.0.weight"] = torch.zeros(48, 32, 5, 5)
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(CheckpointError) as caught:
        DigitsNet(1, weights=str(tmp_path / "file.pth"))
    message = str(caught.value)
    assert "missing in the file (1): stage1.0.weight" in message
    assert "unexpected in the file (1): stage9.weight" in message
    assert "stage2.0.weight is [48, 32, 5, 5], needs [48, 32, 3, 3]" in message


def test_only_the_first_names_are_listed(tmp_path):
    torch.save(CifarResNet(3, depth=8).state_dict(), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"missing in the file \(\d+\): .*, and \d+ more"):
        CifarResNet(3, depth=14, weights=str(tmp_path / "file.pth"))


def test_a_failed_load_changes_nothing(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {name: torch.ones_like(value) for name, value in before.items()}
    state["extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError):
        load_state(network, state, source="a test")
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_transposed_head_is_recognised():
    with pytest.raises(CheckpointError, match=r"weight is \[64, 10\], needs \[10, 64\] \(transposed\)"):
        load_state(LinearHead(64, 10, bias=False), {"weight": torch.zeros(64, 10)}, source="an LDAM checkpoint")


def test_not_strict_loads_matching_tensors_and_warns(network, tmp_path, caplog):
    state = network.state_dict()
    state["stage3.0.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "file.pth")
    loaded = DigitsNet(1, weights=str(tmp_path / "file.pth"), strict_weights=False)
    assert torch.equal(loaded.stage1[0].weight, network.stage1[0].weight)
    assert not torch.equal(loaded.stage3[0].weight, network.stage3[0].weight)
    assert "stage3.0.weight" in caplog.text


def test_not_strict_refuses_a_file_without_matching_tensors(tmp_path):
    torch.save({"something.else": torch.zeros(3)}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="another architecture"):
        DigitsNet(1, weights=str(tmp_path / "file.pth"), strict_weights=False)


def test_an_unknown_trainable_is_refused(network):
    with pytest.raises(ConfigError, match="all, last_block, none"):
        set_trainable(network, "some", network.last_block())


def test_the_same_seed_builds_the_same_network():
    def build(seed: int) -> CifarResNet:
        with seeded_construction(seed):
            return CifarResNet(3, depth=8)

    torch.manual_seed(1)
    first = build(5)
    torch.manual_seed(2)
    assert same(first, build(5))
    assert not torch.equal(first.conv1.weight, build(6).conv1.weight)


def test_the_global_generator_is_not_advanced():
    before = torch.get_rng_state()
    with seeded_construction(2**63 - 1):
        torch.randn(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_generator_is_not_advanced_by_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ConfigError), seeded_construction(0):
        CifarResNet(3, depth=9)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_map_of_names_without_a_file_is_refused():
    with pytest.raises(ConfigError, match=r"weights_map=ldam.* none is set"):
        CifarResNet(3, depth=20, weights_map="ldam")
