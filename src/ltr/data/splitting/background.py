"""Background splits: N foreground classes keep their labels, and all other images are background, label 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

import numpy as np

from ltr.configuration.ranges import NonNegativeInt, PositiveInt, ProperFraction, check_option
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.data.splitting.building import Validation, build_split, class_counts_of, group_by_label, labelled_indices
from ltr.data.splitting.published import BackgroundList, background_list, background_list_classes
from ltr.errors import ConfigError, DataError
from ltr.identity import named
from ltr.names import list_first
from ltr.randomness import generator

Sampled = Literal["uniform", "frequency", "shot"]
Foreground = Sampled | Literal["ids"] | BackgroundList
ShotGroup = Literal["many", "medium", "few"]
Trial = Annotated[int, "[0, 9]"]
SAMPLED: tuple[str, ...] = get_args(Sampled)
SHOT_GROUPS: tuple[str, ...] = get_args(ShotGroup)
NAME = "background"


@named("split/background")
def background(
    source: Source,
    *,
    foreground: Foreground = "uniform",
    n_foreground: PositiveInt | None = None,
    ids: list[int] | None = None,
    trial: Trial = 0,
    strata: PositiveInt = 4,
    stratum: NonNegativeInt | None = None,
    shot_group: ShotGroup | None = None,
    max_per_class: PositiveInt | None = None,
    val: Validation = "none",
    val_fraction: ProperFraction = 0.1,
    seed: NonNegativeInt = 0,
) -> Split:
    """Split N foreground classes from a background of all others (Mullapudi et al., CVPR 2021, sec. 3).

    Label 0 is the background, and 1..N are the foreground classes, in the order of a list or by class number if they
    are sampled. The paper does not describe the choice of its rare classes; its published lists are included. The rule
    ``val`` treats the background as a class.

    Args:
        foreground: choice of the foreground classes.
            ``inat17_100`` or ``inat17_1``: the published category ids of iNaturalist 2017, 100 or one.
            ``ids``: those of ``ids``. ``uniform``: N classes sampled from all. ``frequency``: sampled evenly from
            ``strata`` groups of classes by training count. ``shot``: sampled evenly from the many- (more than 100
            training images), medium- and few-shot (less than 20) classes. Only classes with training and test images
            are sampled; for one seed, the classes of a smaller N are among those of a larger N.
        n_foreground: number of classes to sample; None for lists, which determine it.
        ids: for ``foreground=ids``: class ids of the data set (class numbers if it has no ids).
        trial: number of the list ``inat17_1``, 0 to 9.
        strata: number of groups of ``foreground=frequency``, with equally many classes, the most frequent first.
        stratum: sample from this group only, 0 to strata - 1; None: evenly from all groups.
        shot_group: for ``foreground=shot``: sample from this group only; None: evenly from the three.
        max_per_class: largest number of training images per foreground class, sampled by the split's seed; the rest is
            excluded from the split and from the background. None keeps all.
        val, val_fraction, seed: see `ltr.data.splitting.closed_set.natural`.

    Returns:
        Split; its name has the background's share of the training images before validation is held out.

    Raises:
        ConfigError: a value is outside its range, or keys contradict each other.
        DataError: the data set lacks an id, or a class has no training image.
    """
    check_option("dataset.foreground", foreground, Foreground)
    check_option("dataset.shot_group", shot_group, ShotGroup | None)
    check_option("dataset.max_per_class", max_per_class, PositiveInt | None)
    _check_keys(foreground, n_foreground, ids, stratum, shot_group, trial)
    if foreground in SAMPLED:
        assert n_foreground is not None
        groups = _groups(source, foreground, strata, stratum, shot_group)
        classes = _sample_classes(source, groups, n_foreground, seed)
        name = f"{foreground}{seed}" + (f"-{shot_group}" if shot_group else "")
        name += f"-stratum{stratum}of{strata}" if stratum is not None else ""
    else:
        classes = _classes_of_ids(source, ids if ids is not None else _published(source, foreground, trial))
        name = foreground + (f"-trial{trial}" if foreground == "inat17_1" else "")

    label_map = np.zeros(source.num_classes, dtype=np.int64)
    label_map[classes] = np.arange(1, len(classes) + 1)
    train = labelled_indices(source, label_map, "train")
    if max_per_class is not None:
        train = _capped(source, train, label_map, max_per_class, seed)
        name += f"-max{max_per_class}"
    counts = np.bincount(label_map[source.labels[train]], minlength=len(classes) + 1)
    return build_split(
        source,
        f"{source.name}-bg{len(classes)}-{name}-share{_share(counts):.4f}",
        train,
        label_map,
        class_names=(NAME, *(source.class_names[number] for number in classes)),
        val=val,
        val_fraction=val_fraction,
        seed=seed,
        protocols=("background",),
    )


def background_share(split: Split) -> float:
    """Return the background's share of a split's training images, in [0, 1]; NaN if there are none."""
    return _share(split.class_counts)


def _share(counts: np.ndarray) -> float:
    total = int(counts.sum())
    return int(counts[0]) / total if total else float("nan")


def _check_keys(
    foreground: str,
    n_foreground: int | None,
    ids: list[int] | None,
    stratum: int | None,
    shot_group: str | None,
    trial: int,
) -> None:
    if foreground in SAMPLED and n_foreground is None:
        raise ConfigError(
            f"dataset.foreground={foreground} samples classes, and their number is missing. Set "
            "dataset.n_foreground=NUMBER"
        )
    if foreground not in SAMPLED and n_foreground is not None:
        raise ConfigError(
            f"dataset.n_foreground={n_foreground} and dataset.foreground={foreground} were both given, but a list "
            f"fixes the number of classes. Use dataset.foreground={', '.join(SAMPLED[:-1])} or {SAMPLED[-1]} to "
            f"sample {n_foreground} classes, or leave n_foreground=null"
        )
    if foreground == "ids" and ids is None:
        raise ConfigError(
            "dataset.foreground=ids: dataset.ids is missing. Set dataset.ids=[ID,...], the class ids of the foreground"
        )
    if foreground != "ids" and ids is not None:
        raise ConfigError(
            f"dataset.ids were given, but dataset.foreground={foreground}. Use dataset.foreground=ids for a custom "
            "list, or leave ids=null"
        )
    if stratum is not None and foreground != "frequency":
        raise ConfigError(
            f"dataset.stratum={stratum} is an option of dataset.foreground=frequency, not of {foreground}. "
            "Leave it out, or use dataset.foreground=frequency"
        )
    if shot_group is not None and foreground != "shot":
        raise ConfigError(
            f"dataset.shot_group={shot_group} is an option of dataset.foreground=shot, not of {foreground}. "
            "Leave it out, or use dataset.foreground=shot"
        )
    if trial and foreground != "inat17_1":
        raise ConfigError(
            f"dataset.trial={trial} is an option of dataset.foreground=inat17_1, not of {foreground}. Leave it out, or "
            "use dataset=inat_bg_1"
        )


def _groups(
    source: Source, foreground: str, strata: int, stratum: int | None, shot_group: str | None
) -> list[np.ndarray]:
    """Return the classes with training and test images, in the groups to sample from."""
    counts = class_counts_of(source, "train")
    candidates = np.flatnonzero((counts > 0) & (class_counts_of(source, "test") > 0))
    if foreground == "uniform":
        return [candidates]
    if foreground == "frequency":
        if not 1 <= strata <= max(len(candidates), 1):
            raise ConfigError(
                f"dataset.strata={strata}: {source.name} has {len(candidates)} classes to group. Use 1 to "
                f"{len(candidates)}"
            )
        groups = np.array_split(candidates[np.argsort(-counts[candidates], kind="stable")], strata)
        if stratum is not None and not 0 <= stratum < strata:
            raise ConfigError(
                f"dataset.stratum={stratum}: there are {strata} strata. Use 0 to {strata - 1}, or null for all"
            )
        return groups if stratum is None else [groups[stratum]]
    n = counts[candidates]
    shots = (candidates[n > 100], candidates[(n >= 20) & (n <= 100)], candidates[n < 20])
    if shot_group is None:
        return list(shots)
    return [shots[SHOT_GROUPS.index(shot_group)]]


def _sample_classes(source: Source, groups: list[np.ndarray], number: int, seed: int) -> np.ndarray:
    """Sample ``number`` classes as evenly from the groups as possible, in ascending order."""
    available = sum(map(len, groups))
    largest = min(available, source.num_classes - 1)  # one class must remain for the background
    if not 1 <= number <= largest:
        raise ConfigError(
            f"dataset.n_foreground={number}: {source.name} has {available} classes to sample from of "
            f"{source.num_classes}, and one at least must be background. Use 1 to {largest}"
        )
    # each round takes one class of every group that is not empty, so that a larger number only adds classes
    rounds = np.concatenate([np.arange(len(group)) for group in groups])
    shuffled = np.concatenate(
        [generator(seed, "foreground", group_number).permutation(group) for group_number, group in enumerate(groups)]
    )
    return np.sort(shuffled[np.argsort(rounds, kind="stable")[:number]])


def _published(source: Source, name: str, trial: int) -> list[int]:
    """Return a published list, after a check that ``source`` is its data set: other years use the same ids."""
    listed, num_classes = background_list(name, trial), background_list_classes()
    if source.class_ids is None or source.num_classes != num_classes:
        has = f"{source.num_classes} classes" + (" without ids" if source.class_ids is None else "")
        raise ConfigError(
            f"dataset.foreground={name}: that list holds category ids of the {num_classes:,} classes of iNaturalist "
            f"2017, and {source.name} has {has}. Use the complete iNaturalist 2017, or sample the foreground classes: "
            "dataset=inat_bg dataset.foreground=uniform dataset.n_foreground=NUMBER"
        )
    return listed


def _classes_of_ids(source: Source, ids: Sequence[int]) -> np.ndarray:
    """Return the source's classes with these ids, in the order of the ids."""
    class_ids = source.class_ids if source.class_ids is not None else np.arange(source.num_classes)
    class_of_id = {int(number): index for index, number in enumerate(class_ids)}
    what = "class ids" if source.class_ids is not None else "class numbers"
    if not ids:
        raise ConfigError("dataset.ids=[]: at least one foreground class is needed. Set dataset.ids=[ID,...]")
    if len(set(ids)) != len(ids):
        raise ConfigError("dataset.ids repeats an id: every foreground class has one label. List each id once")
    missing = [number for number in ids if int(number) not in class_of_id]
    if missing:
        raise DataError(
            f"{source.name} has no class with the id {list_first(missing)} ({len(missing)} of {len(ids)} foreground "
            f"ids are missing; its {len(class_ids)} {what} run from {class_ids.min()} to {class_ids.max()})"
        )
    classes = np.array([class_of_id[int(number)] for number in ids], dtype=np.int64)
    if len(classes) >= source.num_classes:
        raise ConfigError(f"dataset.ids names all {len(classes)} classes of {source.name}: none is left for background")
    empty = classes[class_counts_of(source, "train")[classes] == 0]
    if empty.size:
        names = list_first([source.class_names[number] for number in empty])
        raise DataError(f"{source.name}: {empty.size} foreground classes have no training image: {names}")
    return classes


def _capped(source: Source, train: np.ndarray, label_map: np.ndarray, most: int, seed: int) -> np.ndarray:
    groups = group_by_label(source, train, label_map)
    sampled = [
        generator(seed, "foreground cap", label).permutation(groups[label])[:most] for label in range(1, len(groups))
    ]
    return np.sort(np.concatenate([groups[0], *sampled]))
