"""Overrides that no command accepts, whatever they would compose to: private keys, paths as config names, Hydra's own.

The rules of a config (``_allowed_``) protect a run from values that cannot work, so that an override may not touch
them; a config of the user's own (``--config-dir``) may bring its own rules.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ltr.configuration.configs import PRIVATE_KEYS, conf_directory, leaves
from ltr.configuration.parsing import Parsed, parse
from ltr.configuration.targets import refused_target
from ltr.configuration.unknown_configs import choice_of_path

# keys that Hydra writes itself, or that would move files of a run
_OF_HYDRA = {
    "hydra.run": "ltr names the folder of a run itself. Set paths.outputs=FOLDER",
    "hydra.overrides": "Hydra fills it from the command line. Write the overrides themselves",
    "hydra.runtime": "Hydra fills it when it starts. Leave it out",
    "hydra.job.num": "Hydra counts the jobs of a sweep itself. Leave it out",
    "hydra.job.id": "Hydra names the jobs of a sweep itself. Leave it out",
    "hydra.job.override_dirname": "Hydra fills it from the command line. Leave it out",
    "hydra.job.config_name": "the primary config is chosen by --config-name NAME",
    "hydra.callbacks.sweep_folder": "ltr's own table of a sweep needs it. Leave it as it is",
    "hydra.launcher._target_": "a launcher is chosen by its config, e.g. +launcher=local",
    "hydra.sweeper._target_": "a sweeper is chosen by its config, e.g. hydra/sweeper=optuna",
}
# a name, or names below a folder of the user's own; no ending, no way out
_CONFIG_NAME = re.compile(r"[\w+-][\w.+-]*(/[\w+-][\w.+-]*)*")
_ENDINGS = (".yaml", ".yml")
# an override with none of these needs no second look
_SUSPECT = re.compile(r"^[+~]*hydra\b|/|\\|\.\.|\.ya?ml|=\s*\[|_target_|" + "|".join(PRIVATE_KEYS))
# groups of which one config is chosen; a second one would be merged into it
_OF_ONE = ("strategy", "sampler", "augment", "head", "loss", "backbone", "optimizer", "scheduler", "method", "dataset",
           "logger", "hydra/launcher", "hydra/sweeper")  # fmt: skip


def forbidden(overrides: Iterable[str], config_dir: str | None = None) -> dict[str, str]:
    """Return the overrides that are refused before composition, each with a sentence; {} if there are none.

    Args:
        overrides: as they were written.
        config_dir: the user's own folder of configs (``--config-dir``), or None.
    """
    parsed, _ = parse(text for text in overrides if _SUSPECT.search(text))
    reasons = ((one, _reason(one, config_dir)) for one in parsed)
    return {one.text: f"{one.text}: {reason}" for one, reason in reasons if reason}


def _reason(one: Parsed, config_dir: str | None) -> str | None:
    private = next((key for key in _keys(one) if key in PRIVATE_KEYS), None)
    if private is not None:
        return (
            f"'{private}' holds the rules of a config, and the command line cannot change them. Choose an allowed "
            "value, or put a config of your own into a folder for --config-dir"
        )
    below = [key for value in one.values if isinstance(value, dict) for key, _ in leaves(value, one.key)]
    for key, reason in _OF_HYDRA.items():
        if any(named == key or named.startswith(f"{key}.") for named in (one.key, *below)):
            return reason
    if one.key == "hydra.job.env_copy":
        return _unset(one.values)
    if not one.override.is_hydra_override() and not one.override.is_delete():
        # the other values of its config are then checked by the rules of the config's own code
        for value in one.values:
            if refused := _refused_targets(one.key, value):
                return refused
    return _wrong_name(one) if _is_group(one, config_dir) else None


def _refused_targets(key: str, value: Any) -> str | None:
    """Return the reason why a value names code outside the allowed packages; None if it does not."""
    if isinstance(value, Mapping):
        targets = [entry for name, entry in leaves(value) if name.rpartition(".")[2] == "_target_"]
        reasons = ((target, _refused_targets("_target_", target)) for target in targets)
        return next((f"_target_={target}: {reason}" for target, reason in reasons if reason), None)
    if key.rpartition(".")[2] != "_target_" or "${" in str(value):
        return None
    return refused_target(value)


def _unset(values: list[Any]) -> str | None:
    names = [str(name) for value in values for name in (value if isinstance(value, list) else [value])]
    unset = [name for name in names if name not in os.environ]
    return f"the environment has no {', '.join(unset)}. Set it, or leave the name out" if unset else None


def _keys(one: Parsed) -> Iterator[str]:
    """Return every key that an override names: of its path, its package and its values."""
    yield from re.split(r"[./]", one.key)
    yield from (one.override.package or "").split(".")
    for value in one.values:
        yield from _keys_in(value)


def _keys_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from re.split(r"[./]", str(key))
            yield from _keys_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys_in(inner)
    elif isinstance(value, str) and "${" in value:  # ${oc.create:...} can make a mapping
        yield from re.findall(r"\w+", value)


def _is_group(one: Parsed, config_dir: str | None) -> bool:
    if one.override.package is not None or one.key.startswith("hydra/"):
        return True
    folders = [conf_directory(), *([Path(config_dir)] if config_dir else [])]
    return "." not in one.key and any((folder / one.key).is_dir() for folder in folders)


def _wrong_name(one: Parsed) -> str | None:
    several = next((value for value in one.values if isinstance(value, list)), [])
    if reason := not_one_config(one.key, several, one.before.lstrip("+").rstrip("=")):
        return reason
    names = [name for value in one.values for name in (value if isinstance(value, list) else [value])]
    for name in names:
        if isinstance(name, str) and (reason := wrong_config_name(name, one.key)):
            return reason
    return None


def not_one_config(group: str, names: Iterable[Any], at: str | None = None) -> str | None:
    """Return the reason why a list of names cannot be chosen, as the end of a sentence; None if it can.

    Args:
        group: group of the configs.
        at: key of the choice; None: the group.
    """
    if group not in _OF_ONE:
        return None
    key, each = at or group, list(dict.fromkeys(map(str, names)))
    swept = f"; one run for each is a sweep, -m {key}={','.join(each)}" if len(each) > 1 else ""
    return f"one config is needed here, not a list, e.g. {key}={each[0]}{swept}" if each else None


def wrong_config_name(name: str, group: str | None = None) -> str | None:
    """Return the reason why ``name`` cannot be the name of a config, as the end of a sentence; None if it can.

    Args:
        group: group of the config, for the key that takes a path instead.
    """
    if not ("/" in name or "\\" in name or ".." in name or name.endswith(_ENDINGS)):
        return None  # Hydra checks that a config of this name exists
    if _CONFIG_NAME.fullmatch(name) and ".." not in name and not name.endswith(_ENDINGS):
        return None
    reason = f"the name of a config is needed, and '{name}' is a path"
    if choice := choice_of_path(group, name):
        return f"{reason}. {choice[0].upper()}{choice[1:]}"
    return (
        f"{reason}. Name a config of its group, without folder and ending; configs of your own are found in the folder "
        "of --config-dir"
    )
