"""Tiny-ImageNet-200 (Stanford CS231n 2015): JPEGs of 64 x 64 pixels in the official folders."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltr.data.source import ImageFiles, Source
from ltr.data.sources.archives import Archive, fetch
from ltr.data.sources.checks import (
    check_image_files,
    dataset_folder,
    read_lines,
    read_mapping,
    refuse_duplicates,
    require,
    warn_if_partial,
)
from ltr.errors import DataError
from ltr.identity import named
from ltr.names import list_first, unique_names

ARCHIVE = Archive(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
    "tiny-imagenet-200",
    max_bytes=2 * 2**30,
    max_files=200_000,
)
PUBLISHED = {"train": 100_000, "test": 10_000, "classes": 200}


@named("source/tiny_imagenet")
def tiny_imagenet(
    *, root: str, folder: str = "tiny-imagenet-200", roots: Sequence[str] = (), download: bool = False
) -> Source:
    """Read Tiny-ImageNet-200: 500 training and 50 labelled validation images of each of 200 classes.

    **The labelled validation images are the part ``test``**, because the labels of the official test images are secret.
    Labels number the WordNet ids in ascending order, as torchvision's ImageFolder does; published lists of known
    classes refer to these numbers. Images of a class are sorted by name.

    Args:
        root: folder that relative ``folder`` starts from.
        folder: in ``root``, or an absolute path; holds ``wnids.txt``, ``words.txt``, ``train/ID/images/`` and ``val/``.
        roots: further folders that may contain image files and link targets.
        download: True downloads the official archive (237 MB) if ``folder`` does not exist.

    Returns:
        Source with `ImageFiles`, parts ``train`` and ``test``, words as class names and the ids as taxonomy ``wnid``.

    Raises:
        DataError: files are missing, contradict each other, or could not be downloaded.
    """
    base = dataset_folder(root, folder)
    if download and not base.exists():
        fetch("tiny_imagenet", ARCHIVE, base.parent)
    instructions = f"add dataset.download=true; or unpack the official archive there ({ARCHIVE.url})"
    wanted = ["wnids.txt", "words.txt", "train", "val/images", "val/val_annotations.txt"]
    require("tiny_imagenet", base, wanted, instructions)

    wnids = sorted(line.strip() for line in read_lines("tiny_imagenet", base / "wnids.txt"))
    refuse_duplicates("tiny_imagenet", f"an id in {base / 'wnids.txt'}", wnids)
    words = read_mapping("tiny_imagenet", base / "words.txt", ("id", "words"))
    train_paths, train_labels = _train(base, wnids)
    test_paths, test_labels = _test(base, wnids)
    files = ImageFiles.from_paths(base, train_paths + test_paths)
    num_train = len(train_paths)
    parts = {"train": range(num_train), "test": range(num_train, len(files))}
    warn_if_partial("tiny_imagenet", parts, PUBLISHED, len(wnids))
    return Source(
        "tiny_imagenet",
        check_image_files("tiny_imagenet", files, named_in="the folder train and val_annotations.txt", roots=roots),
        np.array(train_labels + test_labels, dtype=np.int64),
        unique_names([words.get(wnid, wnid).partition(",")[0] for wnid in wnids], wnids),
        parts,
        taxonomy={"wnid": tuple(wnids)},
    )


def _train(base: Path, wnids: Sequence[str]) -> tuple[list[str], list[int]]:
    require("tiny_imagenet", base / "train", [f"{wnid}/images" for wnid in wnids])
    paths: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    wrong: list[str] = []
    for label, wnid in enumerate(wnids):
        images = sorted(name for name in os.listdir(base / "train" / wnid / "images") if name.endswith(".JPEG"))
        paths += [f"train/{wnid}/images/{name}" for name in images]
        labels += [label] * len(images)
        empty += [] if images else [wnid]
        # image names begin with the id of the class
        wrong += [f"{wnid}/images/{image}" for image in images if _another_class(image, wnid)]
    if empty:
        raise DataError(
            f"tiny_imagenet: there is no image (.JPEG) in {base / 'train'} of {list_first(empty)}. Unpack the archive "
            "again"
        )
    if wrong:
        raise DataError(
            f"tiny_imagenet: images in {base / 'train'} are named after another class than their folder: "
            f"{list_first(wrong)}. Unpack the archive again"
        )
    return paths, labels


def _another_class(image: str, wnid: str) -> bool:
    """Return whether an image's name begins with the id of another class."""
    named = re.match(r"n\d{8}(?=_)", image)
    return named is not None and named[0] != wnid


def _test(base: Path, wnids: Sequence[str]) -> tuple[list[str], list[int]]:
    file = base / "val" / "val_annotations.txt"
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    annotations = read_mapping("tiny_imagenet", file, ("file", "id"))
    ids = {name: rest.split()[0] for name, rest in annotations.items()}
    unknown = sorted({wnid for wnid in ids.values() if wnid not in label_of})
    if unknown:
        raise DataError(f"tiny_imagenet: {file} has ids that are not in wnids.txt: {list_first(unknown)}")
    return [f"val/images/{name}" for name in ids], [label_of[wnid] for wnid in ids.values()]
