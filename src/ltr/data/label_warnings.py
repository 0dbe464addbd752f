"""Warnings about suspicious labels before a training."""

from __future__ import annotations

import warnings

import numpy as np

from ltr.data.source import Source
from ltr.data.split import Split
from ltr.names import equal_numbers, look_alikes, missing_values

_SHOWN = 10


def warn_of_names(source: Source) -> None:
    """Warn of class names that are easily confused, and of names that programs write for a missing value."""
    for groups, what in (
        (look_alikes(source.class_names), "differ only in case, width, white space or invisible characters"),
        (equal_numbers(source.class_names), "write the same number in different ways"),
    ):
        if groups:
            shown = "; ".join(" and ".join(map(ascii, group)) for group in groups[:_SHOWN])
            warnings.warn(
                f"{source.name}: classes whose names {what} are different classes: {shown}"
                f"{'; ...' if len(groups) > _SHOWN else ''}. Give them one name if they are one",
                stacklevel=2,
            )
    missing = missing_values(source.class_names)
    if missing:
        shown = ", ".join(
            f"{name!a} ({int(np.count_nonzero(source.labels == source.class_names.index(name))):,} images)"
            for name in missing[:_SHOWN]
        )
        warnings.warn(
            f"{source.name}: class names that programs write for a missing label: {shown}. Give these "
            "images their labels, or exclude them",
            stacklevel=2,
        )


def warn_of_one_class(split: Split) -> None:
    """Warn if all training images are of one class."""
    trained = np.flatnonzero(split.class_counts)
    if len(trained) == 1:
        name = split.class_names[int(trained[0])]
        warnings.warn(
            f"{split.name}: all {int(split.class_counts.sum()):,} training images are of one class, {name!a}: "
            "a network has nothing to distinguish, and every accuracy is 100 %. Is a folder or a label missing?",
            stacklevel=2,
        )
