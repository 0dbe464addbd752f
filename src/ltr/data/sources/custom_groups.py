"""Groups of custom images: a column of the table, a level of subfolders, or a pattern of paths."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from ltr.data.source import Grouping, ImageFiles
from ltr.data.sources.part_division import refuse_unknown_groups
from ltr.errors import ConfigError
from ltr.names import group_name, list_first

SUBFOLDER, PATTERN = "subfolder", "pattern"  # keys of the groupings of an image folder


def check_path_group(group: int | str) -> None:
    """Raise ConfigError unless ``group`` is a level of subfolders, or a pattern with one pair of parentheses."""
    allowed = (
        "It must be a level of subfolders below the class (1, 2, ...), or a regular expression of paths below the "
        "class with one pair of parentheses around the group's name, such as dataset.group='(cam[0-9]+)_'"
    )
    if isinstance(group, bool) or not isinstance(group, (int, str)) or (isinstance(group, int) and group < 1):
        raise ConfigError(f"dataset.group={group}: {allowed}")
    if isinstance(group, int):
        return
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise ConfigError(f"dataset.group={group}: the pattern cannot be read ({error}). {allowed}") from error
    if pattern.groups != 1:
        raise ConfigError(f"dataset.group={group}: the pattern has {pattern.groups} pairs of parentheses. {allowed}")


def groups_of_paths(group: int | str, paths: Sequence[str]) -> tuple[str, Grouping]:
    """Return the key and the grouping of images by their paths.

    Args:
        group: level n uses the name of the n-th folder below the class; a pattern uses its group at the first match.
        paths: N paths below the folder of the class, with ``/``.
    """
    if isinstance(group, int):
        parts = (path.split("/")[:-1] for path in paths)
        return SUBFOLDER, grouping_of(["" if len(folders) < group else folders[group - 1] for folders in parts])
    pattern = re.compile(group)
    matches = (pattern.search(path) for path in paths)
    return PATTERN, grouping_of([(match[1] or "") if match else "" for match in matches])


def grouping_of(names: Sequence[str]) -> Grouping:
    """Return the grouping by name, sorted; see `ltr.data.source.Grouping.of_values`."""
    values = sorted(set(map(group_name, names)))
    number_of = {value: number for number, value in enumerate(values)}
    return Grouping.of_values(np.array([number_of[group_name(name)] for name in names], dtype=np.int32), values)


def check_groups(
    name: str, key: str, grouping: Grouping, files: ImageFiles, rows_of: Mapping[str, Sequence[int]]
) -> None:
    """Check the groups of images whose parts are fixed; warn of groups in several parts.

    Args:
        rows_of: rows of each part.

    Raises:
        DataError: the group of an image is unknown.
    """
    refuse_unknown_groups(name, key, grouping, files)
    if len(rows_of) < 2:
        return
    number = np.zeros(len(grouping.values), dtype=np.int64)
    for rows in rows_of.values():
        number[np.unique(grouping.codes[np.asarray(rows, dtype=np.int64)])] += 1
    divided = [grouping.values[code] for code in np.flatnonzero(number > 1).tolist()]
    if divided:
        warnings.warn(
            f"{name}: the parts divide {len(divided):,} of {len(grouping.values):,} groups by {key}: "
            f"{list_first(divided)}. ltr-data describe counts the test images whose group has training images",
            stacklevel=3,
        )
