"""Rules of a config: from the code in its ``_target_``, its ``_allowed_``, or the matching shipped config.

A run's ``config.yaml``, a checkpoint's description and a user's config may have no rules, but are checked like shipped
configs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ltr.configuration.configs import config_names, node_at, read_config
from ltr.configuration.dataset_options import PARTS, dataset_options, part_options, passed_on
from ltr.configuration.declarations import Option, options_of, rules_of_target
from ltr.configuration.removed import current_name

_DEFAULT = {"": "train", "trainer": "trainer/default", "evaluation": "evaluation/default",
            "checkpoint": "checkpoint/default", "callbacks": "callbacks/default"}  # fmt: skip


def read_rules(path: str, node: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Return the rules for the keys of a config, by key; {} for an unknown config.

    Args:
        path: path of the config, e.g. ``optimizer`` or ``method.classifier.optimizer``.
        config: the whole configuration, if nodes without code of their own, such as ``method.grid``, matter.
    """
    declared = _declared_rules(path, node, config or {})
    allowed = node.get("_allowed_")
    if allowed is None and path == "dataset":
        # of a stored config, a key may have another value than the option it was passed to
        allowed = _rules_of_shipped(current_name("dataset", str(node.get("name"))))
    if allowed is not None or declared:
        return {**declared, **(allowed if isinstance(allowed, Mapping) else {})}
    return _rules(_DEFAULT[path]) if path in _DEFAULT else {}


def _declared_rules(path: str, node: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any]:
    if path == "dataset":
        return _ruled(dataset_options(node))
    above, _, part = path.rpartition(".")
    dataset = config.get("dataset")
    if above == "dataset" and part in PARTS and isinstance(dataset, Mapping):
        # an option that is passed on is checked once, under the key that users type
        passed = passed_on(dataset, part)
        return _ruled({name: one for name, one in part_options(dataset, part).items() if name not in passed})
    return rules_of_target(node.get("_target_")) if "_target_" in node else _nested_rules(path, config)


def _ruled(options: Mapping[str, Option]) -> dict[str, str | list]:
    return {name: option.rule for name, option in options.items() if option.rule is not None}


@functools.cache
def _rules_of_shipped(dataset: str) -> Mapping[str, Any]:
    """Return the rules of a shipped data set's keys; {} for another name."""
    if dataset not in config_names("dataset"):
        return {}
    content = read_config(f"dataset/{dataset}")
    return {**_ruled(dataset_options(content)), **content.get("_allowed_", {})}


def _nested_rules(path: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the rules of a node that is an option of the node around it."""
    above, _, last = path.rpartition(".")
    outer = node_at(config, above)
    target_of_outer = outer.get("_target_") if isinstance(outer, Mapping) else None
    option = options_of(target_of_outer).get(last) if isinstance(target_of_outer, str) else None
    nested = {} if option is None or option.nested is None else option.nested
    return _ruled(nested)


def target(node: Any, part: str) -> Any:
    """Return the ``_target_`` of a config inside a config, or None."""
    inner = node.get(part) if isinstance(node, Mapping) else None
    return inner.get("_target_") if isinstance(inner, Mapping) else None


@functools.cache
def _rules(config: str) -> Mapping[str, Any]:
    return read_config(config).get("_allowed_") or {}
