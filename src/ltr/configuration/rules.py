"""Rules of a config: its own ``_allowed_``, those of the shipped config that it stands for, and those
that the options of its method declare.

A run's ``config.yaml`` and a description in a checkpoint have lost their rules, and a config of the user's own may have
none; what they say is checked all the same.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

from ltr.configuration.configs import config_names, read_config
from ltr.configuration.removed import current_name
from ltr.identity import path_of

_DEFAULT = {"": "train", "trainer": "trainer/default", "evaluation": "evaluation/default",
            "checkpoint": "checkpoint/default", "callbacks": "callbacks/default"}  # fmt: skip
_CALLED = ("sampler", "augment", "head", "loss", "backbone", "optimizer", "scheduler", "method")
_GROUP = {"representation": "method"}  # where a config of that group lies under another name


def rules_of(path: str, node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the rules for the keys of a config, by key; {} for an unknown config.

    Args:
        path: of the config, e.g. ``optimizer`` or ``method.classifier.optimizer``.
    """
    last = path.rpartition(".")[2]
    group = _GROUP.get(last, last)
    own = node.get("_allowed_")
    if own is not None:
        own = own if isinstance(own, Mapping) else {}
        return {**_declared_rules(node.get("_target_")), **own} if group == "method" else own
    if path in _DEFAULT:
        return _rules(_DEFAULT[path])
    if group in _CALLED and isinstance(node.get("_target_"), str):
        return _rules_of_code(group, (node["_target_"],))
    if path == "dataset":
        code = tuple(str(target(node, part)) for part in ("source", "split"))
        name = current_name("dataset", str(node.get("name")))
        return _rules(f"dataset/{name}") if name in config_names("dataset") else _rules_of_code("dataset", code)
    return {}


def target(node: Any, part: str) -> Any:
    """Return the ``_target_`` of a config inside a config, or None."""
    inner = node.get(part) if isinstance(node, Mapping) else None
    return inner.get("_target_") if isinstance(inner, Mapping) else None


@functools.cache
def _rules(config: str) -> Mapping[str, Any]:
    return read_config(config).get("_allowed_") or {}


@functools.cache
def _rules_of_code(group: str, code: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the rules on which all shipped configs of the same code agree."""
    configs = [read_config(f"{group}/{name}") for name in config_names(group)]
    alike = [config.get("_allowed_") or {} for config in configs if _code(group, config) == code]
    rules = {key: rule for config in alike for key, rule in config.items()}
    rules = {key: rule for key, rule in rules.items() if all(config.get(key, rule) == rule for config in alike)}
    return {**_declared_rules(code[0]), **rules} if group == "method" else rules


def _declared_rules(target: Any) -> Mapping[str, Any]:
    """The rules that the options of a shipped method declare, see `ltr.methods.core.options`.

    Class ``Name`` has its declaration ``NameOptions`` in the module ``options`` beside its own, which imports nothing
    heavy; {} for a method without such a declaration and for code outside ltr.
    """
    path = path_of(target) if isinstance(target, str) else ""
    package, _, name = path.rpartition(".")
    package = package.rpartition(".")[0]
    if not f"{package}.".startswith("ltr.methods."):
        return {}
    try:
        declaration = getattr(importlib.import_module(f"{package}.options"), f"{name}Options", None)
    except ModuleNotFoundError:
        return {}
    return {} if declaration is None else declaration.rules()


def _code(group: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    if group == "dataset":
        return tuple(str(target(config, part)) for part in ("source", "split"))
    return (str(config.get("_target_")),)
