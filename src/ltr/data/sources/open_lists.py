"""Text lists with an additional list of images of unknown classes: the open sets of ImageNet-LT and Places-LT."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltr.data.images.decode import WhiteLevel
from ltr.data.source import ImageFiles, Source
from ltr.data.sources.checks import check_image_files, dataset_folder, read_lines, require
from ltr.data.sources.text_lists import position_in_lists, text_lists
from ltr.errors import DataError
from ltr.identity import named

UNKNOWN = "unknown"  # the class of all images of the part `open`


@named("source/open_lists")
def open_lists(
    *,
    name: str,
    root: str,
    folder: str,
    lists: str,
    train: str,
    test: str,
    open: str,
    val: str | None = None,
    roots: Sequence[str] = (),
    exif: bool = False,
    matte: str | None = "auto",
    white_level: WhiteLevel | None = None,
) -> Source:
    """Read a data set of text lists (`text_lists`) with an additional part ``open`` of images of unknown classes.

    All images of the part have the label C, named ``unknown``, after the C classes of the lists. Numbers in the open
    list are ignored and may be missing.

    Args:
        open: list of the images of unknown classes, in the folder ``lists``; its paths also start from ``folder``, and
            its labels are ignored.
        name, root, folder, lists, train, test, val, roots, exif, matte, white_level: see `text_lists`.

    Raises:
        DataError: see `text_lists`; or the open list is empty, or names an image of another list.
    """
    known = text_lists(
        name=name,
        root=root,
        folder=folder,
        lists=lists,
        train=train,
        test=test,
        val=val,
        roots=roots,
        exif=exif,
        matte=matte,
        white_level=white_level,
    )
    base, where = dataset_folder(root, folder), dataset_folder(root, lists)
    require(name, where, [open], "put the published list files there", key="lists")
    paths = _paths(name, where / open)
    files = known.images
    assert isinstance(files, ImageFiles)
    unknown = ImageFiles.from_paths(base, paths)
    labels = np.concatenate([known.labels, np.full(len(unknown), known.num_classes, dtype=np.int64)])
    parts = {**known.parts, "open": range(len(known), len(labels))}
    offsets = np.concatenate([files.offsets, files.offsets[-1] + unknown.offsets[1:]])
    # no file may be repeated: an image of the open list that is in another list would be of a known class
    together = check_image_files(
        name,
        ImageFiles(files.root, files.blob + unknown.blob, offsets, decoding=files.decoding),
        named_in=open,
        roots=roots,
        where=position_in_lists(parts, {"train": train, "val": val or "", "test": test, "open": open}),
    )
    return Source(f"{known.name}_open", together, labels, (*known.class_names, UNKNOWN), parts)


def _paths(name: str, file: Path) -> list[str]:
    """Read the paths of a list without the labels that may follow them."""
    paths = [re.sub(r"\s+-?\d+$", "", line.rstrip()) for line in read_lines(name, file)]
    paths = [path for path in paths if path]
    if not paths:
        raise DataError(f"{name}: {file} is empty; it must list the images of unknown classes")
    return paths
