"""Division of images into two parts with disjoint groups, stratified by class as far as the groups allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltr.data.source import Grouping, ImageFiles
from ltr.names import normal_path
from ltr.randomness import derive_seed

FILE = "path"  # key of the grouping by file


def file_groups(files: ImageFiles) -> Grouping | None:
    """Return the grouping by file; None if every file has one row."""
    number_of: dict[str, int] = {}
    codes = np.fromiter(
        (number_of.setdefault(normal_path(files.relative(row)), len(number_of)) for row in range(len(files))),
        dtype=np.int32,
        count=len(files),
    )
    return Grouping(codes, tuple(number_of)) if len(number_of) < len(files) else None


def crop_groups(images: object) -> Grouping | None:
    """Return the grouping of crops by their file; None for whole images, or if no two crops share a file."""
    return file_groups(images) if isinstance(images, ImageFiles) and images.crops is not None else None


def hold_out_groups(
    labels: np.ndarray,
    groups: np.ndarray,
    group_names: Sequence[str],
    num_classes: int,
    *,
    fraction: float,
    seed: int,
    role: str = "test part",
) -> np.ndarray:
    """Return a mask bool [N] of the images whose groups are held out.

    Every class keeps an image in the rest, and has one in the held-out part if its groups allow both. A greedy pass, as
    in iterative stratification (Sechidis et al., ECML PKDD 2011), visits the classes from the rarest to the most
    frequent, and the groups of a class from the largest to the smallest. It assigns a group to the part that leaves
    both parts filled more evenly, measured by the squared difference of their shares of the requested images, summed
    over the group's classes. For classes without a held-out image, a second pass holds out their smallest group that no
    class needs in the rest.

    Args:
        labels: int64 [N] in [0, num_classes).
        groups: int [N], index into ``group_names``.
        group_names: names of the groups, which determine the order among groups of similar size.
        num_classes: number of classes.
        fraction: requested share of each class, in (0, 1).
        seed: seed of the order among groups of similar size.
        role: purpose of the division; divisions with one seed and different roles differ.
    """
    table = _GroupTable(labels, groups, len(group_names), num_classes)
    totals = np.bincount(labels, minlength=num_classes).astype(np.float64)
    wanted = fraction * totals
    held, kept = np.zeros(num_classes), np.zeros(num_classes)
    is_held = np.zeros(len(group_names), dtype=bool)
    is_visited = np.zeros(len(group_names), dtype=bool)
    weights = np.array([_weight(seed, role, name) for name in group_names])

    def may_leave(classes: np.ndarray, counts: np.ndarray) -> bool:
        return bool((totals[classes] - held[classes] - counts > 0).all())

    for label in np.lexsort((np.arange(num_classes), totals)).tolist():
        members, counts_here = table.groups_of(label)
        order = np.argsort(-counts_here * weights[members], kind="stable")
        for group in members[order].tolist():
            if is_visited[group]:
                continue
            is_visited[group] = True
            classes, counts = table.classes_of(group)
            need, rest = wanted[classes], totals[classes] - wanted[classes]
            if_held = (held[classes] + counts) / need - kept[classes] / rest
            if_kept = held[classes] / need - (kept[classes] + counts) / rest
            if (if_held**2).sum() < (if_kept**2).sum() and may_leave(classes, counts):
                is_held[group] = True
                held[classes] += counts
            else:
                kept[classes] += counts
    for label in np.flatnonzero((held == 0) & (totals > 0)).tolist():
        members, counts_here = table.groups_of(label)
        for group in members[np.argsort(counts_here * weights[members], kind="stable")].tolist():
            classes, counts = table.classes_of(group)
            if may_leave(classes, counts):
                is_held[group] = True
                held[classes] += counts
                break
    return is_held[groups]


class _GroupTable:
    """Sparse counts of images, indexed by group and by class."""

    def __init__(self, labels: np.ndarray, groups: np.ndarray, num_groups: int, num_classes: int) -> None:
        pairs, counts = np.unique(groups.astype(np.int64) * num_classes + labels, return_counts=True)
        self._classes, self._counts = pairs % num_classes, counts.astype(np.float64)
        groups_of_pairs = pairs // num_classes
        self._starts = np.searchsorted(groups_of_pairs, np.arange(num_groups + 1))
        by_class = np.argsort(self._classes, kind="stable")
        self._groups_by_class = groups_of_pairs[by_class]
        self._counts_by_class = self._counts[by_class]
        self._class_starts = np.searchsorted(self._classes[by_class], np.arange(num_classes + 1))

    def classes_of(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the classes of a group and their numbers of images."""
        part = slice(self._starts[group], self._starts[group + 1])
        return self._classes[part], self._counts[part]

    def groups_of(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the groups of a class and their numbers of images of it."""
        part = slice(self._class_starts[label], self._class_starts[label + 1])
        return self._groups_by_class[part], self._counts_by_class[part]


def _weight(seed: int, role: str, name: str) -> float:
    """Return a number in [0.5, 1.5) from the seed and the group's name."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return 0.5 + (derive_seed(seed, role, text) % 2**20) / 2**20


def share_of_shared_groups(groups: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    """Return the share of ``test`` images whose group has an image in ``train``; NaN without test images.

    Args:
        groups: int [N]; -1 is an unknown group, which shares no image.
        train, test: int64 indices.
    """
    if not len(test):
        return float("nan")
    known = groups[train]
    return float((np.isin(groups[test], known[known >= 0])).mean())


def separate_unknown(codes: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Make each image of an unknown group (-1) a separate group; return the codes and names of all groups.

    Args:
        codes: int64 [N], the group of each image, -1 if it is unknown.
        names: names of the known groups, by code.
    """
    is_unknown = codes < 0
    number = int(is_unknown.sum())
    singles = len(names) + np.cumsum(is_unknown) - 1
    return np.where(is_unknown, singles, codes), (*names, *(f"unknown {group}" for group in range(number)))
