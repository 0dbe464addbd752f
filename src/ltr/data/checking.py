"""Whether every image of a table of image files can be decoded, in parallel processes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ltr.data.decode import MAX_PIXELS, decoded
from ltr.data.parallel import in_parallel
from ltr.data.source import ImageFiles
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
) -> list[BadImage]:
    """Decode every image; those that fail.

    Args:
        workers: processes.
        max_pixels: larger images count as bad and are not decoded.
        progress: told how many more images have been looked at.

    Raises:
        DataError: a process was killed.
    """
    bad: list[BadImage] = []
    work = partial(_reasons, exif=files.exif, max_pixels=max_pixels)
    start = 0
    for reasons in in_parallel(work, _pieces(files), workers):
        found = enumerate(reasons, start=start)
        bad += [BadImage(index, files.relative(index), reason) for index, reason in found if reason is not None]
        start += len(reasons)
        progress(len(reasons))
    return bad


def write_exclusions(path: Path, bad: Sequence[BadImage]) -> None:
    """One path a line, as the data set names it; an empty file where nothing is bad."""
    with written_atomically(path) as temporary, open(temporary, "wb") as file:
        file.writelines(os.fsencode(image.path) + b"\n" for image in bad)


def _pieces(files: ImageFiles) -> Iterator[list[str]]:
    for start in range(0, len(files), _AT_A_TIME):
        yield [files.path(index) for index in range(start, min(start + _AT_A_TIME, len(files)))]


def _reasons(paths: list[str], *, exif: bool, max_pixels: int) -> list[str | None]:
    with warnings.catch_warnings():
        # Pillow warns at half of what it refuses; here there is one bound
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return [_reason(path, exif, max_pixels) for path in paths]


def _reason(path: str, exif: bool, max_pixels: int) -> str | None:
    try:
        decoded(path, exif=exif, max_pixels=max_pixels)
    except Exception as error:  # decoders raise whatever they like for a damaged file
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None
