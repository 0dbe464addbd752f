"""Division of grouped images into parts: by groups or by time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ltr.configuration.ranges import ProperFraction, check_option
from ltr.data.source import Grouping, ImageFiles
from ltr.data.sources.division import hold_out_test_images
from ltr.data.splitting.groups import FILE, crop_groups, hold_out_groups
from ltr.errors import ConfigError, DataError, nearest
from ltr.names import counted, list_first

PARTS = ("train", "val", "test")
AUTO, NONE = "auto", "none"
_IN_ORDER = ("location", "deployment", "seq_id", "date")  # ``auto`` takes the first of these that every image has
_TOLERATED = 0.05  # largest difference between the achieved and the requested share without a warning
UNKNOWN_TIME = np.iinfo(np.int64).min
UNLISTED = "in no part of the list"


@dataclass(frozen=True)
class Division:
    """Part of each image.

    Attributes:
        part: int8 [N], index into `PARTS`; -1: in none of them.
        name: name of the rule, part of the source's name.
        group: key of the grouping that the rule and later divisions keep together; None: images are independent.
        remarks: sentences on the outcome.
    """

    part: np.ndarray
    name: str
    group: str | None
    remarks: tuple[str, ...] = ()


def choose_group(name: str, group: str, groupings: Mapping[str, Grouping]) -> str | None:
    """Return the key of the grouping to keep together; None for ``none``.

    Args:
        group: a key of ``groupings``; ``auto``: the first of location, deployment, seq_id and date that is known for
            every image; ``none``: no grouping.

    Raises:
        ConfigError: the file has no such grouping.
        DataError: the group of some images is unknown.
    """
    if group == NONE:
        return None
    if group == AUTO:
        present = [key for key in _IN_ORDER if key in groupings]
        chosen = next((key for key in present if (groupings[key].codes >= 0).all()), None)
        partial = [_coverage(key, groupings[key]) for key in present[: present.index(chosen) if chosen else None]]
        if chosen is None:
            warnings.warn(
                f"{name}: no location, deployment, sequence or date is known for every image"
                f"{' (' + '; '.join(partial) + ')' if partial else ''}, so images are divided one "
                "by one: images of one burst may be in training and in test. dataset.group=COLUMN names a group",
                stacklevel=3,
            )
        elif partial:
            warnings.warn(
                f"{name}: {'; '.join(partial)}, so dataset.group=auto keeps images of one {chosen} together instead. "
                f"Fill in the others, or confirm with dataset.group={chosen}",
                stacklevel=3,
            )
        return chosen
    if group not in groupings:
        known = [*groupings, AUTO, NONE]
        raise ConfigError(
            f"dataset.group={group}: {name} has no such field; allowed are {', '.join(known)}{nearest(group, known)}"
        )
    return group


def _coverage(key: str, grouping: Grouping) -> str:
    """Return a text with the number of images whose group is known."""
    return f"{int(np.count_nonzero(grouping.codes >= 0)):,} of {len(grouping.codes):,} images have a {key}"


def refuse_unknown_groups(name: str, group: str, grouping: Grouping, files: ImageFiles) -> None:
    """Raise DataError that names the images without a group, if there are any."""
    unknown = np.flatnonzero(grouping.codes < 0)
    if unknown.size:
        paths = list_first([files.relative(row) for row in unknown.tolist()])
        raise DataError(
            f"{name}: {counted(unknown.size, 'image has', 'images have')} no {group} that would keep them together: "
            f"{paths}. Fill it in (nan, NA and the like are blank), leave them out, or choose another dataset.group"
        )


def divide_by_groups(
    name: str,
    files: ImageFiles,
    labels: np.ndarray,
    class_names: Sequence[str],
    group: str | None,
    groupings: Mapping[str, Grouping],
    *,
    fraction: float,
    seed: int,
    paths: Sequence[str] | None = None,
) -> Division:
    """Hold out whole groups for testing, stratified by class as far as possible; single images if ``group`` is None.

    Args:
        name: name of the data set, for messages.
        files: the N images.
        labels: int64 [N].
        class_names: names of the classes, for messages.
        group: key of ``groupings``; None only if each row has a separate file. Crops of one file are kept together.
        groupings: groupings of the images, by key.
        fraction: requested share of each class for testing, in (0, 1).
        seed: seed of the division.
        paths: paths that, with the seed, determine the choice of single images; None: those of ``files``.

    Raises:
        DataError: there is only one group, or no class has two images.
    """
    rule = f"test{fraction:g}-seed{seed}"
    if group is None and (shared := crop_groups(files)) is not None:
        group, groupings = FILE, {**groupings, FILE: shared}
    if group is None:
        paths = paths or [f"{files.relative(row)}{_box_text(files, row)}" for row in range(len(files))]
        is_test = hold_out_test_images(name, paths, labels, class_names, fraction=fraction, seed=seed)
        return Division(np.where(is_test, 2, 0).astype(np.int8), rule, None)
    check_option("dataset.test_fraction", fraction, ProperFraction)
    grouping = groupings[group]
    refuse_unknown_groups(name, group, grouping, files)
    sizes = np.bincount(grouping.codes, minlength=len(grouping.values))
    largest = int(sizes.argmax())
    if np.count_nonzero(sizes) < 2:
        raise DataError(
            f"{name}: all {len(labels):,} images have the {group} {grouping.values[largest]!r}, so none can be held "
            "out for testing. Choose another dataset.group"
        )
    is_test = hold_out_groups(labels, grouping.codes, grouping.values, len(class_names), fraction=fraction, seed=seed)
    if not is_test.any():
        raise DataError(
            f"{name}: every {group} has the only images of some class, so none can be held out for testing. Choose "
            "another dataset.group, or leave those classes out"
        )
    achieved = float(is_test.mean())
    if abs(achieved - fraction) > _TOLERATED:
        warnings.warn(
            f"{name}: {achieved:.1%} of the images are for testing, and dataset.test_fraction asks for {fraction:.1%}: "
            f"whole groups of {group} do not allow more. The largest, {grouping.values[largest]!r}, has "
            f"{sizes[largest]:,} of {len(labels):,} images",
            stacklevel=3,
        )
    held = len(np.unique(grouping.codes[is_test]))
    remark = (
        f"{held:,} of {np.count_nonzero(sizes):,} groups by {group} are for testing: {achieved:.1%} of the images "
        f"(wanted {fraction:.1%})"
    )
    return Division(np.where(is_test, 2, 0).astype(np.int8), f"{group}-{rule}", group, (remark,))


def comparable_times(name: str, local: np.ndarray, instants: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the times by which images are ordered, and their name: instants if all have a time zone, else local times.

    If only some images have a time zone, a warning gives their number.

    Args:
        local: int64 [N] in seconds.
        instants: int64 [N] in UTC; `UNKNOWN_TIME` without a time zone.
    """
    zoned = int(np.count_nonzero(instants != UNKNOWN_TIME))
    if zoned and zoned == len(instants):
        return instants, "UTC"
    if zoned:
        warnings.warn(
            f"{name}: {zoned:,} of {len(instants):,} images have a time zone, so dataset.division=time orders all by "
            "their local times. Write the zone of every time, such as 2024-05-31T23:59:01+02:00, to order by instants",
            stacklevel=3,
        )
    return local, "local time"


