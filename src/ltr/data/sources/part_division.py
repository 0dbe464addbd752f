"""Division of grouped images into parts: by groups, by time, or from a fixed list."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltr.configuration.ranges import ProperFraction, check_option
from ltr.data.source import Grouping, ImageFiles
from ltr.data.sources.checks import shown
from ltr.data.sources.division import hold_out_test_images
from ltr.data.splitting.groups import FILE, file_groups, hold_out_groups
from ltr.data.tables import column_names, iterate_rows
from ltr.errors import ConfigError, DataError, nearest
from ltr.escaping import csv_text
from ltr.files import is_regular
from ltr.names import counted

PARTS = ("train", "val", "test")
AUTO, NONE = "auto", "none"
_IN_ORDER = ("location", "deployment", "seq_id", "date")  # ``auto`` takes the first of these that every image has
_PART_OF = {"training": "train", "validation": "val", "dev": "val", "testing": "test"}  # synonyms in lists
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
        paths = [files.relative(int(row)) for row in unknown[:10]]
        raise DataError(
            f"{name}: {counted(unknown.size, 'image has', 'images have')} no {group} that would keep them together: "
            f"{', '.join(paths)}"
            f"{', ...' if unknown.size > 10 else ''}. Fill it in, leave them out, or choose another dataset.group"
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
) -> Division:
    """Hold out whole groups for testing, stratified by class as far as possible; single images if ``group`` is None.

    Args:
        name: name of the data set, for messages.
        files: the N images.
        labels: int64 [N].
        class_names: names of the classes, for messages.
        group: key of ``groupings``; None only if each row has a separate file. Crops of one file need `file_groups`.
        groupings: groupings of the images, by key.
        fraction: requested share of each class for testing, in (0, 1).
        seed: seed of the division.

    Raises:
        DataError: there is only one group, or no class has two images.
    """
    rule = f"test{fraction:g}-seed{seed}"
    if group is None and (shared := file_groups(files)) is not None:
        group, groupings = FILE, {**groupings, FILE: shared}
    if group is None:
        paths = [f"{files.relative(row)}{_box_text(files, row)}" for row in range(len(files))]
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
        paths = [files.relative(int(row)) for row in unknown[:10]]
        raise DataError(
            f"{name}: {counted(unknown.size, 'image has', 'images have')} no time that can be read, and "
            "dataset.division=time needs one: "
            f"{', '.join(paths)}{', ...' if unknown.size > 10 else ''}. Write it as 2024-05-31 23:59:01"
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


def divide_by_list(
    name: str, files: ImageFiles, file: Path, group: str | None, groupings: Mapping[str, Grouping]
) -> Division:
    """Divide by a file that lists the groups or paths of each part.

    A JSON file has an object from part to a list of groups, possibly under the key ``splits`` (as LILA publishes it). A
    CSV file has the column ``split``, and the column ``path`` or the name of a grouping, which becomes the group.

    Raises:
        DataError: the file cannot be read, names an unknown part, lists a group or path in two parts, or lists one that
            no image has.
    """
    key, part_of = _read_list(name, file, group, groupings)
    if key is None:
        values = [files.relative(row) for row in range(len(files))]
        parts = np.array([part_of.get(path, -1) for path in values], dtype=np.int8)
        unused = set(part_of) - set(values)
    else:
        grouping = groupings[key]
        part_of_group = np.array([part_of.get(value, -1) for value in grouping.values] + [-1], dtype=np.int8)
        parts = part_of_group[grouping.codes]
        unused = set(part_of) - set(grouping.values)
    if unused:
        what = "paths" if key is None else f"groups of {key}"
        raise DataError(
            f"{name}: {file} lists {what} that no image has: {shown(sorted(unused))}. Check that it belongs to these "
            "images"
        )
    return Division(parts, f"list-{file.stem}", key or group)


def _read_list(
    name: str, file: Path, group: str | None, groupings: Mapping[str, Grouping]
) -> tuple[str | None, dict[str, int]]:
    """Return the grouping that a list is about (None: paths), and the part of each entry."""
    if not is_regular(file):
        raise DataError(
            f"{name}: dataset.split_list={file} {'is not a regular file' if file.exists() else 'is not there'}. It "
            "must be a JSON or CSV file that names the parts of groups or paths"
        )
    entries: list[tuple[str, str, str]] = []  # position, value, part
    key = group
    if file.suffix.lower() == ".json":
        if group is None:
            raise ConfigError("dataset.split_list: a JSON list is of groups, and dataset.group=none has none")
        for part, values in _parts_of_json(name, file).items():
            entries += [(f"{part}[{number}]", str(value), part) for number, value in enumerate(values)]
    else:
        names = column_names(file, ("split",))
        columns = [column for column in ("path", *groupings) if column in names]
        if not columns:
            raise DataError(
                f"{name}: {file} has the columns {shown(names)}. It needs split, and path or one of "
                f"{', '.join(groupings) or 'the groups'}"
            )
        key = None if columns[0] == "path" else columns[0]
        for line, (cell, value) in iterate_rows(file, ("split", columns[0])):
            text = csv_text(value or "")
            entries.append((f"line {line}", text if key else text.replace("\\", "/"), cell or ""))
    part_of: dict[str, int] = {}
    for position, value, text in entries:
        part = _PART_OF.get(text.strip().lower(), text.strip().lower())
        if part not in PARTS:
            raise DataError(
                f"{name}: {file}, {position}: the part is {text!r}. Allowed are {', '.join(PARTS)}"
                f"{nearest(part, PARTS)}"
            )
        if part_of.setdefault(value, PARTS.index(part)) != PARTS.index(part):
            raise DataError(f"{name}: {file}, {position}: {value!r} is in two parts. Each may be in one")
    return key, part_of


def _parts_of_json(name: str, file: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{name}: {file} cannot be read as JSON: {error}") from error
    parts = content.get("splits", content) if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not parts or not all(isinstance(values, list) for values in parts.values()):
        raise DataError(
            f"{name}: {file} must have an object that names the groups of each part, such as "
            '{"splits": {"train": ["A", "B"], "test": ["C"]}}'
        )
    return parts


def divide_by_column(name: str, file: Path, split: Grouping, group: str | None) -> Division:
    """Divide by the column ``split`` of an annotation table.

    Raises:
        DataError: the column has another part, or is blank for some images.
    """
    texts = [_PART_OF.get(value.strip().lower(), value.strip().lower()) for value in split.values]
    unknown = [value for value, text in zip(split.values, texts) if value.strip() and text not in PARTS]
    if unknown or (split.codes < 0).any():
        what = shown(list(map(repr, unknown))) if unknown else f"{int((split.codes < 0).sum()):,} blank cells"
        raise DataError(f"{name}: the column split of {file} has {what}. Allowed are {', '.join(PARTS)}")
    part_of = np.array([PARTS.index(text) if text in PARTS else -1 for text in texts], dtype=np.int8)
    return Division(part_of[split.codes], "column-split", group)


def _box_text(files: ImageFiles, row: int) -> str:
    """Return the box of a crop as text, so that crops of one file differ."""
    return "" if files.crops is None else f"#{files.crops.boxes[row].tobytes().hex()}"
