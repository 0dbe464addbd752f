"""Which rules hold for a config: its own ``_allowed_``, or those of the shipped config that it stands for.

A run's ``config.yaml`` and a description in a checkpoint have lost their rules, and a config of the user's own may have
none; what they say is checked all the same.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ltr.configuration.configs import config_names, read_config
from ltr.configuration.removed import current_name

_DEFAULT = {"": "train", "trainer": "trainer/default", "evaluation": "evaluation/default",
            "checkpoint": "checkpoint/default", "callbacks": "callbacks/default"}  # fmt: skip
_CALLED = ("sampler", "augment", "head", "loss", "backbone", "optimizer", "scheduler", "method")
_GROUP = {"representation": "method"}  # where a config of that group lies under another name


def rules_of(path: str, node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rules for the keys of a config, by key; {} where nothing is known of it.

    Args:
        path: of the config, e.g. ``optimizer`` or ``method.classifier.optimizer``.
    """
    own = node.get("_allowed_")
    if own is not None:
        return own if isinstance(own, Mapping) else {}
    if path in _DEFAULT:
        return _rules(_DEFAULT[path])
    last = path.rpartition(".")[2]
    group = _GROUP.get(last, last)
    if group in _CALLED and isinstance(node.get("_target_"), str):
        return _rules_of_code(group, (node["_target_"],))
    if path == "dataset":
        code = tuple(str(target(node, part)) for part in ("source", "split"))
        name = current_name("dataset", str(node.get("name")))
        return _rules(f"dataset/{name}") if name in config_names("dataset") else _rules_of_code("dataset", code)
    return {}


def target(node: Any, part: str) -> Any:
    """The ``_target_`` of a config inside a config, or None."""
    inner = node.get(part) if isinstance(node, Mapping) else None
    return inner.get("_target_") if isinstance(inner, Mapping) else None


@functools.cache
def _rules(config: str) -> Mapping[str, Any]:
    return read_config(config).get("_allowed_") or {}


@functools.cache
def _rules_of_code(group: str, code: tuple[str, ...]) -> Mapping[str, Any]:
    """The rules on which all shipped configs of the same code agree."""
    configs = [read_config(f"{group}/{name}") for name in config_names(group)]
    alike = [config.get("_allowed_") or {} for config in configs if _code(group, config) == code]
    rules = {key: rule for config in alike for key, rule in config.items()}
    return {key: rule for key, rule in rules.items() if all(config.get(key, rule) == rule for config in alike)}


def _code(group: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    if group == "dataset":
        return tuple(str(target(config, part)) for part in ("source", "split"))
    return (str(config.get("_target_")),)
