"""Retrieval splits: a network trains on some classes and retrieves images of all other classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ltr.configuration.ranges import NonNegativeInt, PositiveInt, ProperFraction, check_option
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.data.splitting.building import build_split, class_counts_of
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.randomness import generator

Classes = Literal["first", "seeded", "by_part"]
Images = Literal["all", "own_part"]
Protocol = Literal["retrieval", "few_shot"]
Validation = Literal["none", "train_fraction"]  # no test_fraction: training and test have no class in common
PARTS = ("train", "val", "test")  # parts of a source that are used; a part of unknown images is not


@named("split/retrieval")
def retrieval(
    source: Source,
    *,
    classes: Classes = "first",
    n_train: PositiveInt | None = None,
    images: Images = "all",
    val: Validation = "none",
    val_fraction: ProperFraction = 0.1,
    protocols: Sequence[Protocol] = ("retrieval",),
    seed: NonNegativeInt = 0,
) -> Split:
    """Split classes into training and test classes, as in metric learning (CUB: 100 and 100, Cars: 98 and 98).

    Training classes have the labels 0..C-1 and test classes C, C+1, ..., both by class number; ``class_names`` and
    ``class_counts`` cover the C training classes only. See `ltr.data.split.Split`.

    Args:
        classes: choice of the training classes. ``first``: the first ``n_train`` by number; ``seeded``: ``n_train``
            sampled by the split's seed; ``by_part``: all classes with images in part ``train``, for data sets whose
            parts have no class in common (Stanford Online Products).
        n_train: number of training classes; None: half of the classes with images, rounded down (all for ``by_part``).
        images: ``all``: images of training classes are for training and all other images for testing, independent of
            the source's parts (the papers' protocol: CUB 5,864 + 5,924 images, Cars 8,054 + 8,131). ``own_part``: only
            images of part ``train`` are for training, and only images of part ``test`` for testing.
        val: validation images. ``none``, or ``train_fraction``: a share of each training class.
        val_fraction: share in (0, 1) that ``train_fraction`` holds out.
        protocols: protocols of the evaluation, the headline first.
        seed: see `ltr.data.splitting.closed_set.natural`.

    Raises:
        ConfigError: a value is outside its range.
        DataError: a part is missing, or a class has too few images.
    """
    check_option("dataset.classes", classes, Classes)
    check_option("dataset.images", images, Images)
    check_option("dataset.val", val, Validation)
    check_option("dataset.protocols", protocols, Sequence[Protocol])
    if not protocols:
        raise ConfigError("dataset.protocols=[]: one protocol at least is needed. Use [retrieval] or [few_shot]")
    everything = [indices for part, indices in source.parts.items() if part in PARTS]
    train_parts = everything if images == "all" else [source.part("train")]
    test_parts = everything if images == "all" else [source.part("test")]
    has_images = np.zeros(source.num_classes, dtype=bool)
    for part in (*train_parts, *test_parts):
        has_images[source.labels[part.start : part.stop]] = True
    candidates = np.flatnonzero(has_images)
    order, n_train = _order(source, candidates, classes, n_train, seed)
    ordered = np.concatenate([np.sort(order[:n_train]), np.sort(order[n_train:])])
    label_map = np.full(source.num_classes, -1, dtype=np.int64)
    label_map[ordered] = np.arange(len(ordered))

    name = f"{source.name}-retrieval{n_train}-{classes}" + (str(seed) if classes == "seeded" else "")
    return build_split(
        source,
        name + ("-own_part" if images == "own_part" else ""),
        _of_labels(source, train_parts, label_map, 0, n_train),
        label_map,
        class_names=[source.class_names[number] for number in ordered[:n_train]],
        test=_of_labels(source, test_parts, label_map, n_train, len(ordered)),
        protocols=tuple(protocols),
        val=val,
        val_fraction=val_fraction,
        seed=seed,
    )


def _order(
    source: Source, candidates: np.ndarray, classes: str, n_train: int | None, seed: int
) -> tuple[np.ndarray, int]:
    """Return the classes, training classes first, and the number of training classes."""
    order = candidates
    if classes == "seeded":
        order = generator(seed, "retrieval").permutation(candidates)
    elif classes == "by_part":
        if n_train is not None:
            raise ConfigError(f"dataset.n_train={n_train}: classes=by_part leaves nothing to choose. Use n_train=null")
        is_trained = class_counts_of(source, "train")[candidates] > 0
        order = np.concatenate([candidates[is_trained], candidates[~is_trained]])
        n_train = int(is_trained.sum())
    n_train = len(candidates) // 2 if n_train is None else n_train
    if not 1 <= n_train < len(candidates):
        raise ConfigError(
            f"dataset.n_train={n_train}: {source.name} has {len(candidates)} classes with images, and one at least "
            f"must be left to test on. Use 1 to {len(candidates) - 1}, or null for half of them"
        )
    return order, n_train


def _of_labels(source: Source, parts: Sequence[range], label_map: np.ndarray, low: int, high: int) -> np.ndarray:
    """Return the indices in ``parts`` (in the source's order) with a label in [low, high)."""
    indices = np.concatenate([np.arange(part.start, part.stop, dtype=np.int64) for part in parts])
    labels = label_map[source.labels[indices]]
    return indices[(labels >= low) & (labels < high)]
