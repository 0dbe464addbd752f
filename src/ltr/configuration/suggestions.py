"""Suggestions for an unknown key: the nearest key of the chosen configs or of other configs of the group."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltr.configuration.configs import OPTIONAL, config_names, leaves, mappings, read_config
from ltr.configuration.field_names import KEYS, OVERRIDES, SAME_PURPOSE
from ltr.errors import nearest, nearest_name


def suggestion(key: str, known: Collection[str], elsewhere: Mapping[str, list[str]]) -> str:
    """Return the end of a sentence such as ``. Did you mean 'loss.beta' (of loss=ldam)?``, or an empty string.

    Args:
        known: the keys that exist.
        elsewhere: keys that would exist with another config, and which configs these are.
    """
    elsewhere = {name: configs for name, configs in elsewhere.items() if name not in known}
    settable = [name for name in known if not name.endswith("_target_")]
    if key in elsewhere and SAME_PURPOSE.get(key) in known:
        return f". Did you mean '{SAME_PURPOSE[key]}'?"
    if key in elsewhere:
        return f"; it is a key of {_configs(elsewhere[key])}"
    if key in OVERRIDES:
        return f". Did you mean '{OVERRIDES[key]}'?"
    if key in KEYS:
        names = [name for name in KEYS[key] if name in known] or KEYS[key]
        return f". Did you mean {' or '.join(f'{name!r}{_of(elsewhere, name)}' for name in names)}?"
    last = key.rpartition(".")[2]
    group = key.partition(".")[0]
    inside = [name for name in settable if name.partition(".")[0] == group]
    for candidates in (inside, list(elsewhere)):
        # the group is the same, so only the rest distinguishes keys
        ends = {name.partition(".")[2]: name for name in candidates}
        close = nearest_name(key.partition(".")[2], ends) if "." in key else None
        if close is not None:
            return f". Did you mean '{ends[close]}'{_of(elsewhere, ends[close])}?"
    if "." not in key:
        same_end = [name for name in settable if name.endswith(f".{key}")]
        if len(same_end) == 1:
            return f". Did you mean '{same_end[0]}'?"
        if hint := nearest(key, dict.fromkeys([*(name.partition(".")[0] for name in known), *OPTIONAL])):
            return hint
    same_name = [name for name in [*settable, *elsewhere] if name.rpartition(".")[2] == last]
    same_name = same_name or [name for name in settable if last in name.rpartition(".")[2].split("_")]
    if same_name:
        return f". Did you mean '{same_name[0]}'{_of(elsewhere, same_name[0])}?"
    keys_of_group = [name.partition(".")[2] for name in inside if "." in name]
    if not keys_of_group:
        return nearest(key, settable)
    return f"; {group} has {', '.join(keys_of_group)}" if keys_of_group and len(keys_of_group) <= 30 else ""


def keys_of_other_configs(key: str, composed: DictConfig, nodes: Mapping[str, str]) -> dict[str, list[str]]:
    """Return keys that other shipped configs would have instead of the chosen one, with these configs.

    Configs that share classes with the chosen one, such as the source of a data set, come first.

    Args:
        nodes: nested choices of the configuration, see `ltr.configuration.nested.NestedLoader`.
    """
    node = max((path for path in nodes if key.startswith(f"{path}.")), key=len, default=key.partition(".")[0])
    group = nodes.get(node, node).partition("@")[0]
    configs_of_key: dict[str, list[str]] = {}
    if "." not in key or node.partition(".")[0] not in [*composed, *OPTIONAL]:
        return configs_of_key
    contents = {config: read_config(f"{group}/{config}") for config in config_names(group)}
    chosen = OmegaConf.select(composed, node)
    for config, content in sorted(contents.items(), key=lambda item: -_shared_classes(item[1], chosen)):
        inner = [
            str(choice).partition("@")[2]
            for entry in content.pop("defaults", [])
            for choice in entry
            if not str(choice).startswith("override")
        ]
        names = {name for name, _ in (*leaves(content, node), *mappings(content, node))}
        for name in (names | {f"{node}.{choice}" for choice in inner if choice}) - {node}:
            if not name.endswith("_target_"):
                configs_of_key.setdefault(name, []).append(f"{node}={config}")
    return configs_of_key


def _shared_classes(content: Mapping[str, Any], chosen: object) -> int:
    """Return how many nodes of a config have the class that they have in the chosen config."""
    return sum(
        name.endswith("_target_") and value == OmegaConf.select(chosen, name)
        for name, value in leaves(content)
        if isinstance(chosen, DictConfig)
    )


def _of(elsewhere: Mapping[str, list[str]], key: str) -> str:
    return f" (of {_configs(elsewhere[key])})" if key in elsewhere else ""


def _configs(configs: list[str]) -> str:
    return ", ".join(configs[:4]) + (", ..." if len(configs) > 4 else "")
