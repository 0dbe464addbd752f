"""Published class lists of papers, stored as data files and interpreted by the split rules.

Lists keep their published order, which is the order of the labels.

- ``open_set_trials.json``: five trials each of MNIST, SVHN, CIFAR-10, CIFAR+10, CIFAR+50 and TinyImageNet, as in the
  code of ARPL (Chen et al., TPAMI 2021) and of Vaze et al. (ICLR 2022). Two repetitions of the published lists are kept
  for comparability: trials 0 and 1 have the same set of known classes for SVHN and for CIFAR-10, and trials 1 and 2 for
  CIFAR+N (whose unknown classes differ in one of 10 and four of 50). TinyImageNet's class numbers follow the sorted
  WordNet ids.
- ``cub_semantic_shift.json``: CUB in the Semantic Shift Benchmark (Vaze et al., ICLR 2022), classes counted from 0.
- ``inat17_background.json``: category ids of iNaturalist 2017 that are foreground in Background Splitting (Mullapudi
  et al., CVPR 2021): one list of 100 and ten lists of one, each a member of the 100.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from ltr.errors import ConfigError

Trial = Literal["mnist", "svhn", "cifar10", "cifar_plus_10", "cifar_plus_50", "tiny_imagenet"]
SemanticShift = Literal["cub_easy", "cub_medium", "cub_hard", "cub_hard_merged"]
BackgroundList = Literal["inat17_100", "inat17_1"]

CUB_UNKNOWN: dict[str, tuple[str, ...]] = {
    "cub_easy": ("easy",),
    "cub_medium": ("medium",),
    "cub_hard": ("hard",),
    "cub_hard_merged": ("medium", "hard"),  # reported as "hard" by the benchmark: 34 + 34 classes
}
OPEN_SET_TRIALS: tuple[str, ...] = get_args(Trial)
OPEN_SET_LISTS: tuple[str, ...] = (*OPEN_SET_TRIALS, *get_args(SemanticShift))
BACKGROUND_LISTS: tuple[str, ...] = get_args(BackgroundList)


@dataclass(frozen=True)
class OpenSetList:
    """Published trial.

    Attributes:
        num_classes: number of classes of the data set; of both data sets together for CIFAR+N.
        known: class numbers in the order of their labels.
        unknown: class numbers, or None if all other classes are unknown.
        known_from, unknown_from: data sets of the class numbers if there are two, else empty.
    """

    num_classes: int
    known: tuple[int, ...]
    unknown: tuple[int, ...] | None = None
    known_from: str = ""
    unknown_from: str = ""


def open_set_list(name: str, trial: int) -> OpenSetList:
    """Return the published list ``name`` (one of ``OPEN_SET_LISTS``).

    Raises:
        ConfigError: the list has no such trial.
    """
    if name in CUB_UNKNOWN:
        _pick(name, [None], trial)
        cub = _read("cub_semantic_shift.json")
        merged = tuple(number for group in CUB_UNKNOWN[name] for number in cub[group])
        return OpenSetList(cub["classes"], tuple(cub["known"]), merged)
    entry = _read("open_set_trials.json")[name]
    return OpenSetList(
        entry["classes"],
        tuple(_pick(name, entry["known"], trial)),
        tuple(_pick(name, entry["unknown"], trial)) if "unknown" in entry else None,
        entry.get("known_from", ""),
        entry.get("unknown_from", ""),
    )


def background_list(name: str, trial: int) -> list[int]:
    """Return the foreground category ids of list ``name`` (one of ``BACKGROUND_LISTS``).

    Raises:
        ConfigError: the list has no such trial.
    """
    return list(_pick(name, _read("inat17_background.json")[name], trial))


def background_list_classes() -> int:
    """Return the number of classes of the background lists' data set."""
    return _read("inat17_background.json")["classes"]


def _pick(name: str, lists: list, trial: int) -> Any:
    if not 0 <= trial < len(lists):
        available = "one list, so trial must be 0" if len(lists) == 1 else f"the trials 0 to {len(lists) - 1}"
        raise ConfigError(f"dataset.trial={trial}: '{name}' has {available}")
    return lists[trial]


@cache
def _read(file: str) -> dict[str, Any]:
    return json.loads((resources.files(__name__) / file).read_text(encoding="utf-8"))
