"""Near-duplicate images in training and test, by a perceptual hash: bursts, other sizes, other compression."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ltr.data.images.decode import decode_image, to_rgb
from ltr.data.parallel import map_in_parallel
from ltr.data.source import Decoding, ImageFiles, Source
from ltr.data.split import Split

BITS = 128
MAX_DISTANCE = 7  # so that two hashes of at most this distance agree in one of the bands
_BANDS = 8  # of 16 bits
_AT_A_TIME = 32
_CONTRAST = 8  # grey levels; an image below it has no structure to compare


class Pair(NamedTuple):
    """Two images that look alike.

    Attributes:
        train, test: indices into the source.
        distance: different bits of their hashes, 0 to `MAX_DISTANCE`.
    """

    train: int
    test: int
    distance: int


def near_duplicates(
    source: Source,
    split: Split,
    *,
    distance: int = 4,
    workers: int = 1,
    progress: Callable[[int], object] = lambda number: None,
) -> list[Pair]:
    """Return the pairs of a training (or validation) and a test image whose hashes differ in at most ``distance`` bits.

    The hash is a difference hash in both directions: an image is reduced to 9 x 9 grey values, and 64 + 64 bits say
    whether each is brighter than its left and its upper neighbour. Images without contrast, and files that cannot be
    read, equal nothing.

    Args:
        distance: from 0 to `MAX_DISTANCE`.
        workers: number of processes that read files.
        progress: called with the number of images hashed since the last call.

    Returns:
        Pairs in order of the test image, then of the distance.
    """
    train = np.concatenate([split.train, split.val])
    test = np.concatenate([split.test, split.unknown])
    indices = np.concatenate([train, test])
    hashes, is_hashed = _hashes(source, indices, workers, progress)
    trained, tested = is_hashed[: len(train)], is_hashed[len(train) :]
    pairs = _close_pairs(hashes[: len(train)][trained], hashes[len(train) :][tested], distance)
    train, test = train[trained], test[tested]
    named = [Pair(int(train[one]), int(test[other]), bits) for one, other, bits in pairs]
    return sorted(named, key=lambda pair: (pair.test, pair.distance, pair.train))


def _hashes(
    source: Source, indices: np.ndarray, workers: int, progress: Callable[[int], object]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes uint16 [n, 8], and a mask of the images that have one."""
    images = source.images
    pieces = [indices[start : start + _AT_A_TIME] for start in range(0, len(indices), _AT_A_TIME)]
    if isinstance(images, ImageFiles):
        opened: Iterator[list[Any]] = ([images.open(int(index)) for index in piece] for piece in pieces)
    else:
        opened = ([images[index] for index in piece] for piece in pieces)
    hashes = np.zeros((len(indices), _BANDS), dtype=np.uint16)
    is_hashed = np.zeros(len(indices), dtype=bool)
    position = 0
    for piece in map_in_parallel(partial(_hash_all, how=source.decoding), opened, workers):
        for value in piece:
            if value is not None:
                hashes[position] = value
                is_hashed[position] = True
            position += 1
        progress(len(piece))
    return hashes, is_hashed


def _hash_all(opened: list[Any], *, how: Decoding) -> list[np.ndarray | None]:
    return [_hash(one, how) for one in opened]


def _hash(opened: Any, how: Decoding) -> np.ndarray | None:
    try:
        if isinstance(opened, np.ndarray):
            image = to_rgb(Image.fromarray(opened[..., 0] if opened.shape[-1] == 1 else opened))
        else:
            image = opened if isinstance(opened, Image.Image) else decode_image(opened, how)
    except Exception:  # decoders raise errors of any type; the check of files names them
        return None
    return perceptual_hash(np.asarray(image.convert("L").resize((9, 9), Image.Resampling.BOX)))


def perceptual_hash(grey: np.ndarray) -> np.ndarray | None:
    """Return the hash of 9 x 9 grey values as uint16 [8]; None without contrast."""
    levels = grey.astype(np.int16)
    if levels.max() - levels.min() < _CONTRAST:
        return None
    bits = np.concatenate([(levels[:8, 1:] > levels[:8, :-1]).ravel(), (levels[1:, :8] > levels[:-1, :8]).ravel()])
    return np.packbits(bits).view(np.uint16)


def _close_pairs(train: np.ndarray, test: np.ndarray, distance: int) -> Iterator[tuple[int, int, int]]:
    """Yield (row of train, row of test, distance) of all close pairs, once each.

    Two hashes that differ in fewer bits than there are bands agree in one band; only such pairs are compared.
    """
    seen: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        order = np.argsort(train[:, band], kind="stable")
        ascending = train[order, band]
        first = np.searchsorted(ascending, test[:, band], side="left")
        last = np.searchsorted(ascending, test[:, band], side="right")
        for row in np.flatnonzero(last > first).tolist():
            candidates = order[first[row] : last[row]]
            bits = np.bitwise_count(train[candidates] ^ test[row]).sum(axis=1)
            for candidate, difference in zip(candidates.tolist(), bits.tolist()):
                if difference <= distance and (candidate, row) not in seen:
                    seen.add((candidate, row))
                    yield candidate, row, difference
