"""Names of the configs that runs chose, as a user types them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from ltr.configuration.configs import conf_directory, config_names, leaves, read_config
from ltr.identity import name_of


def config_name(config: Mapping[str, Any], node: str) -> str | None:
    """Return the name of the shipped config that a node of a flat configuration was chosen by.

    Of several configs with the same class, it is the one with the most equal values.

    Args:
        node: dotted path of the node, such as ``loss`` or ``method.classifier.optimizer``.

    Returns:
        The name; None if no shipped config has the node's class.
    """
    target = name_of(str(config[f"{node}._target_"]))
    group = _group_of(config, node)
    candidates = {name: options for name, (of_config, options) in _targets(group).items() if of_config == target}
    if not candidates:
        return None

    def equal_values(name: str) -> int:
        return sum(config.get(f"{node}.{key}", ...) == value for key, value in candidates[name].items())

    return max(candidates, key=equal_values)


def _group_of(config: Mapping[str, Any], node: str) -> str:
    """Return the group that a node is chosen from, by the defaults list of the config that it belongs to."""
    top, _, path = node.partition(".")
    if not path:
        return top
    owner = config.get(f"{top}.name")
    if owner in config_names(top):  # the name may come from an untrusted file, so it is never used as a path
        for entry in read_config(f"{top}/{owner}").get("defaults", []):
            for key in entry:
                group, _, package = str(key).removeprefix("override ").partition("@")
                if package == path:
                    return group.strip("/ ")
    return path.rpartition(".")[2]


@functools.cache
def _targets(group: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return name and values of the class of each config of a group; {} if there is no such group."""
    if not re.fullmatch(r"\w+", group) or not (conf_directory() / group).is_dir():
        return {}
    contents = {name: read_config(f"{group}/{name}") for name in config_names(group)}
    return {
        name: (name_of(str(content["_target_"])), dict(leaves(content)))
        for name, content in contents.items()
        if "_target_" in content
    }
