"""Shared parts of the split rules: images by label, held-out validation images, and the checked Split."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from ltr.configuration.ranges import ProperFraction, check_option
from ltr.data.sampling.class_index import stable_order
from ltr.data.source import Source
from ltr.data.split import Split, check_indices, count_labels
from ltr.data.splitting.groups import FILE, crop_groups, hold_out_groups, separate_unknown
from ltr.errors import ConfigError, DataError
from ltr.names import list_first
from ltr.randomness import generator

Validation = Literal["none", "train_fraction", "official", "test_fraction"]


def labelled_indices(source: Source, label_map: np.ndarray, part: str) -> np.ndarray:
    """Return the indices of ``part`` whose class has a label, in the source's order."""
    indices = np.arange(source.part(part).start, source.part(part).stop, dtype=np.int64)
    return indices[label_map[source.labels[indices]] >= 0]


def group_by_label(source: Source, indices: np.ndarray, label_map: np.ndarray) -> list[np.ndarray]:
    """Group ``indices``, all of which must have a label, by label; their order is kept."""
    labels = label_map[source.labels[indices]]
    num_labels = int(label_map.max(initial=-1)) + 1
    stops = np.cumsum(np.bincount(labels, minlength=num_labels))
    return np.split(indices[stable_order(labels)], stops[:-1])


def class_counts_of(source: Source, part: str) -> np.ndarray:
    """Return the number of images of each source class in ``part``, int64 [source classes]."""
    indices = source.part(part)
    return np.bincount(source.labels[indices.start : indices.stop], minlength=source.num_classes)


