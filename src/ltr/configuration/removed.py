"""Removed configs and their replacements, for error messages and for runs of earlier versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# group -> former name -> the overrides that replace it
_TRIALS = {f"inat_bg_1_{trial}": f"dataset=inat_bg_1 dataset.trial={trial}" for trial in range(10)}
_RECIPES = {
    "cifar": "cifar10 cifar100 cifar10_lt cifar100_lt cifar10_bg cifar100_bg cifar100_retrieval",
    "cifar_background_splitting": "cifar10_bg_background_splitting cifar100_bg_background_splitting",
    "open_set": "cifar10_open cifar_plus_10 cifar_plus_50 svhn_open",
    "cub_open": "cub_open_easy cub_open_hard",
    "digits": "digits digits_bg digits_lt digits_open digits_retrieval",
    "mnist": "mnist mnist_lt mnist_open",
    "imagenet_lt": "imagenet_lt imagenet_lt_open",
    "inat18": "inat18 inat18_lists",
    "inat18_tau_norm": "inat18_tau_norm inat18_lists_tau_norm",
    "inat_bg": f"inat_bg inat_bg_1 {' '.join(_TRIALS)}",
    "places_lt": "places_lt places_lt_open",
    "tiny_imagenet": "tiny_imagenet tiny_imagenet_bg tiny_imagenet_lt tiny_imagenet_retrieval",
}
REMOVED: Mapping[str, Mapping[str, str]] = {
    "dataset": _TRIALS,
    "recipe": {name: f"recipe/shared={new}" for new, names in _RECIPES.items() for name in names.split()},
}
_MISSING = re.compile(r"(?:Could not find|Unable to find|Could not load) '([\w/]+)/(\w+)'")


def advice(group: str, name: Any) -> str | None:
    """Return the replacement of a removed config, as the end of a sentence; None if it was not removed."""
    new = REMOVED.get(group, {}).get(str(name))
    return f"there is no {group} '{name}' any more. Write {new} instead" if new else None


def advice_on(error: Exception) -> str | None:
    """Return the replacement of the config in Hydra's error; None if it was not removed."""
    missing = _MISSING.search(str(error))
    return advice(missing[1], missing[2]) if missing else None


def current_name(group: str, name: str) -> str:
    """Return the present name of a renamed config; other names are unchanged."""
    new = REMOVED.get(group, {}).get(name)
    return new.split()[0].partition("=")[2] if new else name
