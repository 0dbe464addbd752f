"""Whether every image of a table of image files can be decoded, in parallel processes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ltr.data.decode import MAX_PIXELS, Notes, decoded
from ltr.data.parallel import in_parallel
from ltr.data.source import Decoding, ImageFiles
from ltr.data.tally import Tally, constant_value
from ltr.files import written_atomically

_AT_A_TIME = 32


class BadImage(NamedTuple):
    """An image that cannot be trained on, and why."""

    number: int  # index into the source
    path: str  # as the data set names it, relative to its root
    reason: str


def bad_images(
    files: ImageFiles,
    *,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int], object] = lambda number: None,
    tally: Tally | None = None,
) -> list[BadImage]:
    """Decode every image; those that fail.

    Args:
        workers: processes.
        max_pixels: larger images count as bad and are not decoded.
        progress: told how many more images have been looked at.
        tally: counts what stands out in the others.

    Raises:
        DataError: a process was killed.
    """
    work = partial(_looked_at, how=files.decoding, max_pixels=max_pixels)
    return collected(in_parallel(work, _pieces(files), workers), files, progress, tally)


def collected(
    pieces: Iterable[Sequence[str | Notes]],
    files: ImageFiles,
    progress: Callable[[int], object],
    tally: Tally | None = None,
) -> list[BadImage]:
    """Return the images that failed, from the outcome of every image in order; count what stands out in the others.

    Args:
        pieces: of each image why it failed, or what was noticed in it.
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
    """One path a line, as the data set names it; an empty file where nothing is bad."""
    with written_atomically(path) as temporary, open(temporary, "wb") as file:
        file.writelines(os.fsencode(image.path) + b"\n" for image in bad)


def _pieces(files: ImageFiles) -> Iterator[list[str]]:
    for start in range(0, len(files), _AT_A_TIME):
        yield [files.path(index) for index in range(start, min(start + _AT_A_TIME, len(files)))]


def _looked_at(paths: list[str], *, how: Decoding, max_pixels: int) -> list[str | Notes]:
    with warnings.catch_warnings():
        # Pillow warns at half of what it refuses; here there is one bound
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return [look_at(path, how, max_pixels) for path in paths]


def look_at(opened: Any, how: Decoding, max_pixels: int = MAX_PIXELS) -> str | Notes:
    """Decode one image: why that fails, or what stands out in it."""
    notes = Notes()
    try:
        notes.constant = constant_value(np.asarray(decoded(opened, how, max_pixels=max_pixels, notes=notes)))
    except Exception as error:  # decoders raise whatever they like for a damaged file
        return reason_of(error)
    return notes


def reason_of(error: Exception) -> str:
    """A decoder's error in one line; never empty."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
