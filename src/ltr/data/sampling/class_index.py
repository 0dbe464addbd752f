"""Training images by class, and the array operations of the samplers.

The operations are vectorised over images and classes, and support up to 2^32 of each.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ltr.errors import DataError
from ltr.names import list_first

RANDOM_BITS = 24  # minimum of random bits in a sort key; ties, which keep their order, are then rare enough


@dataclass(frozen=True, eq=False)
class ClassIndex:
    """Training images by class: class c has ``order[starts[c]:starts[c] + counts[c]]``.

    Attributes:
        order: int64 [N], positions in the train array, class by class, ascending inside a class.
        starts: int64 [C].
        counts: int64 [C].
    """

    order: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def from_labels(cls, labels: np.ndarray, num_classes: int) -> ClassIndex:
        """Build the index from the labels [N] of the train array; warn of classes without images.

        Raises:
            DataError: there are no images, labels are not integers, or a label is outside [0, num_classes).
        """
        labels = np.asarray(labels)
        if labels.size and (labels.dtype.kind not in "iu" or labels.ndim != 1):
            raise DataError(
                f"training labels of type {labels.dtype} and shape {list(labels.shape)}; allowed are class numbers of "
                "an integer type, one for each image. Convert them, as in labels.astype(int)"
            )
        if labels.size == 0:
            raise DataError("there is no training image to sample: the split's train array is empty")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise DataError(f"training labels run from {labels.min()} to {labels.max()}, outside 0..{num_classes - 1}")
        counts = np.bincount(labels, minlength=num_classes)
        empty = np.flatnonzero(counts == 0)
        if empty.size:
            warnings.warn(
                f"{empty.size} of {num_classes} classes have no training image (labels {list_first(empty)}): samplers "
                "skip them",
                stacklevel=2,
            )
        return cls(stable_order(labels), np.cumsum(counts) - counts, counts)

    def __len__(self) -> int:
        return len(self.order)


def sample_classes(probabilities: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Sample classes independently, by inversion with a lookup table instead of a binary search per sample."""
    edges = np.cumsum(probabilities)
    edges /= edges[-1]
    slots = 1 << (16 * len(edges)).bit_length()
    first_class = np.searchsorted(edges, np.arange(slots) / slots, side="right")
    uniform = rng.random(size)
    classes = first_class[(uniform * slots).astype(np.int64)]
    # only few samples belong to a later class than the one at the start of their slot
    beyond = np.flatnonzero(uniform >= edges[classes])
    classes[beyond] = np.searchsorted(edges, uniform[beyond], side="right")
    return classes


def image_cycles(index: ClassIndex, visits: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return at least ``visits`` [C] images of each class, in shuffled rounds.

    Returns:
        (images, offsets [C]): the k-th image of class c is ``images[offsets[c] + k]``, a position in the train array.
    """
    rounds = -(-visits // np.maximum(index.counts, 1))
    round_class = np.repeat(np.arange(len(visits)), rounds)
    lengths = index.counts[round_class]
    images = np.repeat(index.starts[round_class], lengths)
    images += shuffled_ranges(lengths, rng)
    offsets = np.cumsum(rounds * index.counts) - rounds * index.counts
    return index.order[images], offsets


def shuffled_ranges(lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random permutation of 0 .. n-1 for each length n, concatenated: int64 [sum of lengths]."""
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    groups = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    numbers = np.arange(total) - np.repeat(ends - lengths, lengths)
    group_bits = (len(lengths) - 1).bit_length()
    number_bits = (int(lengths.max()) - 1).bit_length()
    if group_bits + number_bits > 64 - RANDOM_BITS:
        return numbers[np.lexsort((rng.random(total), groups))]
    # sorting keys of (group, random bits, number) is several times faster than an argsort
    low = np.uint64((1 << number_bits) - 1)
    keys = rng.integers(0, 2**64, size=total, dtype=np.uint64)
    keys >>= np.uint64(group_bits)
    keys &= ~low
    if group_bits:
        groups <<= np.uint64(64 - group_bits)
        keys |= groups
    keys |= numbers.view(np.uint64)
    keys.sort()
    keys &= low
    return keys.view(np.int64)


def stable_order(values: np.ndarray) -> np.ndarray:
    """Return the stable argsort of ``values`` (non-negative integers below 2^32)."""
    keys = values.astype(np.uint64) << np.uint64(32)
    keys |= np.arange(len(values), dtype=np.uint64)
    keys.sort()
    keys &= np.uint64(0xFFFFFFFF)
    return keys.astype(np.int64)
