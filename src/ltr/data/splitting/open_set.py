"""Open-set splits: a network trains on known classes and must detect test images of unknown classes."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np

from ltr.configuration.ranges import AtLeastOne, NonNegativeInt, PositiveInt, ProperFraction, check_option
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.data.splitting.building import Validation, build_split, class_counts_of, label_map_of, labelled_indices
from ltr.data.splitting.closed_set import Profile, Subset, cut_tail
from ltr.data.splitting.published import OPEN_SET_LISTS, OPEN_SET_TRIALS, SemanticShift, Trial, open_set_list
from ltr.errors import ConfigError, DataError
from ltr.identity import named
from ltr.names import list_first
from ltr.randomness import generator

Classes = Literal["seeded", "all", "ids"] | Trial | SemanticShift
TrialNumber = Annotated[int, "[0, 4]"]
OPENNESS = ("scheirer", "ratio")


@named("split/open_set")
def open_set(
    source: Source,
    *,
    classes: Classes = "seeded",
    trial: TrialNumber = 0,
    n_known: PositiveInt | None = None,
    n_unknown: PositiveInt | None = None,
    known: list[int] | None = None,
    unknown: list[int] | None = None,
    unknown_part: str = "test",
    imbalance_factor: AtLeastOne | None = None,
    profile: Profile = "exponential",
    subset: Subset = "cao",
    n_max: PositiveInt | None = None,
    val: Validation = "none",
    val_fraction: ProperFraction = 0.1,
    seed: NonNegativeInt = 0,
) -> Split:
    """Split known classes for training and testing from test images of unknown classes.

    Known classes have the labels 0..C-1 in the order of their list (by class number if they are sampled); all other
    classes have label -1. Training, validation and test images are of known classes; ``unknown`` holds the images of
    unknown classes in ``unknown_part``.

    Args:
        classes: choice of the known classes.
            ``mnist``, ``svhn``, ``cifar10``, ``tiny_imagenet``: the published trials; all other classes are unknown.
            ``cifar_plus_10``, ``cifar_plus_50``: four classes of CIFAR-10 against 10 or 50 of CIFAR-100; they need
            `ltr.data.sources.combined.cifar10_and_cifar100`. ``cub_easy``, ``cub_medium``, ``cub_hard``,
            ``cub_hard_merged`` (medium and hard together, reported as hard by the benchmark): CUB's 100 known classes
            against 32, 34, 34 or 68 of the Semantic Shift Benchmark.
            ``seeded``: ``n_known`` classes sampled by the split's seed. ``ids``: the class numbers of ``known``.
            ``all``: every class with training images, for sources with a part of unknown images (ImageNet-LT).
        trial: number of a published trial, 0 to 4, as in the papers' code.
        n_known: for ``classes=seeded``: number of known classes; None: half of the classes, rounded up.
        n_unknown: for ``classes=seeded``: number of unknown classes, sampled from the remaining ones; None: all.
        known: for ``classes=ids``: numbers of the known classes, in the order of their labels.
        unknown: for ``classes=ids``: numbers of the unknown classes; None: all remaining classes.
        unknown_part: the source's part with the unknown images.
        imbalance_factor: largest over smallest class count of a long tail that is cut from the training images of known
            classes (open long-tailed recognition); label 0 is the largest class. None keeps all images.
        profile, subset, n_max: see `ltr.data.splitting.closed_set.long_tail`.
        val, val_fraction, seed: see `ltr.data.splitting.closed_set.natural`.

    Raises:
        ConfigError: a value is outside its range, keys contradict each other, or a list is for another data set.
        DataError: a part is missing, or classes have no images.
    """
    check_option("dataset.classes", classes, Classes)
    _check_keys(classes, trial, n_known, n_unknown, known, unknown)
    if classes == "seeded":
        known_classes, unknown_classes = _sample_classes(source, n_known, n_unknown, seed)
        name = f"seeded{seed}"
    elif classes == "all":
        known_classes, unknown_classes = _all_against_part(source, unknown_part)
        name = "all"
    elif classes == "ids":
        known_classes, unknown_classes = _classes_of_ids(source, known, unknown)
        name = "ids"
    else:
        known_classes, unknown_classes = _published(source, classes, trial)
        name = classes + (f"-trial{trial}" if classes in OPEN_SET_TRIALS else "")

    label_map = label_map_of(source, known_classes)
    num_unknown = len(unknown_classes)
    name = f"{source.name}-open{len(known_classes)}+{num_unknown}-{name}"
    if imbalance_factor is None:
        train = labelled_indices(source, label_map, "train")
    else:
        train, tail = cut_tail(
            source, label_map, imbalance_factor=imbalance_factor, profile=profile, subset=subset, n_max=n_max, seed=seed
        )
        name += f"-{tail}"
    return build_split(
        source,
        name,
        train,
        label_map,
        unknown=_images_of(source, unknown_classes, unknown_part),
        val=val,
        val_fraction=val_fraction,
        seed=seed,
        # open long-tailed recognition is evaluated as a long-tailed classifier first
        protocols=("open_set",) if imbalance_factor is None and classes != "all" else ("closed_set", "open_set"),
    )


def openness(num_known: int, num_unknown: int, form: str = "scheirer") -> float:
    """Return the openness of a test in [0, 1); 0 without unknown classes.

    ``scheirer``: 1 - sqrt(2 K / (2 K + Q)) for K known and Q unknown classes (Scheirer et al., TPAMI 2013, with the
    known classes as targets). ``ratio``: 1 - sqrt(K / (K + Q)), an older form that some papers report.

    Raises:
        ConfigError: the form is unknown, or there is no known class.
    """
    if form not in OPENNESS:
        raise ConfigError(f"openness has the forms {' and '.join(OPENNESS)}, not '{form}'")
    if num_known < 1 or num_unknown < 0:
        raise ConfigError(
            f"openness of {num_known} known and {num_unknown} unknown classes: at least one must be known"
        )
    weight = 2 if form == "scheirer" else 1
    return 1 - math.sqrt(weight * num_known / (weight * num_known + num_unknown))


def _check_keys(
    classes: str,
    trial: int,
    n_known: int | None,
    n_unknown: int | None,
    known: list[int] | None,
    unknown: list[int] | None,
) -> None:
    for key, value, rule in (
        ("n_known", n_known, "seeded"),
        ("n_unknown", n_unknown, "seeded"),
        ("known", known, "ids"),
        ("unknown", unknown, "ids"),
    ):
        if value is not None and classes != rule:
            raise ConfigError(
                f"dataset.{key}={value} and dataset.classes={classes} were both given, but {key} is an "
                f"option of dataset.classes={rule}. Change one of the two, or leave {key}=null"
            )
    if classes == "ids" and not known:
        raise ConfigError(
            "dataset.classes=ids: dataset.known is missing. Set dataset.known=[NUMBER,...], the known classes"
        )
    if trial and classes not in OPEN_SET_LISTS:
        raise ConfigError(
            f"dataset.trial={trial} is for the published lists only ({', '.join(OPEN_SET_TRIALS)}). "
            "Leave it out, or set dataset.classes to one of them"
        )


def _sample_classes(
    source: Source, n_known: int | None, n_unknown: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    candidates = np.flatnonzero(class_counts_of(source, "train"))
    n_known = -(-len(candidates) // 2) if n_known is None else n_known
    if not 1 <= n_known < len(candidates):
        raise ConfigError(
            f"dataset.n_known={n_known}: {source.name} has {len(candidates)} classes with training images, and one at "
            f"least must be unknown. Use 1 to {len(candidates) - 1}, or null for half of them"
        )
    order = generator(seed, "known classes").permutation(candidates)
    rest = order[n_known:]
    if n_unknown is not None and not 1 <= n_unknown <= len(rest):
        raise ConfigError(
            f"dataset.n_unknown={n_unknown}: {n_known} of {len(candidates)} classes are known, so 1 to {len(rest)} can "
            "be unknown. Use null for all of them"
        )
    return np.sort(order[:n_known]), np.sort(rest[:n_unknown])


def _all_against_part(source: Source, unknown_part: str) -> tuple[np.ndarray, np.ndarray]:
    known = np.flatnonzero(class_counts_of(source, "train"))
    unknown = np.flatnonzero(class_counts_of(source, unknown_part))
    both = np.intersect1d(known, unknown)
    if both.size:
        names = list_first([source.class_names[number] for number in both])
        raise DataError(
            f"{source.name}: part '{unknown_part}' should hold images of unknown classes only, but {both.size} of its "
            f"classes are trained on: {names}. Remove these images from that part, or these classes "
            "from part 'train'"
        )
    return known, unknown


def _classes_of_ids(
    source: Source, known: list[int] | None, unknown: list[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    for key, numbers in (("known", known), ("unknown", unknown)):
        outside = [number for number in numbers or [] if not 0 <= number < source.num_classes]
        if outside:
            raise ConfigError(
                f"dataset.{key}: {source.name} has the classes 0 to {source.num_classes - 1}, not {outside}"
            )
        if len(set(numbers or [])) != len(numbers or []):
            raise ConfigError(f"dataset.{key} names a class twice. List each class once")
    assert known is not None
    if unknown is None:
        return np.array(known, dtype=np.int64), np.setdiff1d(np.arange(source.num_classes), known)
    if set(known) & set(unknown):
        raise ConfigError(f"classes {sorted(set(known) & set(unknown))} are in dataset.known and in dataset.unknown")
    return np.array(known, dtype=np.int64), np.array(unknown, dtype=np.int64)


def _published(source: Source, name: str, trial: int) -> tuple[np.ndarray, np.ndarray]:
    listed = open_set_list(name, trial)
    if source.num_classes != listed.num_classes:
        raise ConfigError(
            f"dataset.classes={name}: that list is about {listed.num_classes} classes, but {source.name} has "
            f"{source.num_classes}. Use classes=seeded or classes=ids for other data sets"
        )
    known = _numbers_in(source, listed.known_from)[list(listed.known)]
    if listed.unknown is None:
        return known, np.setdiff1d(np.arange(source.num_classes), known)
    return known, _numbers_in(source, listed.unknown_from)[list(listed.unknown)]


def _numbers_in(source: Source, second: str) -> np.ndarray:
    """Return the class numbers of one of the data sets that a source combines; all if ``second`` is empty."""
    if not second:
        return np.arange(source.num_classes)
    numbers = [n for n, name in enumerate(source.class_names) if name.startswith(f"{second}/")]
    if not numbers:
        raise ConfigError(
            f"{source.name} has no classes of {second} (named '{second}/...'): this list needs the source "
            "ltr.data.sources.combined.cifar10_and_cifar100"
        )
    return np.array(numbers)


def _images_of(source: Source, classes: np.ndarray, part: str) -> np.ndarray:
    is_unknown = np.zeros(source.num_classes, dtype=bool)
    is_unknown[classes] = True
    indices = np.arange(source.part(part).start, source.part(part).stop, dtype=np.int64)
    images = indices[is_unknown[source.labels[indices]]]
    if not images.size:
        raise DataError(f"{source.name}: part '{part}' has no image of the {len(classes)} unknown classes")
    return images