def divide_by_time(
    name: str,
    files: ImageFiles,
    times: np.ndarray,
    group: str | None,
    groupings: Mapping[str, Grouping],
    *,
    fraction: float,
    clock: str = "local time",
) -> Division:
    """Hold out the latest images for testing; the first image of a group decides for the whole group.

    Args:
        times: int64 [N] in seconds; the smallest int64 is unknown.
        fraction: requested share of the images for testing, in (0, 1).
        clock: name of these times, for the remark.

    Raises:
        DataError: the time of an image is unknown, or all have the same.
    """
    check_option("dataset.test_fraction", fraction, ProperFraction)
    unknown = np.flatnonzero(times == UNKNOWN_TIME)
    if unknown.size:
        paths = list_first([files.relative(row) for row in unknown.tolist()])
        raise DataError(
            f"{name}: {counted(unknown.size, 'image has', 'images have')} no time that can be read, and "
            f"dataset.division=time needs one: {paths}. Write it as 2024-05-31 23:59:01"
        )
    if group is None:
        first = times
    else:
        refuse_unknown_groups(name, group, groupings[group], files)
        codes = groupings[group].codes
        starts = np.full(len(groupings[group].values), np.iinfo(np.int64).max)
        np.minimum.at(starts, codes, times)
        first = starts[codes]
    ascending = np.sort(first)
    cut = ascending[min(int(np.ceil((1 - fraction) * len(ascending))), len(ascending) - 1)]
    if cut == ascending[0]:
        later = ascending[ascending > cut]
        if not len(later):
            what = f"groups of {group} begin" if group else "images were taken"
            raise DataError(
                f"{name}: all {what} at the same time, so the latest cannot be held out. Use dataset.division=groups, "
                "or dataset.group=seq_id"
            )
        cut = later[0]
    is_test = first >= cut
    name_of_rule = f"time-{group + '-' if group else ''}test{fraction:g}"
    remark = (
        f"images of {_day(int(cut))} and later ({clock}) are for testing: {is_test.mean():.1%} (wanted {fraction:.1%})"
    )
    return Division(np.where(is_test, 2, 0).astype(np.int8), name_of_rule, group, (remark,))


def _day(seconds: int) -> str:
    from datetime import datetime

    return datetime.fromordinal(max(seconds // 86_400, 1)).date().isoformat()


def _box_text(files: ImageFiles, row: int) -> str:
    """Return the box of a crop as text, so that crops of one file differ."""
    return "" if files.crops is None else f"#{files.crops.boxes[row].tobytes().hex()}"
