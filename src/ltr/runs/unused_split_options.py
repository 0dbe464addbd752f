"""Options of a split without effect on it: reported by a training, because a shared recipe or a sweep may set them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from ltr.data.source import Source
from ltr.data.split import Split
from ltr.data.splitting.exclusion import read_split

_LISTED = "dataset.split_file lists the images of each part"
_USES_FRACTION = ("train_fraction", "test_fraction")


def warn_of_unused_split_options(dataset: Mapping[str, Any], source: Source, split: Split) -> None:
    """Warn of a seed and of a share of validation images that do not change the split.

    Whether a seed has an effect depends on the rule and its options. The split is built with another seed to find out,
    which is done only if the seed is not the default.

    Args:
        dataset: the dataset config.
        split: its split.
    """
    options = dataset["split"]
    from_file = dataset.get("split_file") is not None
    seed = options.get("seed", 0)
    # a folder or table without test images is divided by the seed, which its name then ends in
    divides_source = re.search(rf"-seed{seed}\b", source.name) is not None
    if seed and not divides_source and (from_file or _is_same({**options, "seed": seed + 1}, dataset, source, split)):
        is_tail = "subset" in options and not from_file
        hint = "dataset.subset=seeded draws the training images by it" if is_tail else "Leave it out"
        reason = _LISTED if from_file else f"the split '{split.name}' has nothing random"
        _warn("split_seed", seed, f"{reason}. {hint}")
    fraction = options.get("val_fraction", 0.1)
    if fraction != 0.1 and (from_file or options.get("val") not in _USES_FRACTION):
        reason = _LISTED if from_file else f"dataset.val={options.get('val')} takes no share of the images"
        hint = "Leave it out" if from_file else "Set dataset.val=train_fraction"
        _warn("val_fraction", fraction, f"{reason}. {hint}")


def _is_same(other: Mapping[str, Any], dataset: Mapping[str, Any], source: Source, split: Split) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the split have been shown
        return read_split({**dataset, "split": other}, source).digest() == split.digest()


def _warn(key: str, value: Any, why: str) -> None:
    warnings.warn(f"dataset.{key}={value} has no effect: {why}", stacklevel=3)
