"""Weights of unknown names, mapped to a network by the order of their tensors."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ltr.errors import CheckpointError
from ltr.models.digits_net import DigitsNet
from ltr.models.weights import seeded_construction


@pytest.fixture
def network() -> DigitsNet:
    with seeded_construction(1):
        return DigitsNet(1)


def renamed(network: nn.Module, more: dict | None = None) -> dict[str, torch.Tensor]:
    """The network's tensors under names that only their last part shares with it."""
    state = network.state_dict()
    names = {name: f"_{name.replace('.', '_x.').replace('block', 'part')}" for name in state}
    return {**{new: state[old] for old, new in names.items()}, **(more or {})}


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(torch.equal(a, b) for (name, a), (_, b) in pairs if not name.endswith("num_batches_tracked"))


@pytest.mark.parametrize("weights_map", [None, "order"])
def test_tensors_of_other_names_are_mapped_by_order_and_it_is_reported(network, tmp_path, caplog, weights_map):
    classifier = {"_fc.weight": torch.zeros(10, network.num_features), "_fc.bias": torch.zeros(10)}
    torch.save(renamed(network, classifier), tmp_path / "file.pth")
    with caplog.at_level(logging.WARNING, "ltr.models.weights"):
        loaded = DigitsNet(1, weights=str(tmp_path / "file.pth"), weights_map=weights_map)
    assert same(loaded, network)
    assert "mapped by their order" in caplog.text
    assert "left out: _fc.weight, _fc.bias" in caplog.text


def test_names_take_precedence_over_the_order(network, tmp_path, caplog):
    shuffled = dict(reversed(network.state_dict().items()))
    torch.save(shuffled, tmp_path / "file.pth")
    assert same(DigitsNet(1, weights=str(tmp_path / "file.pth")), network)
    assert "order" not in caplog.text


def test_a_file_with_too_few_or_too_many_tensors_is_refused(network, tmp_path):
    state = renamed(network)
    for wrong in (dict(list(state.items())[:-2]), {**state, **{f"{i}.weight": torch.zeros(3, 3) for i in range(3)}}):
        torch.save(wrong, tmp_path / "file.pth")
        with pytest.raises(CheckpointError, match="cannot be mapped by the order"):
            DigitsNet(1, weights=str(tmp_path / "file.pth"), weights_map="order")


def test_the_first_tensor_of_another_shape_is_named(network, tmp_path):
    state = renamed(network)
    last = list(state)[-3]
    torch.save({**state, last: torch.zeros(7)}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=rf"{last} \[7\], and the network's is .*their shapes differ"):
        DigitsNet(1, weights=str(tmp_path / "file.pth"), weights_map="order")


def test_a_weight_is_never_loaded_as_a_bias_of_the_same_shape(tmp_path):
    """Names in alphabetical order put a normalisation's bias before its weight."""
    network = DigitsNet(1)
    by_name = dict(sorted(renamed(network).items()))
    torch.save(by_name, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"different kinds|shapes differ"):
        DigitsNet(1, weights=str(tmp_path / "file.pth"), weights_map="order")
    with pytest.raises(CheckpointError, match="belong to another architecture"):
        DigitsNet(1, weights=str(tmp_path / "file.pth"))


def test_blocks_in_the_order_of_their_names_are_refused():
    from ltr.models.weights_order import map_by_order

    network = nn.Sequential(*(nn.Linear(2, 2) for _ in range(11)))
    state = network.state_dict()
    by_name = {f"b{name}": state[name] for name in sorted(state, key=lambda name: (name.split(".")[0], -ord(name[-1])))}
    with pytest.raises(CheckpointError, match=r"b2\.\w+ after b10|b2.weight after b10.weight"):
        map_by_order(by_name, network, "file.pth")


def test_safetensors_are_not_mapped_by_order(network, tmp_path):
    save_file(renamed(network), tmp_path / "file.safetensors")
    with pytest.raises(CheckpointError, match="does not keep the order"):
        DigitsNet(1, weights=str(tmp_path / "file.safetensors"), weights_map="order")


def test_a_matching_name_at_another_position_prevents_the_mapping_by_order(tmp_path):
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    from ltr.models.weights import load_backbone

    state = network.state_dict()
    names = ["1.weight", "0.bias", "x.weight", "1.bias"]
    torch.save(dict(zip(names, state.values(), strict=True)), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="belong to another architecture"):
        load_backbone(network, tmp_path / "file.pth")


def test_colour_weights_of_other_names_fit_grey_images(tmp_path):
    colour = DigitsNet(3)
    torch.save(renamed(colour), tmp_path / "file.pth")
    grey = DigitsNet(1, weights=str(tmp_path / "file.pth"))
    first = next(p for p in colour.parameters() if p.ndim == 4)
    assert torch.allclose(next(p for p in grey.parameters() if p.ndim == 4), first.sum(1, keepdim=True))
