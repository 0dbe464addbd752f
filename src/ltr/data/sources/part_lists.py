"""Division of images into parts by a list in a file, or by a column of a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.source import Grouping, ImageFiles
from ltr.data.sources.part_division import PARTS, Division
from ltr.data.tables import column_names, iterate_rows
from ltr.errors import ConfigError, DataError, nearest
from ltr.escaping import csv_path, csv_text
from ltr.files import is_regular, read_json
from ltr.names import group_name, list_first

_PART_OF = {"training": "train", "validation": "val", "dev": "val", "testing": "test"}  # synonyms in lists


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
            f"{name}: {file} lists {what} that no image has: {list_first(sorted(unused))}. Check that it belongs to "
            "these images"
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
            entries += [(f"{part}[{number}]", group_name(value), part) for number, value in enumerate(values)]
    else:
        names = column_names(file, ("split",))
        columns = [column for column in ("path", *groupings) if column in names]
        if not columns:
            raise DataError(
                f"{name}: {file} has the columns {list_first(names)}. It needs split, and path or one of "
                f"{', '.join(groupings) or 'the groups'}"
            )
        key = None if columns[0] == "path" else columns[0]
        for line, (cell, value) in iterate_rows(file, ("split", columns[0])):
            text = group_name(csv_text(value or "")) if key else csv_path(value or "")
            entries.append((f"line {line}", text, cell or ""))
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
        content = read_json(file)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{name}: {file} cannot be read as JSON: {error}") from error
    parts = content.get("splits", content) if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not parts or not all(isinstance(values, list) for values in parts.values()):
        raise DataError(
            f"{name}: {file} must have an object that names the groups of each part, such as "
            '{"splits": {"train": ["A", "B"], "test": ["C"]}}'
        )
    return parts


def divide_by_column(name: str, file: Path, kind: str, split: Grouping, group: str | None) -> Division:
    """Divide by the column or field ``split`` of an annotation file.

    Args:
        kind: what ``split`` is there, for the message: a column or a field.

    Raises:
        DataError: it has another part, or is blank for some images.
    """
    texts = [_PART_OF.get(value.strip().lower(), value.strip().lower()) for value in split.values]
    unknown = [value for value, text in zip(split.values, texts) if value.strip() and text not in PARTS]
    if unknown or (split.codes < 0).any():
        what = list_first(list(map(repr, unknown))) if unknown else f"{int((split.codes < 0).sum()):,} blank values"
        raise DataError(f"{name}: the {kind} split of {file} has {what}. Allowed are {', '.join(PARTS)}")
    part_of = np.array([PARTS.index(text) if text in PARTS else -1 for text in texts], dtype=np.int8)
    return Division(part_of[split.codes], "column-split", group)
