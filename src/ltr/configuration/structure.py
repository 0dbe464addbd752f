"""Checks of the keys that the program reads from any configuration: presence and type.

Keys that configs pass to code are checked against signatures (see `ltr.configuration.targets`). The keys here are read
by name.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ltr.configuration.allowed import as_text, check_values
from ltr.configuration.configs import OPTIONAL, PRIVATE_KEYS, config_names, read_config
from ltr.errors import nearest

# groups whose keys the program reads: those of the shipped config
READ_BY_NAME = ("trainer", "strategy", "evaluation", "checkpoint", "callbacks", "paths", "features")
CONFIG = {"strategy": "single", "features": "images"}  # where it is not called default
CALLED = ("sampler", "augment", "head", "loss", "backbone", "tune", "optimizer", "scheduler", "method")
DATASET = ("name", "mean", "std", "source", "split")
OF_EVALUATION = ("accelerator", "precision", "num_workers")  # keys of the trainer that evaluation depends on
LOGGERS = ("csv", "wandb", "tensorboard")
NOT_VALUES = ("_target_", "defaults", "hydra", *PRIVATE_KEYS)
_FOLDER = re.compile(r"[^\W_][\w.+-]{0,99}")


# folders of paths.outputs that hold no runs of a data set
TAKEN_NAMES = ("stages", "sweeps", "evaluations", "audit", "reproduce")


def check_structure(config: Mapping[str, Any]) -> list[str]:
    """Return a sentence for every part of a plain configuration that is missing, superfluous or of the wrong kind."""
    mistakes = [f"{key}: missing; the program needs it" for key in _keys_of("train") if key not in config]
    for group in (*READ_BY_NAME, *CALLED, "dataset", "logger"):
        if group not in config:
            mistakes.append(f"{group}: missing; the program needs a config, e.g. {group}={_first_config(group)}")
        elif not isinstance(config[group], Mapping):
            mistakes.append(
                f"{group}={as_text(config[group])}: a config is needed, e.g. {group}={_first_config(group)}"
            )
        elif group in READ_BY_NAME:
            needed = _keys_of(f"{group}/{CONFIG.get(group, 'default')}")
            more = [key for node in config_names(group) for key in _keys_of(f"{group}/{node}")]
            mistakes += _same_keys(group, config[group], needed, list(dict.fromkeys([*needed, *more])))
        elif group in CALLED:
            mistakes += _called(group, config[group])
    for group in OPTIONAL:
        if config.get(group) is not None:
            mistakes += _called(group, config[group])
    if isinstance(config.get("method"), Mapping) and "name" not in config["method"]:
        mistakes.append("method.name: missing; it names the folder of the method's runs")
    for group, check in (("dataset", _dataset), ("logger", _logger)):
        if isinstance(config.get(group), Mapping):
            mistakes += check(config[group])
    return [*mistakes, *_folder_of_dataset(config), *_kinds(config)]


def _folder_of_dataset(config: Mapping[str, Any]) -> list[str]:
    """Return a sentence if the folder of the data set's runs is one that ltr uses otherwise, or a hidden one."""
    node, paths = config.get("dataset"), config.get("paths")
    name = node.get("name") if isinstance(node, Mapping) else None
    if not isinstance(name, str) or not isinstance(paths, Mapping):
        return []
    top = name.replace(os.sep, "/").partition("/")[0]
    stages = Path(os.path.abspath(str(paths.get("stages"))))
    is_store = stages == Path(os.path.abspath(os.path.join(str(paths.get("outputs")), name)))
    is_taken = top in TAKEN_NAMES or top.startswith(".") or is_store
    if not is_taken or _folder_name(name) is not None:  # which is a mistake of its own
        return []
    return [
        f"dataset.name={as_text(name)}: it names the folder of the runs below paths.outputs, where ltr keeps other "
        f"files in {', '.join(TAKEN_NAMES)} and paths.stages, and reports read no hidden folder. Give another name"
    ]


@functools.cache  # called in every job of a sweep
def _keys_of(config: str) -> tuple[str, ...]:
    return tuple(key for key in read_config(config) if key not in NOT_VALUES)


def _first_config(group: str) -> str:
    line = next((entry for entry in read_config("train")["defaults"] if isinstance(entry, dict) and group in entry), {})
    return str(line.get(group, "NAME"))


def _same_keys(group: str, node: Mapping[str, Any], needed: Iterable[str], known: Collection[str]) -> list[str]:
    missing = [f"{group}.{key}: missing; the program needs it" for key in needed if key not in node]
    keys = [key for key in node if key not in PRIVATE_KEYS]
    return missing + [
        f"{group}.{key}={as_text(node[key])}: nothing reads it; {group} has {', '.join(known)}{nearest(key, known)}"
        for key in keys
        if key not in known
    ]


def _called(path: str, node: Any) -> list[str]:
    if not isinstance(node, Mapping):
        return [f"{path}={as_text(node)}: a config with a _target_ is needed"]
    return [] if "_target_" in node else [f"{path}._target_: missing; it names the code that the config is for"]


