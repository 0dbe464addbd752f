"""Warnings about suspicious labels before a training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from ltr.data.source import Grouping, Source
from ltr.data.split import Split
from ltr.data.splitting.groups import FILE
from ltr.names import equal_numbers, look_alikes, missing_values

_SHOWN = 10


def warn_of_names(source: Source) -> None:
    """Warn of class names that are easily confused, and of names that programs write for a missing value."""
    _warn_of_similar(
        source.name, source.class_names, "classes whose names {} are different classes", "Give them one name", 3
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


def warn_of_groups(name: str, key: str | None, grouping: Grouping | None) -> None:
    """Warn of groups whose names are easily confused: if they are one group, it is in training and in test.

    Args:
        name: name of the data set.
        key: name of the grouping that is kept together, such as ``location``; None: there is none.
        grouping: the groups of the images that are used.
    """
    if grouping is None or key in (None, FILE):  # paths that differ in case are different files
        return
    counts = np.bincount(grouping.codes[grouping.codes >= 0], minlength=len(grouping.values))
    used = [grouping.values[code] for code in np.flatnonzero(counts).tolist()]
    _warn_of_similar(name, used, f"groups by {key} whose names {{}} are different groups", "Write them alike", 4)


def _warn_of_similar(name: str, names: Sequence[str], text: str, advice: str, stacklevel: int) -> None:
    """Warn of names that differ only in what a reader does not see, and of different spellings of one number.

    Args:
        name: name of the data set.
        text: what the names are, with ``{}`` for how they differ.
        advice: what to do about names that mean one thing.
    """
    for groups, what in (
        (look_alikes(names), "differ only in case, width, white space or invisible characters"),
        (equal_numbers(names), "write the same number in different ways"),
    ):
        if groups:
            shown = "; ".join(" and ".join(map(ascii, group)) for group in groups[:_SHOWN])
            more = "; ..." if len(groups) > _SHOWN else ""
            warnings.warn(
                f"{name}: {text.replace('{}', what)}: {shown}{more}. {advice} if they are one", stacklevel=stacklevel
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
