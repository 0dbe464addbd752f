"""Optimisers of torch and timm by name: groups, errors, and a resume with the same bits."""

from __future__ import annotations

import io

import pytest
import timm.optim
import torch
from torch import nn
from torch.nn import functional

from ltr.configuration.configs import read_config
from ltr.configuration.targets import instantiate
from ltr.errors import ConfigError
from ltr.optim.libraries import check_optimizer, timm_optimizer, torch_optimizer

TORCH = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
]
TIMM = [
    name
    for name in timm.optim.list_optimizers()
    if not name.startswith(("bnb", "fused", "kron")) and name != "adahessian"
]
ALL = [pytest.param(torch_optimizer, name, id=f"torch-{name}") for name in TORCH] + [
    pytest.param(timm_optimizer, name, id=f"timm-{name}") for name in TIMM
]
IMAGES = torch.randn(6, 3, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


def modules() -> nn.ModuleList:
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.ModuleList([convolution, nn.Linear(4, 3)])


def train(parts: nn.ModuleList, optimizer: torch.optim.Optimizer, steps: int) -> None:
    backbone, head = parts
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(head(backbone(IMAGES)), LABELS).backward()
        optimizer.step()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "name"), ALL)
def test_an_interrupted_training_resumes_with_the_same_bits(make, name):
    parts = modules()
    first = {key: tensor.clone() for key, tensor in parts.state_dict().items()}
    optimizer = make(*parts, name=name, lr=0.01)
    train(parts, optimizer, 2)
    file = io.BytesIO()
    torch.save({"parts": parts.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = modules()
    resumed = make(*again, name=name, lr=0.01)
    again.load_state_dict(saved["parts"])
    resumed.load_state_dict(saved["optimizer"])
    train(parts, optimizer, 2)
    train(again, resumed, 2)
    for key, tensor in parts.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
    assert not torch.equal(first["1.weight"], parts[1].weight)


@pytest.mark.parametrize(("make", "name"), [(torch_optimizer, "RMSprop"), (timm_optimizer, "lamb")])
def test_groups_are_those_of_every_optimiser(make, name):
    backbone, head = modules()
    extra = {"aux": nn.Linear(4, 2)}
    optimizer = make(
        backbone, head, extra, ["head.bias"], name=name, lr=0.1, weight_decay=0.5, head_lr=0.2, extra_lr=0.3,
        decay_norm_and_bias=False,
    )  # fmt: skip
    groups = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert groups == {
        "backbone": (0.1, 0.5), "backbone.no_decay": (0.1, 0.0), "head": (0.2, 0.5), "head.no_decay": (0.2, 0.0),
        "aux": (0.3, 0.5), "aux.no_decay": (0.3, 0.0),
    }  # fmt: skip
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 8


def test_timm_and_torch_agree_where_they_name_the_same_optimiser():
    states = []
    for make, name in ((timm_optimizer, "adamw"), (torch_optimizer, "AdamW")):
        parts = modules()
        train(parts, make(*parts, name=name, lr=0.01, weight_decay=0.1, options={"betas": [0.8, 0.9]}), 3)
        states.append(parts.state_dict())
    for key, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][key])


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (torch_optimizer, {"name": "RMSProp"}, r"no such optimiser; allowed are ASGD, .*Did you mean 'RMSprop'"),
        (torch_optimizer, {"name": "LBFGS"}, "evaluates the loss several times"),
        (torch_optimizer, {"name": "Optimizer"}, "no such optimiser"),
        (timm_optimizer, {"name": "lambb"}, r"no such optimiser; allowed are .*Did you mean 'lamb'"),
        (timm_optimizer, {"name": "adahessian"}, "second derivatives"),
        (timm_optimizer, {"name": "kron"}, "lacks its random state"),
        (timm_optimizer, {"name": "bnbadam"}, "bitsandbytes"),
        (torch_optimizer, {"name": "Rprop", "weight_decay": 0.1}, "Rprop has no weight decay"),
        (torch_optimizer, {"name": "Adam", "options": {"beta": 1}}, r"options\.beta: .*betas.*Did you mean"),
        (torch_optimizer, {"name": "Adam", "options": {"betas": [2, 3]}}, "cannot be built .*Correct the options"),
        (timm_optimizer, {"name": "lamb", "options": {"params": 1}}, r"options\.params: lamb has no such argument"),
    ],
)
def test_unusable_optimisers_are_refused_with_the_usable_ones(make, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(*modules(), lr=0.1, **arguments)


@pytest.mark.parametrize("name", ["torch", "timm", "sgd"])
def test_the_configs_are_checked_before_training(name):
    config = read_config(f"optimizer/{name}")
    check_optimizer(config)
    instantiate(config, *modules())
    if name != "sgd":
        with pytest.raises(ConfigError, match="no such optimiser"):
            check_optimizer({**config, "name": "nothing"})
