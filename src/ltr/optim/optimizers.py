"""SGD and AdamW over the parameter groups of a backbone, a head and whatever a method adds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from ltr.errors import ConfigError
from ltr.identity import named
from ltr.optim.groups import parameter_groups

Extra = Mapping[str, nn.Module] | None


@named("optimizer/sgd")
def sgd(
    backbone: nn.Module,
    head: nn.Module,
    extra: Extra = None,
    no_decay: Collection[str] = (),
    *,
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    head_lr: float | None = None,
    last_block_lr: float | None = None,
    extra_lr: float | None = None,
    decay_norm_and_bias: bool = True,
    fused: bool = True,
) -> torch.optim.SGD:
    """Stochastic gradient descent with momentum; weight decay is added to the gradient (L2), as in the papers.

    Arguments that are not explained here are those of `ltr.optim.groups.parameter_groups`.

    Args:
        fused: one kernel for all parameters of a group, on CPU and GPU.

    Raises:
        ConfigError: Nesterov without momentum; or from the groups.
    """
    if nesterov and momentum <= 0:
        raise ConfigError(f"optimizer.nesterov=true needs momentum; optimizer.momentum is {momentum}.")
    groups = parameter_groups(
        backbone,
        head,
        lr=lr,
        weight_decay=weight_decay,
        head_lr=head_lr,
        last_block_lr=last_block_lr,
        extra_lr=extra_lr,
        decay_norm_and_bias=decay_norm_and_bias,
        no_decay=no_decay,
        extra=extra,
    )
    return _leave_unscaling_outside(torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused))


@named("optimizer/adamw")
def adamw(
    backbone: nn.Module,
    head: nn.Module,
    extra: Extra = None,
    no_decay: Collection[str] = (),
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    head_lr: float | None = None,
    last_block_lr: float | None = None,
    extra_lr: float | None = None,
    decay_norm_and_bias: bool = True,
    fused: bool = True,
) -> torch.optim.AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019); with weight decay 0 it is Adam.

    Arguments are those of `sgd` and of torch's AdamW.

    Raises:
        ConfigError: from the groups.
    """
    groups = parameter_groups(
        backbone,
        head,
        lr=lr,
        weight_decay=weight_decay,
        head_lr=head_lr,
        last_block_lr=last_block_lr,
        extra_lr=extra_lr,
        decay_norm_and_bias=decay_norm_and_bias,
        no_decay=no_decay,
        extra=extra,
    )
    return _leave_unscaling_outside(torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=eps, fused=fused))


def _leave_unscaling_outside(optimizer: Any) -> Any:
    # A fused optimiser offers to undo fp16 loss scaling itself, and Lightning then refuses gradient clipping in every
    # mixed precision, bf16 too. Without the offer the scaler divides before the step, as for any other optimiser.
    optimizer._step_supports_amp_scaling = False
    return optimizer
