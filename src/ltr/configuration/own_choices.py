"""Choices of the shipped configs of a method, as opposed to what a command sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ltr.configuration.allowed import as_text
from ltr.configuration.configs import config_names, leaves, node_at, read_config, recipes_of, updated
from ltr.configuration.targets import typed_name
from ltr.identity import name_of

_INTERPOLATION = re.compile(r"\$\{([\w.]+)\}")


def own_choice(group: str, method: str, dataset: str = "") -> dict[str, Any]:
    """Return the config of a top-level group that a method chooses, with the recipes of a data set.

    Args:
        group: ``sampler``, ``loss`` or ``head``, which no config of a data set chooses.
        method: name of a config of methods; for an unknown name, the choice of the primary config.
        dataset: name of a config of data sets; '' for no recipes.
    """
    is_shipped = method in config_names("method")
    configs = ["train", *([f"method/{method}"] if is_shipped else [])]
    pattern = re.compile(rf"(override )?/?{group}(@_global_\.{group})?")
    entries = [entry for config in configs for entry in read_config(config).get("defaults", [])]
    names = [name for entry in entries for key, name in entry.items() if pattern.fullmatch(key)]
    shipped = read_config(f"{group}/{names[-1]}")
    for recipe in recipes_of(dataset, method):
        shipped = updated(shipped, read_config(recipe).get(group) or {})
    return shipped


def own_options(method: str, dataset: str = "") -> dict[str, Any]:
    """Return the options that the config of a method and its recipes set; those of the recipes for an unknown method.

    Args:
        method, dataset: as for `own_choice`.
    """
    shipped: dict[str, Any] = read_config(f"method/{method}") if method in config_names("method") else {}
    for recipe in recipes_of(dataset, method):
        shipped = updated(shipped, read_config(recipe).get("method") or {})
    return shipped


def own_node(method: str, node: str) -> dict[str, Any]:
    """Return the node of a shipped method's config, such as ``classifier``, with the configs that it chooses there."""
    content = read_config(f"method/{method}")
    shipped: dict[str, Any] = {}
    for entry in content.get("defaults", []):
        for key, name in entry.items():
            if (choice := re.fullmatch(rf"/(\w+)@{node}\.(\w+)", key)) and name is not None:
                shipped[choice[2]] = read_config(f"{choice[1]}/{name}")
    return updated(shipped, content.get(node) or {})


def changes(where: str, config: Mapping[str, Any], shipped: Mapping[str, Any], top: Mapping[str, Any]) -> list[str]:
    """Return what a resolved config sets differently from the shipped one, as overrides: ``loss=ldam``.

    Args:
        where: key of the config, for the overrides.
        shipped: the shipped config, with interpolations.
        top: resolved top level; interpolations of keys that it lacks do not count as different.
    """
    expected = dict(leaves(shipped))
    result: list[str] = []
    chosen: list[str] = []  # nodes of another class, whose arguments are different ones
    for key, value in sorted(leaves(config), key=lambda leaf: not leaf[0].endswith("_target_")):
        if any(key.startswith(node) for node in chosen):
            continue
        other = expected.get(key)
        if isinstance(other, str) and (interpolation := _INTERPOLATION.fullmatch(other)):
            other = node_at(top, interpolation[1])
            if other is None:
                continue
        if key.endswith("_target_"):
            if name_of(str(value)) != name_of(str(other)):
                node = key.removesuffix("_target_")
                chosen.append(node)
                path = f"{where}.{node}".rstrip(".")
                result.append(f"{path}={typed_name({'_target_': value})}")
        elif value != other:
            result.append(f"{where}.{key}={as_text(value)}")
    return result
