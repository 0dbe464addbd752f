"""Checks of objects that Hydra instantiates (launcher, sweeper, callbacks, logging), before other checks."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from ltr.configuration.allowed import as_text, find_problem
from ltr.configuration.configs import mappings
from ltr.configuration.forbidden import forbidden, not_one_config, wrong_config_name
from ltr.configuration.launchers import check_launcher
from ltr.configuration.sweep_checks import check_whole_sweep
from ltr.configuration.targets import allow_packages
from ltr.errors import nearest, refuse

ALLOWED = ("hydra._internal.core_plugins.", "hydra.experimental.callbacks.", "hydra_plugins.", "ltr.sweeps.", "optuna.")
_HEADLINE = "the configuration is not allowed"
_LOGGING = ("job_logging", "hydra_logging")
_PLUGINS = {"launcher": "basic", "sweeper": "basic"}


def check_hydra(node: Mapping[str, Any], allowed: tuple[str, ...] = ()) -> list[str]:
    """Return a message for each key below ``hydra`` that would run code outside Hydra and its plugins.

    Args:
        node: as it is written, interpolations not resolved: a target must be a plain name.
        allowed: packages that the command line allows in addition to `ALLOWED`.
    """
    prefixes = ALLOWED + tuple(f"{name.rstrip('.')}." for name in allowed)
    mistakes = [*_unknown_keys(node), *_plugins(node), *_search_path(node), *_names(node)]
    verbose = node.get("verbose", False)
    if not isinstance(verbose, (bool, str)) and not (
        isinstance(verbose, list) and all(isinstance(name, str) for name in verbose)
    ):
        mistakes.append(f"hydra.verbose={verbose}: allowed is true, false, a logger's name or a list of names")
    for path, mapping in mappings(node):
        target = mapping.get("_target_")
        if "_target_" in mapping and not (isinstance(target, str) and target.startswith(prefixes)):
            mistakes.append(
                f"hydra.{path}._target_={target}: not one of Hydra's own, nor of its plugins. For your own code pass "
                "--allow PREFIX"
            )
        if path.split(".")[0] not in _LOGGING:
            continue
        # Python's logging calls what these keys name
        if "()" in mapping:
            mistakes.append(f"hydra.{path}: a factory '()' is not allowed")
        named = mapping.get("class")
        if named is not None and not str(named).startswith(("logging.", "colorlog.")):
            mistakes.append(f"hydra.{path}.class={named}: handlers and formatters are those of the package logging")
    return mistakes


def _unknown_keys(node: Mapping[str, Any]) -> list[str]:
    from hydra.conf import HydraConf

    known = [*(field.name for field in dataclasses.fields(HydraConf)), "env"]  # a group of Hydra's own
    return [
        f"hydra.{key}: nothing reads it; hydra has {', '.join(known)}{nearest(key, known)}"
        for key in node
        if key not in known
    ]


def _plugins(node: Mapping[str, Any]) -> list[str]:
    """Return the mistakes of the launcher, the sweeper and the callbacks, which Hydra builds."""
    mistakes = []
    for name, example in _PLUGINS.items():
        if name in node and not (isinstance(node[name], Mapping) and "_target_" in node[name]):
            mistakes.append(f"hydra.{name}={as_text(node[name])}: a config is needed, chosen as hydra/{name}={example}")
        elif name in node:
            mistakes += _unread(name, node[name])
    callbacks = node.get("callbacks") or {}
    for name, callback in callbacks.items() if isinstance(callbacks, Mapping) else ():
        if not (isinstance(callback, Mapping) and "_target_" in callback):
            mistakes.append(
                f"hydra.callbacks.{name}={callback}: a config with a _target_ is needed; without one, leave it out"
            )
    return mistakes


def _unread(name: str, node: Mapping[str, Any]) -> list[str]:
    """Return the keys of a launcher or sweeper that it does not declare: Hydra and its plugins declare theirs."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    declared = [store.load(f"hydra/{name}/{file}").node for file in store.list(f"hydra/{name}") if "." in file]
    known = next((list(map(str, one)) for one in declared if one.get("_target_") == node["_target_"]), [])
    mistakes = [
        f"hydra.{name}.{key}: nothing reads it; hydra.{name} has {', '.join(known)}{nearest(str(key), known)}"
        for key in node
        if known and key not in known  # a user's own code declares nothing beforehand
    ]
    if reason := find_problem(node.get("max_batch_size"), "int [1, inf) or null"):
        mistakes.append(f"hydra.{name}.max_batch_size={as_text(node['max_batch_size'])}: {reason}")
    return mistakes


