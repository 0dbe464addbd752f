"""SGD and AdamW over the parameter groups of a backbone, a head and a method's extra modules."""

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
    """Build stochastic gradient descent with momentum; weight decay is L2 (added to the gradient), as in the papers.

    See `ltr.optim.groups.parameter_groups` for the other arguments.

    Args:
        fused: True runs one kernel for all parameters of a group, on CPU and GPU.

    Raises:
        ConfigError: nesterov is set without momentum, or see `parameter_groups`.
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
    return _disable_own_unscaling(torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused))


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
    """Build Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019); weight decay 0 gives plain Adam.

    See `sgd` and `torch.optim.AdamW` for the arguments.

    Raises:
        ConfigError: see `parameter_groups`.
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
    return _disable_own_unscaling(torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=eps, fused=fused))


def _disable_own_unscaling(optimizer: Any) -> Any:
    # A fused optimiser can unscale fp16 gradients itself, and Lightning then refuses gradient clipping in every mixed
    # precision, even bf16. Without this flag the scaler unscales before the step, as for any other optimiser.
    optimizer._step_supports_amp_scaling = False
    return optimizer
