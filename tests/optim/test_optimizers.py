"""The optimisers against their update rules."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import nn

from ltr.errors import ConfigError
from ltr.optim.optimizers import adamw, sgd


def pair() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(3, 2), nn.Linear(2, 2)


def steps(optimizer: torch.optim.Optimizer, backbone: nn.Module, head: nn.Module, count: int = 3) -> list[torch.Tensor]:
    """Weights of the backbone before each step and after the last; the gradient is 1 everywhere."""
    history = [backbone.weight.detach().clone()]
    for _ in range(count):
        for parameter in [*backbone.parameters(), *head.parameters()]:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        history.append(backbone.weight.detach().clone())
    return history


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_follows_its_update_rule(fused, nesterov):
    backbone, head = pair()
    optimizer = sgd(backbone, head, lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.01, fused=fused)
    history = steps(optimizer, backbone, head)
    weight, velocity = history[0], torch.zeros(2, 3)
    for after in history[1:]:
        gradient = 1 + 0.01 * weight
        velocity = 0.9 * velocity + gradient
        weight = weight - 0.1 * (gradient + 0.9 * velocity if nesterov else velocity)
        torch.testing.assert_close(after, weight)


def test_adamw_decouples_weight_decay_from_the_gradient():
    backbone, head = pair()
    optimizer = adamw(backbone, head, lr=0.01, weight_decay=0.1)
    before, after = steps(optimizer, backbone, head, count=1)
    # the first step of Adam has length lr whatever the gradient
    torch.testing.assert_close(after, before * (1 - 0.01 * 0.1) - 0.01)


def test_a_prior_bias_does_not_decay():
    backbone, head = pair()
    optimizer = sgd(backbone, head, None, ["head.bias"], lr=0.1, momentum=0.0, weight_decay=0.5)
    before = head.bias.detach().clone()
    for parameter in head.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight = head.weight.detach().clone()
    optimizer.step()
    assert torch.equal(head.bias, before)
    torch.testing.assert_close(head.weight.detach(), weight * 0.95)


@pytest.mark.parametrize("make", [sgd, adamw])
def test_extra_modules_are_optimised(make):
    backbone, head = pair()
    extra = nn.Linear(2, 4)
    optimizer = make(backbone, head, extra={"extra": extra}, lr=0.1)
    assert any(parameter is extra.weight for group in optimizer.param_groups for parameter in group["params"])


@pytest.mark.parametrize("make", [sgd, adamw])
def test_fused_optimisers_can_be_clipped_under_mixed_precision(make):
    backbone, head = pair()
    optimizer = make(backbone, head, lr=0.1, fused=True)
    head.weight.grad = torch.full_like(head.weight, 100.0)
    MixedPrecision("bf16-mixed", "cpu").clip_gradients(optimizer, 1.0)
    assert head.weight.grad.norm() == pytest.approx(1.0, rel=1e-4)


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ConfigError, match="needs momentum"):
        sgd(*pair(), lr=0.1, momentum=0.0, nesterov=True)
