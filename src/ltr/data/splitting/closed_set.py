"""Split rules as pure functions of labels and parameters: natural, long-tailed, or from a file."""

from __future__ import annotations

import bisect
from typing import Literal

import numpy as np

from ltr.configuration.ranges import AtLeastOne, NonNegativeInt, PositiveInt, ProperFraction, check_option
from ltr.data.source import Source
from ltr.data.split import Split, load_split_file
from ltr.data.splitting.building import Validation, build_split, group_by_label, label_names, labelled_indices
from ltr.errors import ConfigError, DataError
from ltr.identity import named
from ltr.names import list_first
from ltr.randomness import generator

Profile = Literal["exponential", "step"]
Subset = Literal["cao", "first_n", "seeded"]


@named("split/natural")
def natural(
    source: Source,
    *,
    val: Validation = "none",
    val_fraction: ProperFraction = 0.1,
    seed: NonNegativeInt = 0,
    num_classes: PositiveInt | None = None,
) -> Split:
    """Keep the data set's training images and class balance.

    Args:
        val: validation images. ``none``; ``train_fraction``: a share of each training class; ``test_fraction``: the
            first images of each test class (M2m's rule, at 0.1), the rest is the test set; ``official``: the validation
            images of the data set, if it has any.
        val_fraction: share in (0, 1) that ``train_fraction`` and ``test_fraction`` hold out.
        seed: seed of all random choices of the split; independent of the run's seed, so that runs of all seeds share a
            split.
        num_classes: number of classes to keep, the first of the source; None keeps all.

    Raises:
        ConfigError: a value is outside its range, or the source does not support an option.
        DataError: a part is missing, or a class has too few images.
    """
    label_map = _first_classes(source, num_classes)
    train = labelled_indices(source, label_map, "train")
    name = f"{source.name}-natural" + ("" if num_classes is None else f"-classes{num_classes}")
    return build_split(source, name, train, label_map, val=val, val_fraction=val_fraction, seed=seed)


@named("split/long_tail")
def long_tail(
    source: Source,
    *,
    imbalance_factor: AtLeastOne,
    profile: Profile = "exponential",
    subset: Subset = "cao",
    n_max: PositiveInt | None = None,
    val: Validation = "none",
    val_fraction: ProperFraction = 0.1,
    seed: NonNegativeInt = 0,
    num_classes: PositiveInt | None = None,
) -> Split:
    """Cut a long-tailed training set from a source's ``train`` part; class 0 is the largest.

    Validation images are held out after the tail is cut.

    Args:
        imbalance_factor: images of the largest class over images of the smallest, so 100 and not 0.01 (the code of
            LDAM and of CB uses its inverse).
        profile: ``exponential``; or ``step``: the first half of the classes is large, the second half small.
        subset: choice of the n_c images of class c.
            ``cao``: exactly the images of LDAM-DRW (Cao et al., NeurIPS 2019): RandomState(0) shuffles each class's
            positions in class order, and the first n_c are kept. ``first_n``: the first n_c in the source's order
            (M2m's code). ``seeded``: n_c sampled by the split's seed.
        n_max: images of the largest class; None: the largest value for which every class has enough images.
        val, val_fraction, seed, num_classes: see `natural`.

    Returns:
        Split with sorted ``train``; the sampler determines the order of training.

    Raises:
        ConfigError: a value is outside its range, leaves a class empty, or needs more images than the source has.
        DataError: a part is missing, or a class has too few images.
    """
    label_map = _first_classes(source, num_classes)
    train, name = cut_tail(
        source, label_map, imbalance_factor=imbalance_factor, profile=profile, subset=subset, n_max=n_max, seed=seed
    )
    name = f"{source.name}-{name}" + ("" if num_classes is None else f"-classes{num_classes}")
    return build_split(source, name, train, label_map, val=val, val_fraction=val_fraction, seed=seed)


