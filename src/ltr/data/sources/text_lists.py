"""Long-tailed data sets published as text lists of "path label": ImageNet-LT, Places-LT, iNaturalist 2018."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ltr.data.images.decode import WhiteLevel, build_decoding
from ltr.data.source import ImageFiles, Source
from ltr.data.sources.checks import (
    MOST_SHOWN,
    check_image_files,
    dataset_folder,
    read_lines,
    require,
    warn_if_partial,
)
from ltr.errors import DataError
from ltr.identity import named
from ltr.names import canonical, list_first

PUBLISHED: dict[str, dict[str, int]] = {
    "imagenet_lt": {"train": 115_846, "val": 20_000, "test": 50_000, "classes": 1_000},
    "places_lt": {"train": 62_500, "val": 7_300, "test": 36_500, "classes": 365},
    "inat18_lists": {"train": 437_513, "test": 24_426, "classes": 8_142},
}


@named("source/text_lists")
def text_lists(
    *,
    name: str,
    root: str,
    folder: str,
    lists: str,
    train: str,
    test: str,
    val: str | None = None,
    roots: Sequence[str] = (),
    exif: bool = False,
    matte: str | None = "auto",
    white_level: WhiteLevel | None = None,
) -> Source:
    """Read a data set whose parts are text lists: one line per image with its path, a space and its label.

    Labels are those of the lists and must be 0..C-1 without gaps. The lists of Liu et al. (CVPR 2019) and Kang et al.
    (ICLR 2020) have this form.

    Args:
        name: name of the data set; the counts of ``imagenet_lt``, ``places_lt`` and ``inat18_lists`` are compared with
            the published ones.
        root: folder that relative ``folder`` and ``lists`` start from.
        folder: folder that paths in the lists start from; in ``root``, or an absolute path.
        lists: folder of the list files; in ``root``, or an absolute path.
        train: list of training images.
        test: list of test images.
        val: list of validation images, or None.
        roots: further folders that may contain image files and link targets.
        exif, white_level: see `ltr.data.sources.folder.image_folder`.
        matte: background colour of transparent pixels, or None; ``auto`` is None (alpha is dropped) for the published
            data sets and white for all others.

    Returns:
        Source with `ImageFiles` in the lists' order. Classes are named by the folders of their training images if each
        class has a separate folder, else by number.

    Raises:
        DataError: a list or image is missing, a line cannot be read, labels have gaps, or an image is repeated.
    """
    if matte == "auto":
        matte = None if name in PUBLISHED else "white"
    decoding = build_decoding(exif=exif, matte=matte, white_level=white_level)
    base, where = dataset_folder(root, folder), dataset_folder(root, lists)
    chosen = {"train": train} | ({"val": val} if val else {}) | {"test": test}
    require(name, where, list(chosen.values()), "put the published list files there", key="lists")
    require(name, base.parent, [base.name], f"put the images there, as {base}")
    paths: list[str] = []
    labels: list[int] = []
    parts: dict[str, range] = {}
    for part, file in chosen.items():
        more_paths, more_labels = read_list(name, where / file)
        parts[part] = range(len(paths), len(paths) + len(more_paths))
        paths += more_paths
        labels += more_labels
    named_in = ", ".join(chosen.values())
    num_train = len(parts["train"])
    num_classes = _count_classes(name, where / train, labels[:num_train])
    unknown = sorted({label for label in labels if label >= num_classes})
    if unknown:
        raise DataError(
            f"{name}: {named_in} have labels that {train} lacks: {list_first(unknown)}; it has 0 to {num_classes - 1}"
        )
    warn_if_partial(name, parts, PUBLISHED.get(name, {}), num_classes)
    where_listed = position_in_lists(parts, chosen)
    files = ImageFiles.from_paths(base, paths, decoding=decoding)
    files = check_image_files(name, files, named_in=named_in, roots=roots, where=where_listed)
    class_names, depth = _class_names(paths[:num_train], labels[:num_train], num_classes)
    _refuse_contradictions(name, paths, labels, class_names, depth, where_listed)
    return Source(name, files, np.array(labels, dtype=np.int64), class_names, parts)


def read_list(name: str, file: Path) -> tuple[list[str], list[int]]:
    """Read paths and labels of a list file; paths may contain spaces.

    Raises:
        DataError: a line has no label.
    """
    paths, labels = [], []
    invalid = []
    for number, line in enumerate(read_lines(name, file), start=1):
        path, _, label = line.rstrip().rpartition(" ")
        if path and label.isdecimal():
            paths.append(path)
            labels.append(int(label))
        else:
            invalid.append(f"line {number} ({line[:80]!r})")
    if invalid:
        raise DataError(
            f"{name}: {file} must have lines 'path label' with whole numbers from 0, not {list_first(invalid)}"
        )
    return paths, labels


def _count_classes(name: str, file: Path, labels: Sequence[int]) -> int:
    """Return the number of classes C, after a check that all labels 0..C-1 occur."""
    if not labels:
        raise DataError(f"{name}: {file} is empty; it must list the training images")
    present = set(labels)
    largest = max(present)
    if len(present) <= largest:
        gaps = list(itertools.islice((label for label in range(largest) if label not in present), MOST_SHOWN))
        more = f", ... ({largest + 1 - len(present):,} in all)" if largest + 1 - len(present) > len(gaps) else ""
        raise DataError(
            f"{name}: {file} has labels up to {largest}, but none of {list_first(gaps)}{more}. Labels must be 0..C-1 "
            "without a gap, and every class needs a training image"
        )
    return largest + 1


def position_in_lists(parts: Mapping[str, range], lists: Mapping[str, str]) -> Callable[[int], str]:
    """Return a function that gives the list and the line (without blank lines) of a row."""

    def where(row: int) -> str:
        part = next(part for part, indices in parts.items() if row in indices)
        return f"line {row - parts[part].start + 1} of {lists[part]}"

    return where


def _class_names(paths: Sequence[str], labels: Sequence[int], num_classes: int) -> tuple[tuple[str, ...], int | None]:
    """Return class names, and the number of folders above the class folders (None for numbered names)."""
    folder_of: dict[int, str] = {}
    for path, label in zip(paths, labels):
        folder = _folder(path)
        if folder_of.setdefault(label, folder) != folder:
            return _numbered_names(num_classes), None
    if len(set(folder_of.values())) < num_classes:
        return _numbered_names(num_classes), None
    split = [folder_of[label].split("/") for label in range(num_classes)]
    common = 0
    while all(len(parts) > common + 1 for parts in split) and len({parts[common] for parts in split}) == 1:
        common += 1
    return tuple("/".join(parts[common:]) for parts in split), common


def _refuse_contradictions(
    name: str,
    paths: Sequence[str],
    labels: Sequence[int],
    class_names: Sequence[str],
    depth: int | None,
    where: Callable[[int], str],
) -> None:
    """Raise DataError if an image in the folder of a class has the label of another class.

    Args:
        depth: number of folders above the class folders, whose names are ignored: train/CLASS and val/CLASS are one
            class. None: classes have no folders.
    """
    if depth is None:
        return
    label_of = {canonical(class_name): label for label, class_name in enumerate(class_names)}
    wrong = []
    for row, (path, label) in enumerate(zip(paths, labels)):
        folder = "/".join(_folder(path).split("/")[depth:])
        if label_of.get(canonical(folder), label) != label:
            wrong.append(f"{path} has label {label} ({class_names[label]}), {where(row)}")
    if wrong:
        raise DataError(
            f"{name}: labels and the folders of classes contradict each other for {len(wrong):,} images:\n  "
            + "\n  ".join(wrong[:MOST_SHOWN])
            + "\nThe lists must number classes alike; fetch them again, all from one place"
        )


def _folder(path: str) -> str:
    """Return the folder that a path lies in, without spellings such as ``./`` and ``//``."""
    folder = path.rpartition("/")[0]
    return posixpath.normpath(folder) if folder else ""


def _numbered_names(num_classes: int) -> tuple[str, ...]:
    return tuple(f"class {label}" for label in range(num_classes))