def _search_path(node: Mapping[str, Any]) -> list[str]:
    places = node.get("searchpath")
    return [
        f"hydra.searchpath: there is no folder of configs '{entry}'. Name a folder as file://FOLDER, or a package as "
        "pkg://PACKAGE; --config-dir FOLDER does the same"
        for entry in (places if isinstance(places, list) else [])
        if not _is_there(str(entry))
    ]


def _is_there(entry: str) -> bool:
    """Return whether a search path of Hydra's exists; an interpolation counts as existing."""
    if "${" in entry:
        return True
    scheme, _, rest = entry.rpartition("://")
    if scheme == "pkg":
        try:
            return importlib.util.find_spec(rest.replace("/", ".")) is not None
        except (ImportError, ValueError):
            return False
    return scheme in ("", "file") and os.path.isdir(rest)


def _names(node: Mapping[str, Any]) -> list[str]:
    """Return the mistakes of configs chosen by a path or as a list, on the command line or in another config."""
    mistakes = []
    for group, chosen in ((node.get("runtime") or {}).get("choices") or {}).items():
        names = chosen if isinstance(chosen, list) else [chosen]
        reasons = [(name, wrong_config_name(name, group.partition("@")[0])) for name in names if isinstance(name, str)]
        if isinstance(chosen, list):
            reasons.append((as_text(chosen), not_one_config(group.partition("@")[0], chosen)))
        mistakes += [f"{group}={name}: {reason}" for name, reason in reasons if reason]
    return mistakes


def hydra_node() -> Mapping[str, Any] | None:
    """Return Hydra's own node of the running job, unresolved; None where Hydra runs none."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    config = HydraConfig.instance().cfg
    node = None if config is None else OmegaConf.to_container(config, resolve=False)
    return node.get("hydra") if isinstance(node, dict) else None


def _own_first(loader: Any) -> None:
    """Search the folder of ``--config-dir`` before the shipped configs, so that its config of the same name wins."""
    from hydra._internal.config_repository import ConfigRepository

    path = loader.config_search_path.get_path()
    providers = [element.provider for element in path]
    if "command-line" in providers and "main" in providers:
        of_user, main = providers.index("command-line"), providers.index("main")
        if main < of_user:
            path.insert(main, path.pop(of_user))
            loader.repository = ConfigRepository(config_search_path=loader.config_search_path)


@contextlib.contextmanager
def guarded_hydra(allowed: tuple[str, ...] = ()) -> Iterator[None]:
    """Make Hydra call `check_hydra` before it instantiates anything.

    Raises:
        ConfigError: lists all mistakes.
    """
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from ltr.configuration.nested import NestedLoader

    load = NestedLoader.load_configuration

    def checked(self: Any, *arguments: Any, **named: Any) -> Any:
        overrides = named.get("overrides", arguments[1] if len(arguments) > 1 else ())
        with allow_packages(allowed):
            refuse(forbidden(overrides).values(), _HEADLINE)
        _own_first(self)
        with warnings.catch_warnings():
            # ltr reports this itself
            warnings.filterwarnings("ignore", message=".* is not available", category=UserWarning)
            config = load(self, *arguments, **named)
        hydra = config.get("hydra")
        node = OmegaConf.to_container(hydra, resolve=False) if OmegaConf.is_config(hydra) else {}
        mistakes = (
            check_hydra({str(key): value for key, value in node.items()}, allowed) if isinstance(node, dict) else []
        )
        if RunMode.MULTIRUN in (*arguments, *named.values()) and isinstance(node, dict):
            mistakes += check_launcher(node.get("launcher"))
        refuse(mistakes, _HEADLINE)
        # Hydra composes once more before, to read hydra.mode, and ignores errors there
        if RunMode.MULTIRUN in (*arguments, *named.values()) and named.get("validate_sweep_overrides", True):
            refuse(check_whole_sweep(config, overrides), "the sweep cannot be carried out")
        return config

    NestedLoader.load_configuration = checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        NestedLoader.load_configuration = load  # type: ignore[method-assign]
