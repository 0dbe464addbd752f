"""Opens image files before anything is trained: a header and an ending each, so that a broken one costs no epochs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ltr.data.checking import BadImage, describe_error, inspect_image
from ltr.data.decode import (
    Notes,
    has_alpha,
    has_more_frames,
    has_sixteen_bits,
    has_wide_colour,
    open_image,
    refuse_too_many_pixels,
)
from ltr.data.packed import PackedImages
from ltr.data.readers import batches_of
from ltr.data.source import Decoding, ImageFiles, Source
from ltr.data.split import INDEX_ARRAYS, Split
from ltr.data.tally import SHOWN, Tally
from ltr.errors import DataError

_AT_A_TIME = 64
_SIXTEEN_AT_A_TIME = 2  # of a piece's 16-bit images, so many are decoded to know the range of their values
_MORE_SIXTEEN = 64  # so many of the others are decoded where those are all dark
_ALPHA_AT_A_TIME = 8  # of a piece's images with an alpha channel, so many are decoded: most such channels hide nothing
FEW = 2000  # so many files are opened in this process: starting others takes longer
_TAIL = 64  # bytes that a file may have behind its end: padding
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # other formats are rare, and decoded

_opened: set[bytes] = set()  # sets of files that this process has opened: the runs of a sweep share them


Shown = Callable[[int], AbstractContextManager[Callable[[int], object]]]


class Opened(NamedTuple):
    """What opening found: files that cannot be read, and what stands out in the others."""

    bad: list[BadImage]
    tally: Tally


def open_files(
    files: ImageFiles,
    indices: np.ndarray,
    *,
    workers: int = 0,
    dataset: Mapping[str, Any] | None = None,
    progress: Callable[[int], object] = lambda number: None,
) -> Opened:
    """Open image files without decoding them; only a file whose ending looks cut off is decoded to be certain.

    Args:
        indices: int64 [n] into ``files``.
        workers: processes; 0 opens in this one.
        dataset: the data set's config, for advice.
        progress: told how many more files have been opened.

    Raises:
        RuntimeError: a worker process was killed.
    """
    bad: list[BadImage] = []
    tally = Tally(files.decoding, dataset)
    pieces = [indices[start : start + _AT_A_TIME] for start in range(0, len(indices), _AT_A_TIME)]
    unread: list[int] = []  # 16-bit images that were not decoded
    loader = DataLoader(
        _Openings(files),
        batch_size=None,
        sampler=pieces,
        num_workers=workers if len(indices) > FEW else 0,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # its own: torch's loader would draw from the global one
    )
    for piece, results in batches_of(loader):
        for index, result in zip(piece.tolist(), results):
            if isinstance(result, str):
                bad.append(BadImage(index, files.relative(index), result))
            else:
                tally.add(files.relative(index), result)
                if result.highest == -1:
                    unread.append(index)
        progress(len(piece))
    _look_for_brighter(files, unread, tally)
    return Opened(bad, tally)


def _look_for_brighter(files: ImageFiles, unread: list[int], tally: Tally) -> None:
    """Decode more 16-bit images, from the whole set, until one uses the upper half of the values."""
    for index in unread[:: max(1, -(-len(unread) // _MORE_SIXTEEN))]:
        if not tally.may_be_low:
            return
        found = inspect_image(files.path(index), files.decoding)
        if isinstance(found, Notes) and found.highest is not None:
            tally.add_highest(files.relative(index), found.highest)


class _Openings(Dataset):
    """Indices to what was found; lives in the workers."""

    def __init__(self, files: ImageFiles) -> None:
        self.files = files

    def __getitem__(self, piece: np.ndarray) -> tuple[np.ndarray, list[str | Notes]]:
        budget = _Budget(_SIXTEEN_AT_A_TIME, _ALPHA_AT_A_TIME)
        with warnings.catch_warnings():
            # Pillow warns at half of what it refuses; here there is one bound
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return piece, [_open(self.files.path(index), self.files.decoding, budget) for index in piece.tolist()]


@dataclass
class _Budget:
    """How many more images of a piece may be decoded for their values, and for their transparency."""

    sixteen: int
    alpha: int


def _open(path: str, how: Decoding, budget: _Budget) -> str | Notes:
    """Why a file cannot be read, or what its header says."""
    try:
        with open_image(path) as image:
            refuse_too_many_pixels(image)
            sixteen = has_sixteen_bits(image)
            alpha = has_alpha(image) and not sixteen
            worth = (sixteen and budget.sixteen > 0) or (alpha and budget.alpha > 0)
            if _ends_well(path, image) and not worth and image.mode != "F":
                return Notes(
                    highest=-1 if sixteen else None,
                    wide_colour=has_wide_colour(image),
                    transparent=None if alpha else False,
                    frames=has_more_frames(image, path),
                )
        budget.sixteen -= sixteen
        budget.alpha -= alpha
    except Exception as error:  # decoders raise whatever they like for a damaged file
        return describe_error(error)
    found = inspect_image(path, how)
    if isinstance(found, Notes):
        found.constant = None  # for `ltr-data check`, which decodes all
    return found


def _ends_well(path: str, image: Image.Image) -> bool:
    """Whether the file ends as a whole one does; False where only decoding can tell."""
    if image.format == "WEBP":
        with open(path, "rb") as file:
            return int.from_bytes(file.read(8)[4:], "little") + 8 <= os.path.getsize(path)
    ending = _ENDS.get(image.format or "")
    if ending is None:
        return False
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _TAIL, 0))
        return file.read().rstrip(b"\0\r\n ").endswith(ending)


def check_files(
    source: Source,
    split: Split,
    *,
    workers: int,
    dataset: Mapping[str, Any],
    may_skip: bool,
    shown: Shown = lambda total: nullcontext(lambda number: None),
) -> list[str]:
    """Open every image file that a run trains on or evaluates, once in a process.

    Args:
        workers: see `open_files`.
        dataset: the data set's config.
        may_skip: another image of the class may take the place of a training image (``trainer.on_error=skip``).
        shown: the progress of so many files, where it takes long.

    Returns:
        What stands out in the files, a line each.

    Raises:
        DataError: files that cannot be read and that nothing can replace: how many, and the first ten.
    """
    files = source.images
    if not isinstance(files, ImageFiles) or isinstance(files, PackedImages):
        return []
    indices = np.unique(np.concatenate([getattr(split, part) for part in INDEX_ARRAYS]))
    key = repr((files.root, source.fingerprint, may_skip)).encode() + indices.tobytes()
    if key in _opened:
        return []
    with shown(len(indices)) if len(indices) > FEW else nullcontext(lambda number: None) as progress:
        found = open_files(files, indices, workers=workers, dataset=dataset, progress=progress)
    _refuse_bad(source, split, found.bad, dataset, may_skip)
    _opened.add(key)
    return found.tally.lines()


def _refuse_bad(source: Source, split: Split, bad: list[BadImage], dataset: Mapping[str, Any], may_skip: bool) -> None:
    if not bad:
        return
    numbers = np.array([image.number for image in bad])
    evaluated = np.isin(numbers, np.concatenate([getattr(split, part) for part in INDEX_ARRAYS if part != "train"]))
    labels = source.labels[split.train]
    readable = np.bincount(labels[~np.isin(split.train, numbers)], minlength=source.num_classes)
    alone = ~evaluated & (readable[source.labels[numbers]] == 0)
    fatal = evaluated | alone | (not may_skip)
    if not fatal.any():
        return
    files = source.images
    assert isinstance(files, ImageFiles)
    chosen = [image for image, counts in zip(bad, fatal) if counts]
    where = [f"{name} ({int(of.sum()):,})" for name, of in _kinds(evaluated, alone, fatal) if of.any()]
    advice = "Fetch them again"
    if "exclude" in dataset:
        advice += ", or leave them out: ltr-data check --exclude-to FILE writes the list for dataset.exclude=FILE"
    if not may_skip and not (evaluated | alone).any():
        advice += "; trainer.on_error=skip takes other images of their classes"
    raise DataError(
        f"{source.name}: {_counted(len(chosen))} cannot be read, {', '.join(where)}"
        f"{'; the first ten' if len(chosen) > SHOWN else ''}:\n  "
        + "\n  ".join(f"{files.path(image.number)}: {image.reason}" for image in chosen[:SHOWN])
        + f"\n{advice}. (trainer.check_files=false does not look before training)"
    )


def _counted(number: int) -> str:
    return "1 image file" if number == 1 else f"{number:,} image files"


def _kinds(evaluated: np.ndarray, alone: np.ndarray, fatal: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "evaluated", evaluated
    yield "with no other image of the class", alone
    yield "trained on", fatal & ~evaluated & ~alone


def _as_it_is(sample: Any) -> Any:
    return sample
