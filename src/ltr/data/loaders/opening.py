"""Check of image files by header and ending, so that a damaged file is reported before training starts."""

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

from ltr.data.images.checking import BadImage, describe_error, inspect_image
from ltr.data.images.decode import (
    Notes,
    has_alpha,
    has_more_frames,
    has_sixteen_bits,
    has_wide_colour,
    open_image,
    refuse_too_many_pixels,
)
from ltr.data.images.tally import SHOWN, Tally
from ltr.data.loaders.readers import iterate_batches, unchanged
from ltr.data.packed_images.reading import PackedImages
from ltr.data.source import Decoding, ImageFiles, Source
from ltr.data.split import SPLIT_PARTS, Split
from ltr.errors import DataError

_AT_A_TIME = 64
_SIXTEEN_AT_A_TIME = 2  # 16-bit images per piece that are decoded for the range of their values
_MORE_SIXTEEN = 64  # further 16-bit images that are decoded if those are all dark
_ALPHA_AT_A_TIME = 8  # images with an alpha channel per piece that are decoded; most such channels are opaque
FEW = 2000  # largest number of files that are opened in this process, because starting workers takes longer
_TAIL = 64  # bytes of padding that a file may have after its end
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # other formats are rare and are decoded

_opened: set[bytes] = set()  # digests of the file sets checked in this process: the runs of a sweep share them


Shown = Callable[[int], AbstractContextManager[Callable[[int], object]]]


class OpeningResult(NamedTuple):
    """Result of the check: files that cannot be read, and a tally of the readable ones."""

    bad: list[BadImage]
    tally: Tally


