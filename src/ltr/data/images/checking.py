"""Parallel check that all image files of a source can be decoded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ltr.data.images.decode import MAX_PIXELS, Notes, decode_image
from ltr.data.images.tally import Tally, constant_value
from ltr.data.parallel import map_in_parallel
from ltr.data.source import Decoding, ImageFiles
from ltr.files import written_atomically

_AT_A_TIME = 32


class BadImage(NamedTuple):
    """Image that cannot be decoded, with the reason."""

    number: int  # index into the source
    path: str  # path in the data set, relative to its root
    reason: str


def find_bad_images(
    files: ImageFiles,
    *,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int], object] = lambda number: None,
    tally: Tally | None = None,
) -> list[BadImage]:
    """Decode every image and return those that fail.

    Args:
        files: the images.
        workers: number of processes.
        max_pixels: larger images count as bad and are not decoded.
        progress: called with the number of images checked since the last call.
        tally: counts peculiarities of the images that can be decoded.

    Raises:
        DataError: a process was killed.
    """
    work = partial(_inspect_all, decoding=files.decoding, max_pixels=max_pixels)
    return collect_failures(map_in_parallel(work, _pieces(files), workers), files, progress, tally)


def collect_failures(
    pieces: Iterable[Sequence[str | Notes]],
    files: ImageFiles,
    progress: Callable[[int], object],
    tally: Tally | None = None,
) -> list[BadImage]:
    """Return the images that cannot be decoded, and count peculiarities of the rest.

    Args:
        pieces: outcome of every image in order: the reason of a failure, or notes.
        files: the images.
        progress, tally: see `find_bad_images`.
    """
    bad: list[BadImage] = []
    index = 0
    for piece in pieces:
        for outcome in piece:
            if isinstance(outcome, str):
                bad.append(BadImage(index, files.relative(index), outcome))
            elif tally is not None:
                tally.add(files.relative(index), outcome)
            index += 1
        progress(len(piece))
    return bad


def write_exclusions(path: Path, bad: Sequence[BadImage]) -> None:
    """Write one path of the data set per line; the file is empty if no image is bad."""
    with written_atomically(path) as temporary, open(temporary, "wb") as file:
        file.writelines(os.fsencode(path) + b"\n" for path in dict.fromkeys(image.path for image in bad))


def _pieces(files: ImageFiles) -> Iterator[list[Any]]:
    for start in range(0, len(files), _AT_A_TIME):
        yield [files.open(index) for index in range(start, min(start + _AT_A_TIME, len(files)))]


def _inspect_all(opened: list[Any], *, decoding: Decoding, max_pixels: int) -> list[str | Notes]:
    with warnings.catch_warnings():
        # Pillow warns at half of its limit; only `max_pixels` matters here
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return [inspect_image(one, decoding, max_pixels) for one in opened]


def inspect_image(opened: Any, decoding: Decoding, max_pixels: int = MAX_PIXELS) -> str | Notes:
    """Decode one image; return the reason of a failure, or notes on peculiarities."""
    notes = Notes()
    try:
        notes.constant = constant_value(np.asarray(decode_image(opened, decoding, max_pixels=max_pixels, notes=notes)))
    except Exception as error:  # decoders raise errors of any type for damaged files
        return describe_error(error)
    return notes


def describe_error(error: Exception) -> str:
    """Return a decoder's error as one non-empty line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
