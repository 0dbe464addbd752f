"""Checks of a config against the code in its ``_target_``: argument names, types, and the required interface."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ltr.configuration.allowed import as_text, find_problem
from ltr.configuration.annotations import in_words, rule_of
from ltr.configuration.quoting import quoting_hint
from ltr.errors import nearest

# number of positional arguments that the program supplies, by the last part of the config's key
SUPPLIED = {
    "method": 0,
    "sampler": 0,
    "source": 0,
    "split": 1,
    "augment": 1,
    "loss": 1,
    "head": 2,
    "backbone": 1,
    "optimizer": 2,
    "scheduler": 2,
    "sharpness": 0,
    "scorers": 0,
}
# attributes that the program uses of an object, and the base class that has them
ASKED = {
    "method": (("stages", "predictor"), "ltr.methods.core.stage.Method"),
    "sampler": (("epoch", "length", "class_probabilities"), "ltr.data.sampling.samplers.Sampler"),
    "augment": (("identity",), "ltr.data.augmentation.augment.Augmentation"),
    "loss": (("link", "prior_bias", "start_epoch"), "ltr.losses.base.ClassificationLoss"),
    "backbone": (("last_block", "feature_maps"), "ltr.models.backbones.Backbone"),
    "sharpness": (("tail_factors",), "ltr.optim.sharpness.SAM"),
    "scorers": (("needs", "needs_training", "fit"), "ltr.evaluation.scorers.Scorer"),
    "extra_protocols": (("headline", "needs", "update", "reduce", "compute"), "ltr.evaluation.protocol.Protocol"),
}


def mismatches(
    path: str, target: str, function: Callable, signature: inspect.Signature, arguments: Mapping[str, Any]
) -> list[str]:
    """Return a message for each mismatch of ``function`` and its config.

    Args:
        path: path of the config in the configuration, e.g. ``loss``.
        target: name of the function in the config.
        signature: signature of ``function``.
        arguments: the config's values by name, without private keys.
    """
    key = f"{path}._target_".removeprefix(".")
    kind = next((part for part in reversed(path.split(".")) if not part.isdigit()), "")  # of a list's entry, the list
    asked, base = ASKED.get(kind, ((), ""))
    # the return value of a user's own function is unknown
    known = inspect.isclass(function) or target.startswith("ltr.")
    lacking = [name for name in asked if known and not hasattr(function, name)]
    if lacking:
        return [f"{key}={target}: cannot be used as {kind}: it lacks {', '.join(lacking)}. Derive it from {base}"]
    parameters = signature.parameters
    by_name = {name: parameter for name, parameter in parameters.items() if for_configs(target, parameter)}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    mistakes = []
    for name, value in arguments.items():
        if name in by_name:
            hint = _hint(function, by_name[name])
            if hint is not None and not fits(value, hint):
                assignment = f"{path}.{name}={as_text(value)}"
                hints = (
                    quoting_hint(assignment) if fits("", hint) else "",
                    f", such as [{as_text(value)}]" * fits([value], hint),
                )
                mistakes.append(f"{assignment}: {target} takes {in_words(hint)}{''.join(hints)}")
            elif hint is not None and (rule := rule_of(hint)) and (reason := find_problem(value, rule)):
                mistakes.append(f"{path}.{name}={as_text(value)}: {reason}")
        elif not open_ended:
            allowed_names = list(by_name) or ["none"]
            mistakes.append(
                f"{path}.{name}={as_text(value)}: {target} has no such argument; it has {', '.join(allowed_names)}"
                f"{nearest(name, allowed_names)}"
            )
    for name, parameter in parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty and name not in arguments:
            mistakes.append(f"{path}.{name}: missing; {target} needs it")
    if not mistakes and kind in SUPPLIED:
        try:
            signature.bind(*[None] * SUPPLIED[kind], **arguments)
        except TypeError as mismatch:
            places = f"it is called with {SUPPLIED[kind]} arguments by position"
            mistakes.append(f"{key}={target}: cannot be used as {kind} ({places}): {mismatch}")
    return mistakes


def for_configs(target: str, parameter: inspect.Parameter) -> bool:
    """Return whether a config may supply an argument: of ltr's own code the keyword-only ones.

    This prevents configs from calling functions that are not meant for configs, such as one that writes a file.
    """
    if parameter.kind is parameter.KEYWORD_ONLY:
        return True
    return parameter.kind is parameter.POSITIONAL_OR_KEYWORD and not target.startswith("ltr.")


def _hint(function: Callable, parameter: inspect.Parameter) -> Any:
    """Return the parameter's annotation as a type, or None where it cannot be resolved."""
    if parameter.annotation is parameter.empty:
        return None
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    code = function.__init__ if inspect.isclass(function) else function
    try:
        return eval(parameter.annotation, getattr(code, "__globals__", {}))
    except Exception:  # a name that is imported for type checkers only
        return None


def fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value (from YAML) has the type ``hint``; an unknown type fits."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is Annotated:
        return fits(value, inner[0])
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    container = origin or hint
    if inspect.isclass(container) and issubclass(container, Sequence):
        of_each = [one for one in inner if one is not Ellipsis]
        of_each = of_each if len(of_each) == 1 else [Any]
        return isinstance(value, list) and all(fits(entry, of_each[0]) for entry in value)
    if inspect.isclass(container) and issubclass(container, Mapping):
        return isinstance(value, Mapping)
    return True
