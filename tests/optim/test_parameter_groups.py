"""Parameter groups: disjoint, complete, with the configured learning rates and weight decays."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from ltr.errors import ConfigError
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.digits_net import DigitsNet
from ltr.models.heads import LinearHead
from ltr.optim.groups import over_parameter_groups, parameter_groups


def grouped(backbone=None, head=None, **options):
    backbone = DigitsNet(1) if backbone is None else backbone
    head = LinearHead(64, 10) if head is None else head
    groups = parameter_groups(backbone, head, **{"lr": 0.1, "weight_decay": 2e-4, **options})
    return backbone, head, {group["name"]: group for group in groups}


def ids(parameters) -> set[int]:
    return {id(parameter) for parameter in parameters}


@pytest.mark.parametrize("head_lr", [None, 1.0])
@pytest.mark.parametrize("last_block_lr", [None, 0.01])
@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
@pytest.mark.parametrize("trainable", ["all", "last_block", "none"])
def test_groups_hold_every_trainable_parameter_once(head_lr, last_block_lr, decay_norm_and_bias, trainable):
    extra = {"second": LinearHead(64, 5)}
    backbone, head, groups = grouped(
        DigitsNet(1, trainable=trainable),
        head_lr=head_lr,
        last_block_lr=last_block_lr,
        decay_norm_and_bias=decay_norm_and_bias,
        no_decay=["head.bias"],
        extra=extra,
    )
    held = [id(parameter) for group in groups.values() for parameter in group["params"]]
    every = [p for module in (backbone, head, *extra.values()) for p in module.parameters() if p.requires_grad]
    assert len(held) == len(set(held))
    assert set(held) == ids(every)
    assert all(group["params"] for group in groups.values())


def test_without_options_there_is_a_group_for_the_backbone_and_one_for_the_head():
    _, _, groups = grouped()
    assert {name: (g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "backbone": (0.1, 2e-4),
        "head": (0.1, 2e-4),
    }


def test_head_and_last_block_can_have_separate_rates():
    backbone, head, groups = grouped(CifarResNet(3, depth=8), head_lr=1.0, last_block_lr=0.01)
    assert {name: g["lr"] for name, g in groups.items()} == {"backbone": 0.1, "last_block": 0.01, "head": 1.0}
    assert ids(groups["last_block"]["params"]) == ids(backbone.last_block().parameters())
    assert ids(groups["head"]["params"]) == ids(head.parameters())


def test_norms_and_biases_can_be_exempt_from_decay():
    backbone, head, groups = grouped(decay_norm_and_bias=False)
    norms = [p for m in backbone.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    assert ids(groups["backbone.no_decay"]["params"]) == ids(norms)
    assert ids(groups["head.no_decay"]["params"]) == {id(head.bias)}
    assert groups["backbone.no_decay"]["weight_decay"] == groups["head.no_decay"]["weight_decay"] == 0
    assert groups["backbone"]["weight_decay"] == 2e-4


def test_a_named_parameter_never_decays():
    _, head, groups = grouped(no_decay=["head.bias"])
    assert ids(groups["head.no_decay"]["params"]) == {id(head.bias)}
    assert groups["head.no_decay"]["weight_decay"] == 0
    assert ids(groups["head"]["params"]) == {id(head.weight)}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [({}, 0.1), ({"head_lr": 0.5}, 0.5), ({"extra_lr": 1e-6}, 1e-6), ({"head_lr": 0.5, "extra_lr": 1e-6}, 1e-6)],
)
def test_an_extra_module_trains_like_the_head_unless_it_has_its_rate(rates, expected):
    _, _, groups = grouped(extra={"second": LinearHead(64, 5)}, **rates)
    assert groups["second"]["lr"] == expected
    assert groups["head"]["lr"] == rates.get("head_lr", 0.1)
    assert groups["backbone"]["lr"] == 0.1


def test_a_shared_parameter_is_held_once():
    head = LinearHead(64, 10)
    _, _, groups = grouped(head=head, extra={"twin": head})
    assert "twin" not in groups


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(ConfigError, match=r"Did you mean 'head\.bias'"):
        grouped(no_decay=["head.bais"])


def test_a_network_without_trained_parameters_is_refused():
    head = LinearHead(64, 10).requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        grouped(DigitsNet(1, trainable="none"), head)


def test_an_extra_module_may_not_take_a_name_in_use():
    with pytest.raises(ValueError, match="taken"):
        grouped(extra={"head": LinearHead(64, 5)})


def test_a_decorated_builder_has_the_arguments_of_both_functions():
    received = {}

    @over_parameter_groups
    def build(groups, *, lr, momentum=0.9):
        """An optimiser."""
        received.update(groups=groups, lr=lr, momentum=momentum)
        return torch.optim.SGD(groups, lr=lr)

    parameters = inspect.signature(build).parameters
    supplied = [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert supplied == ["backbone", "head", "extra", "no_decay"]
    assert {"lr", "momentum", "weight_decay", "head_lr", "last_block_lr", "extra_lr"} <= set(parameters)
    assert build.__doc__ == "An optimiser."
    build(nn.Linear(2, 2), nn.Linear(2, 2), lr=0.1, head_lr=0.3, weight_decay=0.01)
    assert (received["lr"], received["momentum"]) == (0.1, 0.9)
    assert [(group["name"], group["lr"], group["weight_decay"]) for group in received["groups"]] == [
        ("backbone", 0.1, 0.01),
        ("head", 0.3, 0.01),
    ]
    with pytest.raises(TypeError, match="momentun"):
        build(nn.Linear(2, 2), nn.Linear(2, 2), lr=0.1, momentun=0.5)
