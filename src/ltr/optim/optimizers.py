"""SGD and AdamW over the parameter groups of a backbone, a head and a method's extra modules."""

from __future__ import annotations

from typing import Any

import torch

from ltr.configuration.ranges import BelowOne, Positive
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.optim.groups import over_parameter_groups

Groups = list[dict[str, Any]]


@named("optimizer/sgd")
@over_parameter_groups
def sgd(
    groups: Groups,
    *,
    lr: Positive,
    momentum: BelowOne = 0.9,
    nesterov: bool = False,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """Build stochastic gradient descent with momentum; weight decay is L2 (added to the gradient), as in the papers.

    See `ltr.optim.groups.parameter_groups` for the other arguments.

    Args:
        momentum: momentum factor.
        nesterov: True uses Nesterov momentum.
        fused: True runs one kernel for all parameters of a group, on CPU and GPU.

    Raises:
        ConfigError: nesterov is set without momentum, or see `parameter_groups`.
    """
    if nesterov and momentum <= 0:
        raise ConfigError(f"optimizer.nesterov=true needs momentum; optimizer.momentum is {momentum}.")
    return _disable_own_unscaling(torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused))


@named("optimizer/adamw")
@over_parameter_groups
def adamw(
    groups: Groups,
    *,
    lr: Positive,
    beta1: BelowOne = 0.9,
    beta2: BelowOne = 0.999,
    eps: Positive = 1e-8,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """Build Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019); weight decay 0 gives plain Adam.

    See `ltr.optim.groups.parameter_groups` for the other arguments.

    Args:
        beta1: decay rate of the running mean of gradients.
        beta2: decay rate of the running mean of squared gradients.
        eps: term added to the root of that mean, for numerical stability.
        fused: see `sgd`.

    Raises:
        ConfigError: see `parameter_groups`.
    """
    return _disable_own_unscaling(torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=eps, fused=fused))


def _disable_own_unscaling(optimizer: Any) -> Any:
    # A fused optimiser can unscale fp16 gradients itself; Lightning then refuses gradient clipping in every mixed
    # precision, even bf16. Without this flag the scaler unscales before the step, as for other optimisers.
    optimizer._step_supports_amp_scaling = False
    return optimizer
