"""Configuration of a finished run with overrides for another evaluation.

A run's ``config.yaml`` is resolved and has no interpolations. They are taken from the shipped configs, so that
``dataset.imbalance_factor=50`` also changes the split and is checked as in training.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from ltr.configuration.allowed import as_text, find_problem
from ltr.configuration.configs import config_names, leaves, read_config
from ltr.configuration.dataset_options import PARTS
from ltr.configuration.former_keys import rename_overrides
from ltr.configuration.listed_configs import LISTS, reader, with_own
from ltr.configuration.parsing import parse
from ltr.configuration.removed import current_name
from ltr.configuration.rules import read_rules
from ltr.configuration.structure import OF_EVALUATION
from ltr.configuration.suggestions import suggestion
from ltr.configuration.targets import PRIVATE, check_targets
from ltr.errors import ConfigError, refuse
from ltr.identity import former_keys

_OF_TRAINING = ("evaluation.monitor_split", "evaluation.every_n_epochs")
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def with_overrides(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    known_mistakes: Sequence[str] = (),
    config_dir: str | None = None,
) -> dict[str, Any]:
    """Apply overrides to a run's configuration; only keys that evaluation depends on can change.

    Args:
        config: plain, as ``config.yaml`` holds it.
        overrides: ``key=value`` for keys of ``evaluation``, ``dataset``, ``paths.data`` and some of ``trainer``.
        known_mistakes: mistakes from other checks, for the same message.
        config_dir: the user's own folder of configs, in which scorers and protocols are found by name.

    Raises:
        ConfigError: lists all overrides that are malformed, do not affect evaluation or have a value that is not
            allowed; or all parts that the configuration lacks.
    """
    result = _completed(config)
    _find_data(result)
    links = _links(result)
    known = _settable(result, links)
    rules = _rules(result)
    parsed, mistakes = parse(overrides)
    rename_overrides((one.override for one in parsed), former_keys({}))
    typed = [key for key in known if key not in links]  # of a key and its copies the one that a user knows
    unknown = [_unknown(one.text, one.key, typed, config) for one in parsed if one.key not in known]
    if unknown:
        mistakes += [*unknown, f"what can be changed: {', '.join(typed)}"]
    for one in parsed:
        if one.adds or one.is_sweep or one.override.is_delete():
            mistakes.append(f"{one.text}: values can be changed here, one each, as key=value")
        elif one.key in known:
            value = one.values[0]
            if one.key in LISTS:
                value = with_own(LISTS[one.key], value, reader(LISTS[one.key], config_dir))
            reason = find_problem(value, rules[one.key]) if one.key in rules else None
            if reason:
                mistakes.append(f"{one.key}={as_text(value)}: {reason}")
            for key in (one.key, *(leaf for leaf, source in links.items() if source == one.key)):
                _set(result, key, value)
    mistakes += check_targets({"dataset": result["dataset"], "evaluation": result["evaluation"]})
    refuse([*known_mistakes, *mistakes], "the run cannot be evaluated like this")
    return result


def _completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with defaults for keys that were added after the run."""
    result: dict[str, Any] = copy.deepcopy(dict(config))
    dataset = result.get("dataset")
    node = dataset if isinstance(dataset, Mapping) else {}
    lacks = [] if node.get("name") else ["dataset.name: missing"]
    lacks += [f"dataset.{key}: a config is missing" for key in ("source", "split") if not _is_config(node.get(key))]
    refuse(lacks, "this is not the configuration of a run")
    for group in ("evaluation", "trainer", "paths"):
        stored = result.get(group)
        defaults = {key: value for key, value in read_config(f"{group}/default").items() if key != "_allowed_"}
        result[group] = {**defaults, **(stored if isinstance(stored, Mapping) else {})}
    # a default may refer to another key, as scorers do to the method's
    referred = OmegaConf.create({key: result.get(key) or {} for key in ("method", "evaluation", "trainer", "paths")})
    resolved: Any = OmegaConf.to_container(referred, resolve=True)
    return result | {group: resolved[group] for group in ("evaluation", "trainer", "paths")}


def _is_config(node: Any) -> bool:
    return isinstance(node, Mapping) and "_target_" in node


def _links(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the leaves of the data set's config that interpolate a key, and this key."""
    links = {
        key: match[1]
        for key, value in leaves({"dataset": _dataset_config(config)})
        if isinstance(value, str) and (match := _REFERENCE.fullmatch(value))
    }
    for key, part in _copies(config["dataset"]):
        links.setdefault(f"dataset.{part}.{key}", f"dataset.{key}")
    if "root" in config["dataset"]["source"]:
        links.setdefault("dataset.source.root", "paths.data")
    return links


def _copies(dataset: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the keys of a data set of no shipped name that its source or split repeats, and which of them does."""
    if current_name("dataset", str(dataset["name"])) in config_names("dataset"):
        return []
    return [
        (key, part)
        for part in ("source", "split")
        for key, value in dataset[part].items()
        if key in dataset and key not in PRIVATE and dataset[key] == value
    ]


def _find_data(config: dict[str, Any]) -> None:
    """Set the data folder to ``LTR_DATA`` for a run that was moved to another machine."""
    root, data_folder = config["dataset"]["source"].get("root"), os.environ.get("LTR_DATA")
    if root is not None and data_folder and not os.path.isdir(str(root)):
        config["dataset"]["source"]["root"] = data_folder


def _dataset_config(config: Mapping[str, Any]) -> dict[str, Any]:
    name = current_name("dataset", str(config["dataset"]["name"]))
    return read_config(f"dataset/{name}") if name in config_names("dataset") else {}


def _settable(config: Mapping[str, Any], links: Mapping[str, str]) -> list[str]:
    keys = [key for key, _ in leaves({"evaluation": config["evaluation"]}) if key not in _OF_TRAINING]
    followed = [key for key in dict.fromkeys(links.values()) if key == "paths.data" or key.startswith("dataset.")]
    inside = [key for part in ("source", "split") for key, _ in leaves(config["dataset"][part], f"dataset.{part}")]
    written = {f"dataset.{part}.{key}" for key, part in _copies(config["dataset"])}  # accepted, if not listed
    unlinked = [key for key in inside if (key not in links or key in written) and not key.endswith("_target_")]
    more = [f"dataset.{key}" for key in ("image_size", "image_resize", "packed") if key in config["dataset"]]
    return [*keys, *followed, *unlinked, *more, *(f"trainer.{key}" for key in OF_EVALUATION)]


def _rules(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rules of the groups that evaluation depends on, by dotted key."""
    dataset = config["dataset"]
    nodes = {"evaluation": config["evaluation"], "trainer": config["trainer"], "dataset": dataset}
    nodes |= {f"dataset.{part}": dataset[part] for part in PARTS}
    return {f"{path}.{key}": rule for path, node in nodes.items() for key, rule in read_rules(path, node).items()}


def _unknown(text: str, key: str, known: Sequence[str], config: Mapping[str, Any]) -> str:
    if key in [name for name, _ in leaves(config)] or key in config:
        if key.startswith("dataset."):
            return (
                f"{text}: evaluation does not depend on '{key}' of the run's data set. Other data are named by their "
                "config, as in dataset=folder dataset.root=FOLDER"
            )
        return f"{text}: evaluation does not depend on '{key}'"
    return f"{text}: there is no key '{key}'{suggestion(key, known, {})}"


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    node = config
    for part in path:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{key}: '{part}' holds a value, not keys")
    node[last] = value