def label_map_of(source: Source, classes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the label map that gives ``classes`` the labels 0, 1, ... in order, and -1 to all other classes."""
    label_map = np.full(source.num_classes, -1, dtype=np.int64)
    label_map[np.asarray(classes, dtype=np.int64)] = np.arange(len(classes))
    return label_map


def label_names(source: Source, label_map: np.ndarray, labels: Sequence[int] | np.ndarray) -> list[str]:
    """Return the name of the (first) source class of each label."""
    return [source.class_names[int(np.flatnonzero(label_map == label)[0])] for label in labels]


def hold_out_validation(
    source: Source,
    train: np.ndarray,
    label_map: np.ndarray,
    *,
    val: Validation,
    val_fraction: ProperFraction,
    seed: int,
    test: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hold out validation images by rule ``val`` and return indices (train, val, test).

    ``none``: no validation images. ``official``: the source's part ``val``. ``train_fraction``: a seeded share of each
    class of ``train``, or whole groups if the source has a ``group``. ``test_fraction``: the first share of each class
    of the test images in order, or whole groups; the rest is the test set (M2m's rule, at 0.1). In a source without
    groups, the crops of a file are a group. Shares are rounded down, but are at least one image per class. A class with
    one image has no validation image; a warning names it.

    Args:
        source: source of the images.
        train: int64 source indices of the training images, all labelled.
        label_map: int64 [source classes].
        val: the rule.
        val_fraction: share in (0, 1) for the two fractions.
        seed: seed of ``train_fraction``.
        test: test images, all labelled; None: those of part ``test``.

    Raises:
        ConfigError: the rule is unknown, the share is outside (0, 1), or the source has no part for ``official``.
        DataError: a share is needed and no class has two images.
    """
    check_option("dataset.val", val, Validation)
    check_option("dataset.val_fraction", val_fraction, ProperFraction)
    if test is None:
        test = labelled_indices(source, label_map, "test")
    if val == "none":
        return train, np.empty(0, dtype=np.int64), test
    if val == "official":
        if "val" not in source.parts:
            raise ConfigError(
                f"dataset.val=official: {source.name} has no validation part (it has {', '.join(source.parts)}). Use "
                "none, train_fraction or test_fraction"
            )
        return train, labelled_indices(source, label_map, "val"), test
    if val == "train_fraction":
        held, train = _hold_out(source, train, label_map, val_fraction, rule=val, seed=seed)
    else:
        held, test = _hold_out(source, test, label_map, val_fraction, rule=val, seed=None)
    return train, held, test


def build_split(
    source: Source,
    name: str,
    train: np.ndarray,
    label_map: np.ndarray,
    *,
    val: Validation,
    val_fraction: ProperFraction,
    seed: int,
    class_names: Sequence[str] | None = None,
    test: np.ndarray | None = None,
    unknown: np.ndarray | None = None,
    protocols: tuple[str, ...] = ("closed_set",),
) -> Split:
    """Build and check the Split of some training images, after `hold_out_validation` holds out validation images.

    Args:
        source: source of the images.
        name: name of the split, without the validation rule.
        train, label_map, val, val_fraction, seed: see `hold_out_validation`.
        class_names: names of the labels; None: the names of the source's classes, which must map to one label each.
        test: test images; None: the labelled images of part ``test``.
        unknown: images of unknown classes; None: no images.
        protocols: evaluation protocols, the headline first.

    Raises:
        ConfigError, DataError: see `hold_out_validation` and `check_indices`.
    """
    train, val_indices, test = hold_out_validation(
        source, train, label_map, val=val, val_fraction=val_fraction, seed=seed, test=test
    )
    if val != "none":
        name += f"-val_{val}" + ("" if val == "official" else f"{val_fraction:g}")
    if class_names is None:
        classes = np.flatnonzero(label_map >= 0)
        class_names = [source.class_names[number] for number in classes[np.argsort(label_map[classes])]]
    if unknown is None:
        unknown = np.empty(0, dtype=np.int64)
    indices = {"train": train, "val": val_indices, "test": test, "unknown": unknown}
    check_indices(f"split '{name}'", source, indices, label_map, len(class_names))
    return Split(
        name=name,
        train=train,
        val=val_indices,
        test=test,
        unknown=unknown,
        label_map=label_map,
        class_names=tuple(class_names),
        class_counts=count_labels(source, train, label_map, len(class_names)),
        protocols=protocols,
        seed=seed,
        val_rule=val,
    )


def _hold_out(
    source: Source, indices: np.ndarray, label_map: np.ndarray, fraction: float, *, rule: str, seed: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (held out, rest), both sorted: a share of each class, sampled by ``seed``, or its first images if None."""
    if source.group is not None:
        return _hold_out_groups(source, indices, label_map, fraction, rule, seed)
    if (shared := crop_groups(source.images)) is not None:
        source = replace(source, groupings={**source.groupings, FILE: shared}, group=FILE)
        return _hold_out_groups(source, indices, label_map, fraction, rule, seed)
    groups = group_by_label(source, indices, label_map)
    part = "training" if rule == "train_fraction" else "test"
    if indices.size and max(map(len, groups)) < 2:
        raise DataError(
            f"dataset.val={rule}: no class of {source.name} has two {part} images, so none can be held out for "
            "validation. Use dataset.val=none"
        )
    single = [label for label, members in enumerate(groups) if len(members) == 1]
    if single:
        names = list_first(label_names(source, label_map, single))
        classes = sum(len(members) > 0 for members in groups)
        warnings.warn(
            f"dataset.val={rule}: {len(single):,} of {classes:,} classes have one {part} image, which is not held "
            f"out, so they have no validation image: {names}",
            stacklevel=2,
        )
    held = np.zeros(len(source), dtype=bool)
    for label, members in enumerate(groups):
        if len(members) < 2:
            continue
        if seed is not None:
            members = generator(seed, "validation", label).permutation(members)
        # the small term rounds products such as 0.07 * 100 = 6.9999999999999991 to 7
        share = int(fraction * len(members) + 1e-9)
        held[members[: min(max(share, 1), len(members) - 1)]] = True
    is_held = held[indices]
    return np.sort(indices[is_held]), np.sort(indices[~is_held])


def _hold_out_groups(
    source: Source, indices: np.ndarray, label_map: np.ndarray, fraction: float, rule: str, seed: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (held out, rest), both sorted: whole groups of the source's ``group``, stratified by label."""
    assert source.group is not None
    part = "training" if rule == "train_fraction" else "test"
    grouping = source.groupings[source.group]
    codes, names = separate_unknown(grouping.codes[indices], grouping.values)
    is_held = hold_out_groups(
        label_map[source.labels[indices]],
        codes,
        names,
        int(label_map.max(initial=-1)) + 1,
        fraction=fraction,
        seed=seed or 0,
        role="validation",
    )
    if indices.size and not is_held.any():
        raise DataError(
            f"dataset.val={rule}: every {source.group} has the only {part} images of some class of "
            f"{source.name}, so none can be held out for validation. Use dataset.val=none, or another dataset.group"
        )
    return np.sort(indices[is_held]), np.sort(indices[~is_held])
