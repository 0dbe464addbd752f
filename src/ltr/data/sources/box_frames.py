"""Boxes in pixels of an annotation file, as fractions of the decoded images, checked against the files' headers.

Tools write width and height, and boxes, either of the upright photograph or of the pixels as they are stored, which
differ by the EXIF orientation. The size tells which of the two a file means.
"""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltr.data.images.decode import open_image
from ltr.data.images.orientation import orientation, stored_size
from ltr.data.source import ImageFiles
from ltr.names import counted, list_first

ALL = 20_000  # files whose headers are always read, in a few seconds
_THREADS = 8  # network disks answer slowly
_AT_A_TIME = 4096


class BoxFractions(NamedTuple):
    """Boxes in fractions of the decoded images.

    Attributes:
        boxes: float64 [labels, 4].
        mismatches: rows of images whose size in the annotations has another shape than their file, int64 [n].
        shown: path and both sizes of each mismatch, for messages.
        remarks: sentences about the file.
    """

    boxes: np.ndarray
    mismatches: np.ndarray
    shown: list[str]
    remarks: list[str]


def relative_boxes(
    name: str, file: Path, files: ImageFiles, sizes: np.ndarray, images: np.ndarray, boxes: np.ndarray, exif: bool
) -> BoxFractions:
    """Convert boxes in pixels to fractions, and turn those of stored pixels with their image.

    The headers of `ALL` images, spread over the set, are compared with the sizes; those of all images if one of them
    is turned by EXIF or has another shape. A size of the same shape is accepted, because images may be resized.

    Args:
        file: the annotation file.
        sizes: int32 [images, 2] width and height in the annotations, 0 where they are unknown.
        images: int64 [labels], the image of each label.
        boxes: float64 [labels, 4] in pixels; NaN without a box.
        exif: True if the decoded images are upright, False if they are as stored.
    """
    rows = np.unique(images[~np.isnan(boxes[:, 0])])
    written = sizes[rows].astype(np.int64)
    is_known = (written > 0).all(axis=1)
    headers = _read_headers(files, rows, is_known, written)
    stored, turns = headers[:, :2], headers[:, 2]
    upright = np.where(turns[:, None] >= 5, stored[:, ::-1], stored)
    is_stored, is_upright = _fits(written, stored), _fits(written, upright)
    is_exact = [(written == of).all(axis=1) for of in (stored, upright)]
    is_decided = is_exact[0] != is_exact[1]
    is_stored, is_upright = np.where(is_decided, is_exact, (is_stored, is_upright))
    is_read = turns > 0
    is_mismatch = is_known & is_read & ~is_stored & ~is_upright
    is_unclear = (turns > 1) & (~is_known | (is_stored & is_upright))
    says_stored, says_upright = is_read & is_stored & ~is_upright, is_read & is_upright & ~is_stored
    in_stored = np.where(is_unclear, not exif, is_stored & ~is_upright)
    if says_stored.any() != says_upright.any():  # the tool that wrote the file treats all photographs alike
        in_stored[is_unclear] = says_stored.any()
    elif is_unclear.any():
        _warn(name, file, files, rows[is_unclear], exif)
    sides = np.where(is_known[:, None], written, np.where(in_stored[:, None], stored, upright))
    row_of = np.zeros(len(sizes), dtype=np.int64)
    row_of[rows] = np.arange(len(rows))
    of_label = row_of[images]
    if len(rows):
        boxes = boxes / np.tile(np.where(sides > 0, sides, 1.0)[of_label], 2)
    differs = (turns > 1) & (in_stored == exif)
    for turn in np.unique(turns[differs]).tolist():
        chosen = (differs & (turns == turn))[of_label]
        boxes[chosen] = turned_boxes(boxes[chosen], turn if exif else {6: 8, 8: 6}.get(turn, turn))
    remarks = []
    if differs.any():
        frame = "as stored in the file" if exif else "upright"
        remarks.append(
            f"boxes of {counted(int(differs.sum()), 'photograph')} are of the image {frame}, as width and height in "
            f"{file.name} show, and are turned with the image"
        )
    shown = [
        f"{files.relative(row)} ({width} x {height} in {file.name}, {size[0]} x {size[1]} in the image)"
        for row, (width, height), size in zip(
            rows[is_mismatch].tolist(),
            written[is_mismatch].tolist(),
            (upright if exif else stored)[is_mismatch].tolist(),
        )
    ]
    return BoxFractions(boxes, rows[is_mismatch], shown, remarks)


def turned_boxes(boxes: np.ndarray, turn: int) -> np.ndarray:
    """Return boxes [n, 4] in fractions of the stored image as fractions of the upright one.

    Args:
        turn: EXIF orientation, 1 to 8.
    """
    left, top, width, height = boxes.T
    right, bottom = 1 - left - width, 1 - top - height  # distances from the right and the lower side
    turned = {
        1: (left, top),
        2: (right, top),
        3: (right, bottom),
        4: (left, bottom),
        5: (top, left),
        6: (bottom, left),
        7: (bottom, right),
        8: (top, right),
    }[turn]
    return np.stack([*turned, *((height, width) if turn >= 5 else (width, height))], axis=1)


def _read_headers(files: ImageFiles, rows: np.ndarray, is_known: np.ndarray, written: np.ndarray) -> np.ndarray:
    """Return stored width, stored height and orientation of images, int64 [n, 3]; 0 for those that are not read."""
    headers = np.zeros((len(rows), 3), dtype=np.int64)
    first = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), ALL)).astype(np.int64))
    is_first = ~is_known  # their size is needed
    is_first[first] = True
    _read(files, rows, np.flatnonzero(is_first), headers)
    is_read = headers[:, 2] > 0
    if (headers[:, 2] > 1).any() or (is_read & is_known & ~_fits(written, headers[:, :2])).any():
        _read(files, rows, np.flatnonzero(~is_first), headers)
    return headers


def _read(files: ImageFiles, rows: np.ndarray, chosen: np.ndarray, headers: np.ndarray) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(chosen), _AT_A_TIME):
            piece = chosen[start : start + _AT_A_TIME]
            headers[piece] = list(pool.map(_header, map(files.path, rows[piece].tolist())))


def _header(path: str) -> tuple[int, int, int]:
    """Return stored width, stored height and orientation; zeros if a file is unreadable, which decoding reports."""
    try:
        with open_image(path) as image:
            return *stored_size(image), orientation(image)
    except Exception:  # decoders raise errors of any type for damaged files
        return 0, 0, 0


def _fits(written: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return a mask of the sizes [n, 2] with the shape of the written ones, up to the rounding of a resizing."""
    difference = np.abs(written[:, 0] * sizes[:, 1] - written[:, 1] * sizes[:, 0])
    return difference <= np.maximum(written.sum(axis=1), sizes.sum(axis=1))


def _warn(name: str, file: Path, files: ImageFiles, rows: np.ndarray, exif: bool) -> None:
    """Warn of photographs whose size does not show whether boxes are of the upright or of the stored image."""
    frame = "upright image" if exif else "image as stored in the file"
    warnings.warn(
        f"{name}: {counted(rows.size, 'photograph')} with an EXIF orientation: width and height in {file} do not show "
        f"whether their boxes are of the upright image, and they are read as of the {frame}: "
        f"{list_first((files.relative(row) for row in rows.tolist()), 3)}. Look at their crops, or write width and "
        "height of the image that the boxes were drawn on",
        stacklevel=5,
    )