def open_files(
    files: ImageFiles,
    indices: np.ndarray,
    *,
    workers: int = 0,
    dataset: Mapping[str, Any] | None = None,
    progress: Callable[[int], object] = lambda number: None,
) -> OpeningResult:
    """Open image files and decode only those whose ending looks truncated.

    Args:
        files: image files of a source.
        indices: int64 [n] into ``files``.
        workers: number of processes; 0 opens the files in this process.
        dataset: the dataset config, for advice in messages.
        progress: called with the number of files opened since the last call.

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
        collate_fn=unchanged,
        generator=torch.Generator(),  # without it torch's loader uses the global generator
    )
    for piece, results in iterate_batches(loader):
        for index, result in zip(piece.tolist(), results):
            if isinstance(result, str):
                bad.append(BadImage(index, files.relative(index), result))
            else:
                tally.add(files.relative(index), result)
                if result.highest == -1:
                    unread.append(index)
        progress(len(piece))
    _decode_more_sixteen_bit(files, unread, tally)
    return OpeningResult(bad, tally)


def _decode_more_sixteen_bit(files: ImageFiles, unread: list[int], tally: Tally) -> None:
    """Decode more 16-bit images, spread over the whole set, until one uses the upper half of the values."""
    for index in unread[:: max(1, -(-len(unread) // _MORE_SIXTEEN))]:
        if not tally.may_be_low:
            return
        notes = inspect_image(files.path(index), files.decoding)
        if isinstance(notes, Notes) and notes.highest is not None:
            tally.add_highest(files.relative(index), notes.highest)


class _Openings(Dataset):
    """Dataset of the workers that maps indices to the outcomes of opening."""

    def __init__(self, files: ImageFiles) -> None:
        self.files = files

    def __getitem__(self, piece: np.ndarray) -> tuple[np.ndarray, list[str | Notes]]:
        budget = _Budget(_SIXTEEN_AT_A_TIME, _ALPHA_AT_A_TIME)
        with warnings.catch_warnings():
            # Pillow warns at half of its limit; only the limit matters here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return piece, [_open(self.files.path(index), self.files.decoding, budget) for index in piece.tolist()]


@dataclass
class _Budget:
    """Remaining numbers of images of a piece that may be decoded for their values and their transparency."""

    sixteen: int
    alpha: int


def _open(path: str, decoding: Decoding, budget: _Budget) -> str | Notes:
    """Return the reason why a file cannot be read, or notes from its header."""
    try:
        with open_image(path) as image:
            refuse_too_many_pixels(image)
            sixteen = has_sixteen_bits(image)
            alpha = has_alpha(image) and not sixteen
            is_worth_decoding = (sixteen and budget.sixteen > 0) or (alpha and budget.alpha > 0)
            if _ends_well(path, image) and not is_worth_decoding and image.mode != "F":
                return Notes(
                    highest=-1 if sixteen else None,
                    wide_colour=has_wide_colour(image),
                    transparent=None if alpha else False,
                    frames=has_more_frames(image, path),
                )
        budget.sixteen -= sixteen
        budget.alpha -= alpha
    except Exception as error:  # decoders raise errors of any type for damaged files
        return describe_error(error)
    notes = inspect_image(path, decoding)
    if isinstance(notes, Notes):
        notes.constant = None  # only `ltr-data check`, which decodes all images, reports constant images
    return notes


def _ends_well(path: str, image: Image.Image) -> bool:
    """Return whether a file ends like a complete one; False if only decoding can tell."""
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
    """Open every image file that a run trains on or evaluates, once per process.

    Args:
        workers: see `open_files`.
        dataset: the dataset config.
        may_skip: True allows other images of the class to replace unreadable training images
            (``trainer.on_error=skip``).
        shown: function that shows the progress over a number of files; used for many files.

    Returns:
        Peculiarities of the files, one line each.

    Raises:
        DataError: files can neither be read nor replaced; the message has their number and the first ten.
    """
    files = source.images
    if not isinstance(files, ImageFiles) or isinstance(files, PackedImages):
        return []
    indices = np.unique(np.concatenate([getattr(split, part) for part in SPLIT_PARTS]))
    key = repr((files.root, source.fingerprint, may_skip)).encode() + indices.tobytes()
    if key in _opened:
        return []
    with shown(len(indices)) if len(indices) > FEW else nullcontext(lambda number: None) as progress:
        result = open_files(files, indices, workers=workers, dataset=dataset, progress=progress)
    _refuse_bad(source, split, result.bad, dataset, may_skip)
    _opened.add(key)
    return result.tally.lines()


def _refuse_bad(source: Source, split: Split, bad: list[BadImage], dataset: Mapping[str, Any], may_skip: bool) -> None:
    if not bad:
        return
    numbers = np.array([image.number for image in bad])
    is_evaluated = np.isin(numbers, np.concatenate([getattr(split, part) for part in SPLIT_PARTS if part != "train"]))
    labels = source.labels[split.train]
    readable = np.bincount(labels[~np.isin(split.train, numbers)], minlength=source.num_classes)
    is_irreplaceable = ~is_evaluated & (readable[source.labels[numbers]] == 0)
    is_fatal = is_evaluated | is_irreplaceable | (not may_skip)
    if not is_fatal.any():
        return
    files = source.images
    assert isinstance(files, ImageFiles)
    chosen = [image for image, counts in zip(bad, is_fatal) if counts]
    kinds = [f"{name} ({int(of.sum()):,})" for name, of in _kinds(is_evaluated, is_irreplaceable, is_fatal) if of.any()]
    advice = "Fetch them again"
    if "exclude" in dataset:
        advice += ", or leave them out: ltr-data check --exclude-to FILE writes the list for dataset.exclude=FILE"
    if not may_skip and not (is_evaluated | is_irreplaceable).any():
        advice += "; trainer.on_error=skip takes other images of their classes"
    raise DataError(
        f"{source.name}: {_count_files(len(chosen))} cannot be read, {', '.join(kinds)}"
        f"{'; the first ten' if len(chosen) > SHOWN else ''}:\n  "
        + "\n  ".join(f"{files.path(image.number)}: {image.reason}" for image in chosen[:SHOWN])
        + f"\n{advice}. (trainer.check_files=false skips this check)"
    )


def _count_files(number: int) -> str:
    return "1 image file" if number == 1 else f"{number:,} image files"


def _kinds(evaluated: np.ndarray, alone: np.ndarray, fatal: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "evaluated", evaluated
    yield "with no other image of the class", alone
    yield "trained on", fatal & ~evaluated & ~alone
