"""Parameter groups: learning rate and weight decay of each parameter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltr.configuration.ranges import NonNegative, Positive
from ltr.errors import ConfigError, nearest

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.modules.instancenorm._InstanceNorm)
_RUNTIME = ("backbone", "head", "extra", "no_decay")  # arguments from the training code; configs set all others


def parameter_groups(
    backbone: nn.Module,
    head: nn.Module,
    extra: Mapping[str, nn.Module] | None = None,
    no_decay: Collection[str] = (),
    *,
    lr: Positive,
    weight_decay: NonNegative = 0.0,
    head_lr: Positive | None = None,
    last_block_lr: Positive | None = None,
    extra_lr: Positive | None = None,
    decay_norm_and_bias: bool = True,
) -> list[dict[str, Any]]:
    """Return parameter groups for a torch optimiser; every trainable parameter is in exactly one.

    Each group has ``params``, ``lr``, ``weight_decay`` and a ``name``: ``backbone``, ``last_block``, ``head`` or the
    name of the extra module, with ``.no_decay`` appended if its weight decay is 0. Empty groups are omitted.

    Args:
        backbone: must have `last_block()` if ``last_block_lr`` is set.
        head: the classifier.
        extra: further modules by name (second heads), or parts of the backbone or the head with a separate learning
            rate.
        no_decay: full names of parameters that never decay, such as ``head.bias`` if it holds a prior.
        lr: learning rate of all parts without a separate one; ltr never scales it by the batch size.
        weight_decay: weight decay of all parameters that are not exempt: L2 (added to the gradient) in most optimisers,
            decoupled in AdamW.
        head_lr: learning rate of the head; None: lr (Kang et al. train Places-LT with 0.1).
        last_block_lr: learning rate of the backbone's last block; None: lr (0.01 there).
        extra_lr: learning rate of modules that a method adds, such as an auxiliary head; None: the head's.
        decay_norm_and_bias: True decays every parameter, as LDAM-DRW and the class-balanced loss do; False exempts
            biases, normalisation layers and all other vectors and scalars.

    Raises:
        ConfigError: no parameter is trainable, or ``no_decay`` names no parameter.
        ValueError: an extra module is called backbone, head or last_block.
    """
    modules: dict[str, nn.Module] = {"backbone": backbone, "head": head, **(extra or {})}
    if extra and {"backbone", "head", "last_block"} & set(extra):
        raise ValueError(f"extra modules are called {sorted(extra)}; backbone, head and last_block are taken")
    last_block = {id(p) for p in backbone.last_block().parameters()} if last_block_lr is not None else set()  # type: ignore[operator]
    default_head_lr = lr if head_lr is None else head_lr
    default_extra_lr = default_head_lr if extra_lr is None else extra_lr
    rates = {"backbone": lr, "last_block": last_block_lr, "head": default_head_lr}
    names = [f"{part}.{name}" for part, module in modules.items() for name, _ in module.named_parameters()]
    for name in no_decay:
        if name not in names:
            raise ConfigError(
                f"'{name}' is to have no weight decay, and there is no such parameter{nearest(name, names)}"
            )

    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    seen: set[int] = set()
    part_ids = _part_ids((backbone, head), (extra or {}).values())
    for part, module in modules.items():
        exempt = set() if decay_norm_and_bias else _norms_and_vectors(module)
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            if part in ("backbone", "head") and id(parameter) in part_ids:
                continue
            seen.add(id(parameter))
            group = "last_block" if id(parameter) in last_block else part
            has_decay = f"{part}.{name}" not in no_decay and id(parameter) not in exempt
            entry = groups.setdefault(
                (group, has_decay),
                {
                    "params": [],
                    "lr": rates.get(group, default_extra_lr),
                    "weight_decay": weight_decay if has_decay else 0.0,
                    "name": group if has_decay else f"{group}.no_decay",
                },
            )
            entry["params"].append(parameter)
    if not groups:
        raise ConfigError(
            "no parameter is trainable: the backbone is frozen by tune or backbone.trainable, and the head has none. "
            "Use tune=all and backbone.trainable=all"
        )
    return list(groups.values())


def over_parameter_groups(build: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Decorate an optimiser over parameter groups, so that it takes modules and the arguments of `parameter_groups`.

    The decorated function takes (backbone, head, extra, no_decay) by position and the other arguments by name.
    Arguments that ``build`` also declares, such as the learning rate, are passed to both.
    """
    grouping = inspect.signature(parameter_groups).parameters
    parameters = list(inspect.signature(build).parameters.values())[1:]
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    runtime = [grouping[name].replace(kind=positional) for name in _RUNTIME]
    named = [one for name, one in grouping.items() if name not in {*_RUNTIME, *(one.name for one in parameters)}]
    signature = inspect.Signature([*runtime, *parameters, *named], return_annotation=torch.optim.Optimizer)

    @functools.wraps(build)
    def optimizer(*args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = bound.arguments
        groups = parameter_groups(**{name: values[name] for name in grouping})
        return build(groups, **{one.name: values[one.name] for one in parameters})

    optimizer.__signature__ = signature  # type: ignore[attr-defined]
    return optimizer


def _part_ids(wholes: Iterable[nn.Module], extra: Iterable[nn.Module]) -> set[int]:
    """Return the ids of the parameters of extra modules that are a proper part of the backbone or of the head."""
    sets = [{id(parameter) for parameter in module.parameters()} for module in extra]
    whole_ids = [{id(parameter) for parameter in module.parameters()} for module in wholes]
    return {number for numbers in sets if any(numbers < whole for whole in whole_ids) for number in numbers}


def _norms_and_vectors(module: nn.Module) -> set[int]:
    in_norms = {id(p) for part in module.modules() if isinstance(part, _NORMS) for p in part.parameters()}
    return in_norms | {id(p) for name, p in module.named_parameters() if p.ndim <= 1 or name.endswith("bias")}
