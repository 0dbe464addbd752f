"""Optimisers of torch and timm by name, over the same parameter groups as SGD and AdamW."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn

from ltr.configuration.ranges import NonNegative, Positive
from ltr.configuration.targets import instantiate
from ltr.errors import ConfigError, nearest
from ltr.identity import name_of, named
from ltr.optim.groups import over_parameter_groups

Groups = list[dict[str, Any]]
# a step of ltr is one forward and backward pass over dense gradients
_UNUSABLE = {
    "LBFGS": "it evaluates the loss several times in a step",
    "SparseAdam": "it is for sparse gradients",
    "Muon": "torch's accepts matrices only; timm's accepts every parameter: optimizer=timm optimizer.name=muon",
}


@named("optimizer/torch")
@over_parameter_groups
def torch_optimizer(
    groups: Groups,
    *,
    name: str,
    lr: Positive,
    weight_decay: NonNegative = 0.0,
    options: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """Return an optimiser of `torch.optim`.

    See `ltr.optim.groups.parameter_groups` for the other arguments.

    Args:
        name: name of the class, such as ``RMSprop``: ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, NAdam,
            RAdam, RMSprop, Rprop, SGD.
        options: further arguments of the class by name, as in +optimizer.options.momentum=0.9.

    Raises:
        ConfigError: the optimiser is unknown or unusable, or does not take an argument; or see `parameter_groups`.
    """
    classes: dict[str, Any] = {key: value for key, value in vars(torch.optim).items() if inspect.isclass(value)}
    classes = {key: value for key, value in classes.items() if issubclass(value, torch.optim.Optimizer)}
    names = sorted(key for key in classes if key not in ("Optimizer", *_UNUSABLE))
    if name not in names:
        reason = f"{_UNUSABLE[name]}; " if name in _UNUSABLE else ""
        raise ConfigError(
            f"optimizer.name={name}: {reason or 'torch.optim has no such optimiser; '}allowed are {', '.join(names)}"
            f"{'' if reason else nearest(name, names)}"
        )
    known = _arguments(classes[name])
    _check_weight_decay(name, weight_decay, known)
    return _build(name, lambda arguments: classes[name](groups, lr=lr, **arguments), options, known)


@named("optimizer/timm")
@over_parameter_groups
def timm_optimizer(
    groups: Groups,
    *,
    name: str,
    lr: Positive,
    weight_decay: NonNegative = 0.0,
    options: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """Return an optimiser of `timm.optim`.

    See `ltr.optim.groups.parameter_groups` for the other arguments.

    Args:
        name: name in `timm.optim.list_optimizers`, such as ``lamb``.
        options: further arguments of `timm.optim.create_optimizer_v2` and of the optimiser by name.

    Raises:
        ConfigError: the optimiser is unknown or unusable, or does not take an argument; or see `parameter_groups`.
    """
    import timm.optim  # slow to import, and most runs do not use it

    listed = [str(listed_name) for listed_name in timm.optim.list_optimizers()]
    names = [listed_name for listed_name in listed if not _reason_against(listed_name)]
    if name not in names:
        reason = _reason_against(name) if name in listed else f"timm {timm.__version__} has no such optimiser"
        hint = "" if name in listed else nearest(name, names)
        raise ConfigError(f"optimizer.name={name}: {reason}; allowed are {', '.join(names)}{hint}")
    known = _arguments(timm.optim.get_optimizer_class(name, bind_defaults=False))
    _check_weight_decay(name, weight_decay, known)

    def create(arguments: Mapping[str, Any]) -> torch.optim.Optimizer:
        return timm.optim.create_optimizer_v2(
            groups, opt=name, lr=lr, weight_decay=weight_decay, filter_bias_and_bn=False, **arguments
        )

    return _build(name, create, options, known)


def check_optimizer(config: Mapping[str, Any]) -> None:
    """Check the name and the options of an optimiser before training, by building it for a small module.

    Args:
        config: config of an optimiser; only optimisers of torch and timm by name are checked.

    Raises:
        ConfigError: see `torch_optimizer` and `timm_optimizer`.
    """
    if name_of(str(config["_target_"])) in ("optimizer/torch", "optimizer/timm"):
        instantiate({**config, "last_block_lr": None}, nn.Linear(2, 2), nn.Linear(2, 2))


def _reason_against(name: str) -> str:
    """Return the reason why an optimiser of timm cannot be used; '' if it can."""
    import timm.optim

    if timm.optim.get_optimizer_info(name).second_order:
        return "it needs second derivatives"
    if name.startswith(("bnb", "fused")):
        return "it needs a package that timm does not install (bitsandbytes or apex)"
    if name.startswith("kron"):
        return "its state dict lacks its random state, so that an interrupted training could not be resumed exactly"
    return ""


def _arguments(optimizer: Callable[..., Any]) -> list[str]:
    """Return the names of an optimiser's arguments, without parameters and learning rate."""
    return [name for name in inspect.signature(optimizer).parameters if name not in ("params", "lr", "args", "kwargs")]


def _check_weight_decay(name: str, weight_decay: float, known: Collection[str]) -> None:
    if weight_decay and "weight_decay" not in known:
        raise ConfigError(f"optimizer.weight_decay={weight_decay}: {name} has no weight decay. Set it to 0")


def _build(
    name: str,
    create: Callable[[dict[str, Any]], torch.optim.Optimizer],
    options: Mapping[str, Any] | None,
    known: list[str],
) -> torch.optim.Optimizer:
    """Call ``create`` with the options, lists such as ``betas`` as tuples."""
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in (options or {}).items()}
    free = [key for key in known if key != "weight_decay"]
    for key in arguments:
        if key not in free:
            raise ConfigError(
                f"optimizer.options.{key}: {name} has no such argument; it has {', '.join(free)}{nearest(key, free)}"
            )
    try:
        return create(arguments)
    except Exception as error:  # optimisers raise different types for wrong values
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(
            f"optimizer.name={name} with optimizer.options={arguments}: it cannot be built ({type(error).__name__}: "
            f"{reason}). Correct the options, or use another optimiser"
        ) from error
