"""Near-duplicates (bursts, resized or cropped copies) in training and test, by a perceptual hash or by features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ltr.data.images.decode import to_image
from ltr.data.parallel import map_in_parallel
from ltr.data.source import Decoding, ImageFiles, Source
from ltr.data.split import Split
from ltr.errors import DataError

MAX_DISTANCE = 7  # two hashes of at most this distance agree in at least one of the bands
MAX_PAIRS = 1_000_000
_BANDS = 8  # bands of 16 bits in a hash
_ROWS, _COLUMNS = 512, 65_536  # block of the matrix of feature distances that is computed at a time
_ROUNDING = 1e-6  # tolerance for rounding in float32 products
_AT_A_TIME = 32
_CONTRAST = 8  # in grey levels; an image with less contrast has no structure to compare


class Pair(NamedTuple):
    """Two images that look alike.

    Attributes:
        train, test: indices into the source.
        distance: number of different bits of their hashes, 0 to `MAX_DISTANCE`; or cosine distance of their features,
            0 to 2.
    """

    train: int
    test: int
    distance: float


def find_near_duplicates(
    source: Source,
    split: Split,
    *,
    distance: int = 4,
    workers: int = 1,
    progress: Callable[[int], object] = lambda number: None,
) -> list[Pair]:
    """Return the pairs of a training (or validation) and a test image whose hashes differ in at most ``distance`` bits.

    The hash is a difference hash in both directions: an image is reduced to 9 x 9 grey values, and 64 + 64 bits tell
    whether each is brighter than its left and its upper neighbour. Images without contrast, and files that cannot be
    read, match no image.

    Args:
        distance: largest number of different bits, 0 to `MAX_DISTANCE`.
        workers: number of processes that read files.
        progress: called with the number of images hashed since the last call.

    Returns:
        Pairs in order of the test image, then of the distance.
    """
    train, test = parts_to_compare(split)
    indices = np.concatenate([train, test])
    hashes, is_hashed = _hashes(source, indices, workers, progress)
    trained, tested = is_hashed[: len(train)], is_hashed[len(train) :]
    pairs = _close_pairs(hashes[: len(train)][trained], hashes[len(train) :][tested], distance)
    train, test = train[trained], test[tested]
    named = [Pair(int(train[one]), int(test[other]), bits) for one, other, bits in pairs]
    return sorted(named, key=lambda pair: (pair.test, pair.distance, pair.train))


def parts_to_compare(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the training and validation images, and of the test and unknown images."""
    return np.concatenate([split.train, split.val]), np.concatenate([split.test, split.unknown])


def find_near_duplicates_by_features(
    train: np.ndarray, train_features: np.ndarray, test: np.ndarray, test_features: np.ndarray, *, distance: float
) -> list[Pair]:
    """Return the pairs of a training and a test image whose features have at most this cosine distance.

    Args:
        train, test: indices of the images into the source, int64 [n] and [m].
        train_features, test_features: float [n, D] and [m, D]. Rows of zeros match no row.
        distance: largest cosine distance, 1 minus the cosine, from 0 to 2.

    Returns:
        Pairs in order of the test image, then of the distance.

    Raises:
        DataError: there are more than `MAX_PAIRS` pairs.
    """
    known, tested = _unit_rows(train_features), _unit_rows(test_features)
    pairs: list[Pair] = []
    for start in range(0, len(tested), _ROWS):
        for first in range(0, len(known), _COLUMNS):
            distances = 1 - tested[start : start + _ROWS] @ known[first : first + _COLUMNS].T
            rows, columns = np.nonzero(distances <= distance + _ROUNDING)  # False for NaN, from rows of zeros
            if len(pairs) + len(rows) > MAX_PAIRS:
                raise DataError(
                    f"more than {MAX_PAIRS:,} pairs of images have features within {distance:g}. Choose a smaller "
                    "--distance"
                )
            close = np.maximum(distances[rows, columns], 0).tolist()
            pairs += map(Pair, train[first + columns].tolist(), test[start + rows].tolist(), close)
    return sorted(pairs, key=lambda pair: (pair.test, pair.distance, pair.train))


def _unit_rows(features: np.ndarray) -> np.ndarray:
    """Return float32 rows of length 1; NaN for rows of zeros."""
    values = features.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def _hashes(
    source: Source, indices: np.ndarray, workers: int, progress: Callable[[int], object]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes uint16 [n, 8], and a mask of the images that have one."""
    images = source.images
    pieces = [indices[start : start + _AT_A_TIME] for start in range(0, len(indices), _AT_A_TIME)]
    take = images.open if isinstance(images, ImageFiles) else images.__getitem__
    opened = ([take(index) for index in piece.tolist()] for piece in pieces)
    hashes = np.zeros((len(indices), _BANDS), dtype=np.uint16)
    is_hashed = np.zeros(len(indices), dtype=bool)
    position = 0
    for piece in map_in_parallel(partial(_hash_all, decoding=source.decoding), opened, workers):
        for value in piece:
            if value is not None:
                hashes[position] = value
                is_hashed[position] = True
            position += 1
        progress(len(piece))
    return hashes, is_hashed


def _hash_all(opened: list[Any], *, decoding: Decoding) -> list[np.ndarray | None]:
    return [_hash(one, decoding) for one in opened]


def _hash(opened: Any, decoding: Decoding) -> np.ndarray | None:
    try:
        image = to_image(opened, decoding)
    except Exception:  # decoders raise errors of any type; `ltr-data check` reports the files
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
