"""Config files as Hydra reads them, with the nested choices of their bodies moved to their defaults lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.default_element import GroupDefault
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from ltr.configuration.configs import PRIVATE_KEYS


class ConfigFiles(CachingConfigRepository):
    """Reader of config files for `ltr.configuration.nested.NestedLoader`.

    Args:
        choices: config file -> nodes chosen in its body -> their groups.

    Attributes:
        names: config file -> dotted path in its body -> plain text that may be the name of a config.
        targets: config file -> dotted path of a node in its body -> the node's ``_target_``.
    """

    def __init__(self, delegate: IConfigRepository, choices: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__(delegate)
        self.choices = choices
        self.names: dict[str, dict[str, str]] = {}
        self.targets: dict[str, dict[str, str]] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        is_read = f"config_path={config_path}" in self.cache
        loaded = super().load_config(config_path)
        if is_read or loaded is None or not OmegaConf.is_dict(loaded.config) or config_path.startswith("hydra/"):
            return loaded
        for path, group in self.choices.get(config_path, {}).items():
            above, _, last = path.rpartition(".")
            node = OmegaConf.select(loaded.config, above) if above else loaded.config
            name = node.pop(last)  # type: ignore[union-attr]
            # hydra/launcher lies at hydra.launcher by itself
            package = None if group.replace("/", ".") == path else path
            choice = GroupDefault(group=f"/{group}", package=package, value=name, override=True)
            loaded.defaults_list = [*(loaded.defaults_list or []), choice]
        texts = {path: value for path, value in entries_of(loaded.config) if isinstance(value, str)}
        self.names[config_path] = {
            path: value
            for path, value in texts.items()
            if is_name(value) and path.rpartition(".")[2] not in ("_target_", "name")
        }
        self.targets[config_path] = {
            path.removesuffix("_target_").rstrip("."): value
            for path, value in texts.items()
            if path.rpartition(".")[2] == "_target_"
        }
        return loaded


def is_name(value: Any) -> bool:
    """Return whether a value can be the name of a config: no keys, and no reference to another value."""
    return not isinstance(value, Mapping) and "${" not in str(value)


def entries_of(config: Any) -> list[tuple[str, Any]]:
    """Return every node of a config as written, mappings as well as values, with its dotted path."""
    entries: list[tuple[str, Any]] = []

    def collect(node: Mapping[Any, Any], above: str) -> None:
        for key, value in node.items():
            if key in PRIVATE_KEYS or key == "defaults":
                continue
            path = f"{above}.{key}" if above else str(key)
            entries.append((path, value))
            if isinstance(value, Mapping):
                collect(value, path)

    collect(OmegaConf.to_container(config, resolve=False), "")  # type: ignore[arg-type]
    return entries
