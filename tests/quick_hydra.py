"""Hydra with two slow functions replaced: the tests compose configurations faster."""

from __future__ import annotations

from typing import Any

import omegaconf._utils
import pytest
import yaml
from hydra._internal import defaults_list

RELEASED_LOADER = omegaconf._utils.get_yaml_loader
RELEASED_MAP = defaults_list._create_interpolation_map


def speed_up(patch: pytest.MonkeyPatch) -> None:
    """Parse config files in C, and collect the choices for references in a defaults list only if it has some."""
    if hasattr(yaml, "CSafeLoader"):
        loader = loader_in_c(RELEASED_LOADER())
        patch.setattr(omegaconf._utils, "get_yaml_loader", lambda: loader)
    patch.setattr(defaults_list, "_create_interpolation_map", map_if_needed)


def slow_down(patch: pytest.MonkeyPatch) -> None:
    """Restore the functions as released."""
    patch.setattr(omegaconf._utils, "get_yaml_loader", RELEASED_LOADER)
    patch.setattr(defaults_list, "_create_interpolation_map", RELEASED_MAP)


def map_if_needed(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
    has_reference = any(not entry.is_self() and entry.is_interpolation() for entry in defaults)
    return RELEASED_MAP(overrides, defaults, self_added) if has_reference else None


def loader_in_c(loader: type[yaml.SafeLoader]) -> type[yaml.CSafeLoader]:
    """Return OmegaConf's loader over libyaml's parser: the same resolvers and constructors."""
    rules = {name: getattr(loader, name) for name in ("yaml_implicit_resolvers", "yaml_constructors")}
    return type("LoaderInC", (_DuplicateCheck, yaml.CSafeLoader), rules)


class _DuplicateCheck:
    """OmegaConf's check that no key is written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        keys = set()
        for key, _ in node.value:
            if key.tag == yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG and key.value in keys:
                problem = f"found duplicate key {key.value}"
                raise yaml.constructor.ConstructorError(
                    "while constructing a mapping", node.start_mark, problem, key.start_mark
                )
            keys.add(key.value)
        return super().construct_mapping(node, deep=deep)  # type: ignore[misc]
