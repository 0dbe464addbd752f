"""Description of the groups of a split, with the leakage of a random split for comparison."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ltr.data.source import Source
from ltr.data.split import SPLIT_PARTS, Split
from ltr.data.splitting.groups import share_of_shared_groups
from ltr.randomness import generator

_SHOWN = 30  # largest number of classes in the table


def describe_groups(source: Source, split: Split) -> Iterator[str]:
    """Yield lines about the groups of a split; none if the source has no groups.

    For each grouping: its number of groups, and the share of test images whose group is in training, in this split and
    in a random split with the same numbers of images. Then the images of each class by part, the rarest class first.
    """
    yield from source.remarks
    if not source.groupings:
        return
    held, train = split.test, np.concatenate([split.train, split.val])
    random_train, random_test = random_division(source, split)
    for name, grouping in source.groupings.items():
        known = int(np.count_nonzero(np.bincount(grouping.codes[grouping.codes >= 0])))
        shared = share_of_shared_groups(grouping.codes, train, held)
        leaked = share_of_shared_groups(grouping.codes, random_train, random_test)
        yield (
            f"{name}: {known:,} groups; {shared:.1%} of the test images share theirs with training images (a random "
            f"split: {leaked:.1%})"
        )
    yield from _class_lines(source, split)


def random_division(source: Source, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return (train, test) of a random split of the same images with the same number of test images of each label."""
    everything = np.concatenate([split.train, split.val, split.test])
    labels = split.label_map[source.labels[everything]]
    wanted = np.bincount(split.label_map[source.labels[split.test]], minlength=int(labels.max(initial=0)) + 1)
    is_test = np.zeros(len(everything), dtype=bool)
    for label, number in enumerate(wanted.tolist()):
        members = generator(split.seed, "random division", label).permutation(np.flatnonzero(labels == label))
        is_test[members[:number]] = True
    return everything[~is_test], everything[is_test]


def _class_lines(source: Source, split: Split) -> Iterator[str]:
    """Yield a table of the images of each class by part."""
    parts = [part for part in SPLIT_PARTS if part != "unknown" and len(getattr(split, part))]
    size = int(split.label_map.max(initial=-1)) + 1
    counts = {part: np.bincount(split.label_map[source.labels[getattr(split, part)]], minlength=size) for part in parts}
    order = np.argsort(counts["train"][: split.num_classes], kind="stable")
    yield f"images of a class by part ({', '.join(parts)}), the rarest first:"
    for label in order[:_SHOWN].tolist():
        yield f"  {split.class_names[label]}: {', '.join(f'{int(counts[part][label]):,}' for part in parts)}"
    if len(order) > _SHOWN:
        yield f"  ... ({len(order):,} classes in all)"