def cut_tail(
    source: Source,
    label_map: np.ndarray,
    *,
    imbalance_factor: AtLeastOne,
    profile: Profile,
    subset: Subset,
    n_max: int | None,
    seed: int,
) -> tuple[np.ndarray, str]:
    """Cut a long tail from the labelled images of part ``train``; label 0 is the largest.

    Args:
        label_map: int64 [source classes], the label of each class or -1.
        source, imbalance_factor, profile, subset, n_max, seed: see `long_tail`.

    Returns:
        (sorted indices, short name of the rule, such as ``exp100-cao``).
    """
    check_option("dataset.profile", profile, Profile)
    check_option("dataset.subset", subset, Subset)
    check_option("dataset.imbalance_factor", imbalance_factor, AtLeastOne)
    groups = group_by_label(source, labelled_indices(source, label_map, "train"), label_map)
    counts = _counts_that_fit(source, label_map, [len(group) for group in groups], n_max, imbalance_factor, profile)

    official = np.random.RandomState(0)  # the generator of the published subset
    kept = []
    for label, (members, count) in enumerate(zip(groups, counts)):
        if subset == "cao":
            members = members.copy()
            official.shuffle(members)
        elif subset == "seeded":
            members = generator(seed, "long tail", label).permutation(members)
        kept.append(members[:count])

    name = f"{'exp' if profile == 'exponential' else 'step'}{imbalance_factor:g}-{subset}"
    name += str(seed) if subset == "seeded" else ""
    name += "" if n_max is None else f"-nmax{n_max}"
    return np.sort(np.concatenate(kept)), name


@named("split/from_file")
def from_file(source: Source, *, file: str) -> Split:
    """Load the split of an index file.

    Args:
        file: npz of index arrays, see `ltr.data.split.load_split_file`.
    """
    return load_split_file(file, source)


def profile_counts(num_classes: int, *, n_max: int, imbalance_factor: float, profile: str) -> np.ndarray:
    """Return the images per class, int64 [C], largest first.

    exponential: n_c = int(n_max * (1/IF)^(c/(C-1))), in the floating-point form of Cui et al. (CVPR 2019) and of LDAM's
    code. (The algebraically equal form of M2m's code is one image off in the last class for some IF.)
    step: the first C//2 classes have n_max images, the rest int(n_max/IF) (Buda et al. 2018). For odd C, LDAM's code
    drops a class; here it belongs to the small classes.
    """
    if profile == "step":
        large = max(num_classes // 2, 1)
        return np.array([n_max] * large + [int(n_max / imbalance_factor)] * (num_classes - large), dtype=np.int64)
    inverse = 1 / imbalance_factor
    last = max(num_classes - 1, 1)
    # Python's pow, because numpy's may differ in the last bit, and int() would turn that into a whole image
    return np.array([int(n_max * inverse ** (c / last)) for c in range(num_classes)], dtype=np.int64)


def _counts_that_fit(
    source: Source,
    label_map: np.ndarray,
    available: list[int],
    n_max: int | None,
    imbalance_factor: float,
    profile: str,
) -> np.ndarray:
    def counts(largest: int) -> np.ndarray:
        return profile_counts(len(available), n_max=largest, imbalance_factor=imbalance_factor, profile=profile)

    available_counts = np.array(available)
    if available_counts.min() == 0:
        empty = label_names(source, label_map, np.flatnonzero(available_counts == 0))
        raise DataError(f"{source.name}: classes without any training image cannot be in a tail: {list_first(empty)}")
    # counts grow with n_max, so that bisection finds the first n_max that does not fit
    fits = bisect.bisect_left(
        range(1, available[0] + 1), True, key=lambda n: bool((counts(n) > available_counts).any())
    )
    if n_max is None:
        n_max = fits
    elif n_max < 1 or n_max > fits:
        raise ConfigError(
            f"dataset.n_max={n_max}: {source.name} has images enough for 1 to {fits} in the largest class at "
            f"imbalance_factor={imbalance_factor:g}. Use null for the largest value that fits"
        )
    class_counts = counts(n_max)
    num_empty = int((class_counts < 1).sum())
    if num_empty:
        raise ConfigError(
            f"dataset.imbalance_factor={imbalance_factor:g} leaves {num_empty} of {len(class_counts)} classes of "
            f"{source.name} without a training image: the largest has {n_max}. Use a smaller factor, at most {n_max}"
        )
    return class_counts


def _first_classes(source: Source, num_classes: int | None) -> np.ndarray:
    """Return the label map that keeps the first ``num_classes`` classes with their labels."""
    num_kept = source.num_classes if num_classes is None else num_classes
    if not 1 <= num_kept <= source.num_classes:
        raise ConfigError(
            f"dataset.num_classes={num_classes}: {source.name} has {source.num_classes} classes. Use 1 to "
            f"{source.num_classes}, or null for all"
        )
    classes = np.arange(source.num_classes)
    return np.where(classes < num_kept, classes, -1)