def _dataset(node: Mapping[str, Any]) -> list[str]:
    mistakes = []
    for key in ("source", "split"):
        if key in node:
            mistakes += _called(f"dataset.{key}", node[key])
    return mistakes + [f"dataset.{key}: missing; the program needs it" for key in DATASET if key not in node]


def _logger(node: Mapping[str, Any]) -> list[str]:
    name = node.get("name")
    if name not in LOGGERS:
        return [f"logger.name={as_text(name)}: allowed is one of: {', '.join(LOGGERS)}{nearest(str(name), LOGGERS)}"]
    keys = _keys_of(f"logger/{name}")
    mistakes = _same_keys("logger", node, keys, keys)
    if name != "csv" and not _installed(name):
        mistakes.append(f"logger.name={name}: the package {name} is not installed. pip install {name}, or logger=csv")
    return mistakes


def _installed(package: str) -> bool:
    """Return whether a package is installed, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _folder_name(value: Any) -> str | None:
    if isinstance(value, (str, int)) and not isinstance(value, bool) and _FOLDER.fullmatch(str(value)):
        return None
    return "a folder's name is needed: letters, digits, '.', '_', '+' and '-', a letter or digit first, at most 100"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "a text is needed"


def _project(value: Any) -> str | None:
    """Return the reason why a value is not a project name for Weights & Biases; None if it is one."""
    if isinstance(value, str) and value.strip() and len(value) <= 128 and not set(value) & set("/\\#?%:"):
        return None
    return "a text of at most 128 letters is needed, without any of / \\ # ? % :"


def _folder(value: Any) -> str | None:
    """Return the reason why a value is not the path of a folder; None if it is one."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return "a folder is needed"
    path = Path(value).absolute()
    existing = next((folder for folder in (path, *path.parents) if os.path.exists(folder)), None)
    return None if existing is None or os.path.isdir(existing) else f"a folder is needed, and {existing} is a file"


def _numbers(value: Any) -> str | None:
    if isinstance(value, list) and value and all(_is_number(entry) for entry in value):
        return None
    return "a list of numbers is needed, one for each channel of the images"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _texts(value: Any) -> str | None:
    fine = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    return None if fine else f"a list of texts is needed, such as [{as_text(value)}]"


_KINDS: dict[str, Callable[[Any], str | None]] = {
    "name": _folder_name,
    "dataset.name": _folder_name,
    "dataset.mean": _numbers,
    "dataset.std": _numbers,
    "method.name": _folder_name,
    "logger.project": _project,
    "logger.entity": lambda value: None if value is None else _text(value),
    "logger.job_type": lambda value: None if value is None else _text(value),
    "logger.group": lambda value: None if value is None else _text(value),
    "logger.tags": _texts,
    "paths.outputs": _folder,
    "paths.stages": _folder,
    "paths.data": _folder,
}


def check_foreign(config: Mapping[str, Any]) -> list[str]:
    """Return a message for each value of a configuration from a file that is invalid on a command line.

    Only keys that evaluation and prediction use are checked; they report missing ones themselves.

    Args:
        config: plain, of a run's ``config.yaml`` or of a checkpoint's description.
    """
    used: dict[str, Any] = {key: config[key] for key in ("name", "seed") if key in config}
    mistakes = []
    for group, keys in _OF_FILES.items():
        node = config.get(group)
        if isinstance(node, Mapping):
            used[group] = {key: value for key, value in node.items() if keys is None or key in keys}
        elif node is not None:
            mistakes.append(f"{group}={as_text(node)}: keys with values are needed")
    named = list(dict.fromkeys([*mistakes, *_kinds(used), *check_values(used)]))
    return named + [
        line for line in _not_plain(config) if line.split("=")[0] not in {one.split("=")[0] for one in named}
    ]


def _not_plain(node: Any, path: str = "") -> list[str]:
    """Return a message for each value that is not plain data."""
    if isinstance(node, Mapping):
        where = path or "the file"
        odd = [f"{where}: the key {as_text(key)!r} is not text" for key in node if not isinstance(key, str)]
        below = [_not_plain(value, f"{path}.{key}".removeprefix(".")) for key, value in node.items()]
        return [*odd, *(line for lines in below for line in lines)]
    if isinstance(node, list):
        return [line for number, value in enumerate(node) for line in _not_plain(value, f"{path}.{number}")]
    if node is None or isinstance(node, (str, bool)) or (isinstance(node, int) and abs(node) < 2**63):
        return []
    if isinstance(node, float) and math.isfinite(node):
        return []
    return [f"{path}={as_text(node)}: a text, or a finite number of at most 64 bits, is needed"]


# groups of a run's configuration that are used again, and which of their keys; None: all
_OF_FILES: dict[str, tuple[str, ...] | None] = {
    "dataset": None,
    "evaluation": None,
    "method": ("name",),
    "trainer": OF_EVALUATION,
}


def _kinds(config: Mapping[str, Any]) -> list[str]:
    mistakes = []
    for path, kind in _KINDS.items():
        group, _, key = path.rpartition(".")
        node = config.get(group, {}) if group else config
        reason = kind(node[key]) if isinstance(node, Mapping) and key in node else None
        if reason:
            mistakes.append(f"{path}={as_text(node[key])}: {reason}")
    return mistakes
