"""Paired bootstrap intervals and paired tests of two methods on the same test images.

Everything here is about the test images as a sample: had other images been drawn, would the difference still be there?
It says nothing of other seeds, unless several are averaged, and `sign_flips` is about seeds alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ltr.errors import DataError
from ltr.randomness import generator

DRAWS = 2000
_BLOCK = 4_000_000  # random numbers that are held at once


@dataclass(frozen=True)
class Interval:
    """A difference of two means (fractions) with its confidence interval."""

    estimate: float
    low: float
    high: float


def paired_bootstrap(
    difference: np.ndarray,
    labels: np.ndarray,
    *,
    balanced: bool = False,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of the mean of ``difference`` over resampled test images.

    Both methods are evaluated on the same drawn images, so what makes an image hard for both cancels.

    Args:
        difference: float64 [N], of each image: right by the first method less right by the second, in [-1, 1].
        labels: int64 [N].
        balanced: mean of class means, with images drawn within their class (so that each keeps its number of images);
            else the plain mean with images drawn from all.
        level: of confidence, in (0, 1).
        draws: bootstrap samples.
        seed: of the draws; the same seed draws the same images for every pair of methods.

    Raises:
        DataError: there are no images.
    """
    if not len(difference):
        raise DataError("there are no test images to compare on")
    order = np.argsort(labels, kind="stable") if balanced else np.arange(len(labels))
    values = np.asarray(difference, dtype=np.float64)[order]
    if balanced:
        _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    else:
        starts, counts = np.zeros(1, dtype=np.int64), np.array([len(values)])
    first = np.repeat(starts, counts)
    size = np.repeat(counts, counts)
    weight = 1.0 / (np.repeat(counts, counts) * len(counts))  # of an image in the mean of class means
    random = generator("paired bootstrap", seed, draws)
    means = np.empty(draws)
    rows = max(1, _BLOCK // len(values))
    for start in range(0, draws, rows):
        stop = min(start + rows, draws)
        chosen = first + (random.random((stop - start, len(values))) * size).astype(np.int64)
        means[start:stop] = values[chosen] @ weight
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values @ weight), float(low), float(high))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar, 1947).

    Args:
        only_first: images that the first method gets right and the second wrong.
        only_second: the reverse. Images that both get right, or wrong, say nothing.
    """
    total = only_first + only_second
    if total == 0:
        return 1.0
    # log of binomial(total, k) / 2**total for k up to the smaller number
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(min(only_first, only_second) + 1)
    ]
    largest = max(logs)
    tail = math.exp(largest) * math.fsum(math.exp(one - largest) for one in logs)
    return min(1.0, 2 * tail)


def paired_p(difference: np.ndarray) -> float:
    """Return the two-sided p-value of the hypothesis that images favour neither method.

    Where each difference is -1, 0 or 1 (one run against one), McNemar's exact test; else (means over seeds) its normal
    form, sum d / sqrt(sum d^2) as a standard normal, the large-sample limit of flipping the signs of the d at random.
    """
    moved = difference[difference != 0]
    if np.isin(moved, (-1.0, 1.0)).all():
        return mcnemar(int((moved > 0).sum()), int((moved < 0).sum()))
    z = float(moved.sum()) / math.sqrt(float((moved**2).sum()))
    return math.erfc(abs(z) / math.sqrt(2))


def sign_flips(differences: Sequence[float]) -> float:
    """Return the two-sided sign-flip p-value over seeds: the share of all 2^n sign patterns that are as extreme.

    With n seeds it cannot be below 2 / 2^n: five seeds cannot give 0.05. NaN without a pair, or beyond 20 pairs of
    which all sign patterns would be too many.
    """
    values = [value for value in differences if value == value]
    if not values or len(values) > 20:
        return math.nan
    size = np.abs(np.asarray(values))
    observed = abs(math.fsum(values))
    patterns = np.array(list(product((-1.0, 1.0), repeat=len(values))))
    return float((np.abs(patterns @ size) >= observed * (1 - 1e-12)).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm (1979) for several comparisons; NaN stays NaN and is not counted."""
    order = sorted((place for place, p in enumerate(p_values) if p == p), key=lambda place: p_values[place])
    adjusted = list(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


@dataclass(frozen=True)
class Hits:
    """Return the test images that were classified correctly.

    Attributes:
        ids: int64 [N], ascending.
        labels: int64 [N].
        right: float64 [N], in [0, 1]: the share of the runs that got an image right.
        runs: how many there were.
    """

    ids: np.ndarray
    labels: np.ndarray
    right: np.ndarray
    runs: int

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


def hits_of(tables: Sequence[Mapping[str, np.ndarray]], where: str) -> Hits:
    """Return the correctness of each test image, averaged over one or more runs.

    Args:
        tables: columns ``id, label, prediction`` each; images without a label of the split (-1) are left out.
        where: what they are of, for messages.

    Raises:
        DataError: the runs were not evaluated on the same images.
    """
    hits: list[Hits] = []
    for columns in tables:
        ids, labels = np.asarray(columns["id"], np.int64), np.asarray(columns["label"], np.int64)
        right = (np.asarray(columns["prediction"], np.int64) == labels).astype(np.float64)
        order = np.argsort(ids, kind="stable")
        order = order[labels[order] >= 0]
        hits.append(Hits(ids[order], labels[order], right[order], 1))
    for other in hits[1:]:
        check_same_images(hits[0], other, where)
    return Hits(hits[0].ids, hits[0].labels, np.mean([one.right for one in hits], axis=0), len(hits))


def check_same_images(one: Hits, other: Hits, where: str) -> None:
    """Raise DataError unless both have the same images with the same labels."""
    if len(one.ids) != len(other.ids) or not (one.ids == other.ids).all() or not (one.labels == other.labels).all():
        raise DataError(
            f"{where}: their predictions are of different test images ({len(one.ids):,} and {len(other.ids):,}), so "
            "they cannot be compared image by image"
        )
