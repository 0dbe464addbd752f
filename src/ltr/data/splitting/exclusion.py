"""Split of a dataset config, from a rule or a file, without the images of an exclusion list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ltr.configuration.targets import instantiate
from ltr.data.images.real_paths import find_named_images
from ltr.data.label_warnings import warn_of_one_class
from ltr.data.source import ImageFiles, Source
from ltr.data.split import SPLIT_PARTS, Split, listing_digest, load_split_file
from ltr.errors import ConfigError, DataError
from ltr.files import is_regular
from ltr.names import list_first


def read_split(dataset: Mapping[str, Any], source: Source, make: Callable[..., Split] = instantiate) -> Split:
    """Return the split of the config's rule or of ``split_file``, without the images that ``exclude`` lists.

    Raises:
        ConfigError: the images to exclude are not files.
        DataError: a file cannot be read or was made for other data, or a class loses all its images.
    """
    file = dataset.get("split_file")
    split = make(dataset["split"], source) if file is None else load_split_file(file, source)
    split = replace(split, listing=listing_digest(source))
    listed = dataset.get("exclude")
    if listed is not None:
        split = exclude_images(split, source, Path(str(listed)))
    warn_of_one_class(split)
    return split


def exclude_images(split: Split, source: Source, file: Path) -> Split:
    """Remove the images that the lines of ``file`` name: paths from the data set's root, in any spelling.

    They are removed from all parts including the test set, so that results are comparable only with the same list.
    """
    if not isinstance(source.images, ImageFiles):
        raise ConfigError(
            f"dataset.exclude={file}: {source.name} is not read from image files, so none can be left out"
        )
    if not is_regular(file):
        raise DataError(
            f"dataset.exclude={file} cannot be read: it {'is not a regular file' if file.exists() else 'is not there'}"
            ". It must be a text file of paths, as ltr-data check --exclude-to writes it"
        )
    try:
        lines = file.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise DataError(f"dataset.exclude={file} cannot be read: {error}") from error
    listed_paths = _paths(source.images, lines)
    is_excluded, unknown = _listed(source.images, listed_paths)
    if unknown:
        raise DataError(
            f"dataset.exclude={file} names {len(unknown)} images that {source.name} does not have: "
            f"{list_first(sorted(unknown))}. A line is a path from the data set's root, as ltr-data check --exclude-to "
            "writes it"
        )
    arrays = {name: getattr(split, name)[~is_excluded[getattr(split, name)]] for name in SPLIT_PARTS}
    labels = split.label_map[source.labels[arrays["train"]]]
    counts = np.bincount(labels, minlength=split.num_classes).astype(np.int64)
    emptied = np.flatnonzero((counts == 0) & (split.class_counts > 0))
    if emptied.size:
        names = list_first([split.class_names[label] for label in emptied])
        raise DataError(
            f"dataset.exclude={file} leaves no training image of {emptied.size} classes: {names}. "
            "Keep an image of each, or leave the whole classes out of the data set"
        )
    num_excluded = sum(len(getattr(split, name)) - len(arrays[name]) for name in SPLIT_PARTS)
    return replace(split, name=f"{split.name}-without{num_excluded}", class_counts=counts, **arrays)


def _paths(files: ImageFiles, lines: Sequence[str]) -> list[str]:
    """Return the path in each line that is not blank, without white space beside it unless a file has such a name."""
    spaced = {line for line in lines if line.strip() != line}
    exact = spaced.intersection(files.relative(row) for row in range(len(files))) if spaced else spaced
    return list(dict.fromkeys(line if line in exact else line.strip() for line in lines if line.strip()))


def _listed(files: ImageFiles, paths: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return a mask bool [N] of the listed images, and the lines that name no image.

    Only lines that are not spelled as in the data set are resolved on the disk.
    """
    listed, matched = set(paths), set()  # several images may be crops of one file
    is_listed = np.zeros(len(files), dtype=bool)
    for index in range(len(files)):
        path = files.relative(index)
        if path in listed:
            is_listed[index] = True
            matched.add(path)
    if len(matched) == len(listed):
        return is_listed, []
    more_listed, unknown = find_named_images(files, [path for path in paths if path not in matched])
    return is_listed | more_listed, unknown
