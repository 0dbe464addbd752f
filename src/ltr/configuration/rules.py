"""Rules of a config: from the code in its ``_target_``, its ``_allowed_``, or the matching shipped config.

A run's ``config.yaml``, a checkpoint's description and a user's config may have no rules, but are checked like shipped
configs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ltr.configuration.configs import config_names, read_config
from ltr.configuration.declarations import options_of, rules_of_target
from ltr.configuration.removed import current_name

_DEFAULT = {"": "train", "trainer": "trainer/default", "evaluation": "evaluation/default",
            "checkpoint": "checkpoint/default", "callbacks": "callbacks/default"}  # fmt: skip


def rules_of(path: str, node: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Return the rules for the keys of a config, by key; {} for an unknown config.

    Args:
        path: of the config, e.g. ``optimizer`` or ``method.classifier.optimizer``.
        config: the whole configuration, if nodes without code of their own, such as ``method.grid``, matter.
    """
    allowed = node.get("_allowed_")
    declared = rules_of_target(node.get("_target_")) if "_target_" in node else _nested_rules(path, config or {})
    if allowed is not None or declared:
        return {**declared, **(allowed if isinstance(allowed, Mapping) else {})}
    if path in _DEFAULT:
        return _rules(_DEFAULT[path])
    if path == "dataset":
        name = current_name("dataset", str(node.get("name")))
        return _rules(f"dataset/{name}") if name in config_names("dataset") else _rules_of_data(_code(node))
    return {}


def _nested_rules(path: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the rules of a node that is an option of the node around it."""
    above, _, last = path.rpartition(".")
    outer: Any = config
    for part in above.split("."):
        outer = outer.get(part) if isinstance(outer, Mapping) else None
    target_of_outer = outer.get("_target_") if isinstance(outer, Mapping) else None
    option = options_of(target_of_outer).get(last) if isinstance(target_of_outer, str) else None
    nested = {} if option is None or option.nested is None else option.nested
    return {name: inner.rule for name, inner in nested.items() if inner.rule is not None}


def target(node: Any, part: str) -> Any:
    """Return the ``_target_`` of a config inside a config, or None."""
    inner = node.get(part) if isinstance(node, Mapping) else None
    return inner.get("_target_") if isinstance(inner, Mapping) else None


@functools.cache
def _rules(config: str) -> Mapping[str, Any]:
    return read_config(config).get("_allowed_") or {}


@functools.cache
def _rules_of_data(code: tuple[str, str]) -> Mapping[str, Any]:
    """Return the rules on which all shipped data sets of the same source and split agree."""
    configs = [read_config(f"dataset/{name}") for name in config_names("dataset")]
    alike = [config.get("_allowed_") or {} for config in configs if _code(config) == code]
    rules = {key: rule for config in alike for key, rule in config.items()}
    return {key: rule for key, rule in rules.items() if all(config.get(key, rule) == rule for config in alike)}


def _code(dataset: Mapping[str, Any]) -> tuple[str, str]:
    return str(target(dataset, "source")), str(target(dataset, "split"))
