"""Options of a data set's config: those of its source and its split, and the keys that the program reads itself.

A data set's config passes its keys on, ``val: ${dataset.val}``, so that users type ``dataset.val``. Such a key has the
name of its option, except for the seed of a split. Rule and meaning are those of the option.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltr.configuration.declarations import Option, fields_of, options_of

READ_BY_PROGRAM = "ltr.data.options.DatasetConfig"
PARTS = ("split", "source")
# the run's seed is another one
_KEYS = {"seed": "split_seed"}


def dataset_options(dataset: Mapping[str, Any]) -> dict[str, Option]:
    """Return the options that the keys of a data set's config stand for, by key; resolved or not."""
    passed: dict[str, Option] = {}
    for part in reversed(PARTS):
        passed |= {key: part_options(dataset, part)[option] for option, key in passed_on(dataset, part).items()}
    return {**fields_of(READ_BY_PROGRAM), **passed}


def options_referred_to(dataset: Mapping[str, Any]) -> dict[str, Option]:
    """Return the options whose value is ``${dataset.KEY}``, by that key, whether or not the data set holds it."""
    referred = {}
    for part in PARTS:
        for name, option in part_options(dataset, part).items():
            key = _KEYS.get(name, name)
            if dataset[part].get(name) == _reference(key):
                referred[key] = option
    return referred


def part_options(dataset: Mapping[str, Any], part: str) -> Mapping[str, Option]:
    """Return the options of a data set's ``source`` or ``split``; {} for code outside ltr."""
    node = dataset.get(part)
    target = node.get("_target_") if isinstance(node, Mapping) else None
    return options_of(target) if isinstance(target, str) else {}


def passed_on(dataset: Mapping[str, Any], part: str) -> dict[str, str]:
    """Return the options of a part whose value is that of a key of the data set, each with the key."""
    keys = {}
    for option in part_options(dataset, part):
        key = _KEYS.get(option, option)
        if option in dataset[part] and key in dataset:
            value = dataset[part][option]
            if value == _reference(key) or value == dataset[key]:
                keys[option] = key
    return keys


def _reference(key: str) -> str:
    return f"${{dataset.{key}}}"
