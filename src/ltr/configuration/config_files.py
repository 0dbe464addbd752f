"""Config files as Hydra reads them, complete: with options that they leave out, and their choices in defaults lists.

Options that a file leaves out have the declared defaults of its class. Nested choices in the body of a file are moved
to its defaults list.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.default_element import ConfigDefault, GroupDefault
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from ltr.configuration.configs import PRIVATE_KEYS, updated
from ltr.configuration.declared_defaults import takes_defaults, with_defaults


class ConfigFiles(CachingConfigRepository):
    """Reader of config files for `ltr.configuration.nested.NestedLoader`.

    Args:
        choices: config file -> nodes chosen in its body -> their groups.
        left_out: choices of experiments that are left out, such as ``augment@method.classifier.augment``.

    Attributes:
        names: config file -> dotted path in its body -> plain text that may be the name of a config.
        targets: config file -> dotted path of a node in its body -> the node's ``_target_``.
    """

    def __init__(
        self, delegate: IConfigRepository, choices: Mapping[str, Mapping[str, str]], left_out: Collection[str] = ()
    ) -> None:
        super().__init__(delegate)
        self.left_out = left_out
        self.choices = choices
        self.names: dict[str, dict[str, str]] = {}
        self.targets: dict[str, dict[str, str]] = {}
        self._merged: dict[str, dict[str, Any]] = {}  # config file -> its content over its bases

    def load_config(self, config_path: str) -> ConfigResult | None:
        is_read = f"config_path={config_path}" in self.cache
        loaded = super().load_config(config_path)
        if is_read or loaded is None or not OmegaConf.is_dict(loaded.config) or config_path.startswith("hydra/"):
            return loaded
        if takes_defaults(config_path):
            self._fill_in(config_path, loaded)
        if self.left_out and config_path.startswith("experiment/"):
            entries = loaded.defaults_list or []
            loaded.defaults_list = [
                entry
                for entry in entries
                if not (
                    isinstance(entry, GroupDefault)
                    and entry.override
                    and f"{str(entry.group).lstrip('/')}@{entry.package}" in self.left_out
                )
            ]
        for path, group in self.choices.get(config_path, {}).items():
            above, _, last = path.rpartition(".")
            node = OmegaConf.select(loaded.config, above) if above else loaded.config
            name = node.pop(last)  # type: ignore[union-attr]
            # the package of hydra/launcher is hydra.launcher anyway
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

    def _fill_in(self, config_path: str, loaded: ConfigResult) -> None:
        """Add the options that a file and its bases leave out."""
        bases: dict[str, Any] = {}
        for entry in loaded.defaults_list or []:
            if isinstance(entry, ConfigDefault) and not entry.is_self() and entry.package is None:
                path = str(entry.path)
                base = path[1:] if path.startswith("/") else f"{config_path.rpartition('/')[0]}/{path}"
                self.load_config(base)
                bases = updated(bases, self._merged.get(base, {}))
        written: Any = OmegaConf.to_container(loaded.config, resolve=False)
        content = with_defaults(config_path, written, bases)
        self._merged[config_path] = updated(bases, content)
        if content != written:
            loaded.config = OmegaConf.create(content)


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
