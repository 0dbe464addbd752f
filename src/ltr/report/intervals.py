"""Paired bootstrap intervals and paired tests of two methods on the same test images.

The intervals and `mcnemar` treat the test images as a sample from a larger set: they say whether a difference would
hold for other images. Only `sign_flip_p_value` covers the variation over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ltr.errors import DataError
from ltr.randomness import generator

BOOTSTRAP_SAMPLES = 2000
_MAX_RANDOM_NUMBERS = 4_000_000  # in memory at once


@dataclass(frozen=True)
class Interval:
    """Difference of two means (fractions) with its confidence interval."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    difference: np.ndarray,
    labels: np.ndarray,
    *,
    balanced: bool = False,
    level: float = 0.95,
    samples: int = BOOTSTRAP_SAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of the mean of ``difference`` over resampled test images.

    Both methods are evaluated on the same resampled images, so the difficulty that they share cancels.

    Args:
        difference: float64 [N], in [-1, 1]: correctness by the first method minus correctness by the second, per image.
        labels: int64 [N].
        balanced: use the mean of class means and resample within classes, which keeps the class counts; otherwise the
            mean over images, resampled from all images.
        level: confidence level, in (0, 1).
        samples: number of bootstrap samples.
        seed: seed of the resampling; equal seeds resample the same images for every pair of methods.

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
    random = generator("paired bootstrap", seed, samples)
    means = np.empty(samples)
    rows = max(1, _MAX_RANDOM_NUMBERS // len(values))
    for start in range(0, samples, rows):
        stop = min(start + rows, samples)
        chosen = first + (random.random((stop - start, len(values))) * size).astype(np.int64)
        means[start:stop] = values[chosen] @ weight
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values @ weight), float(low), float(high))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar, 1947).

    Args:
        only_first: images that only the first method classifies correctly.
        only_second: images that only the second method classifies correctly; the other images do not count.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def paired_p_value(difference: np.ndarray) -> float:
    """Return the two-sided p-value of the hypothesis that neither method is correct more often.

    If each difference d is -1, 0 or 1 (one run against one), this is McNemar's exact test. Otherwise (means over seeds)
    it is the normal approximation sum d / sqrt(sum d^2), the large-sample limit of a sign-flip test.
    """
    nonzero = difference[difference != 0]
    if np.isin(nonzero, (-1.0, 1.0)).all():
        return mcnemar(int((nonzero > 0).sum()), int((nonzero < 0).sum()))
    z = float(nonzero.sum()) / math.sqrt(float((nonzero**2).sum()))
    return math.erfc(abs(z) / math.sqrt(2))


def sign_flip_p_value(differences: Sequence[float]) -> float:
    """Return the two-sided sign-flip p-value over seeds: the share of all 2^n sign patterns that are as extreme.

    It is at least 2 / 2^n, so that five seeds cannot reach 0.05. NaN without a pair, or with more than 20 pairs, whose
    2^n patterns are too many.
    """
    values = [value for value in differences if value == value]
    if not values or len(values) > 20:
        return math.nan
    magnitudes = np.abs(np.asarray(values))
    observed = abs(math.fsum(values))
    patterns = np.array(list(product((-1.0, 1.0), repeat=len(values))))
    return float((np.abs(patterns @ magnitudes) >= observed * (1 - 1e-12)).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm (1979) for several comparisons; NaN stays NaN and does not count."""
    order = sorted((index for index, p in enumerate(p_values) if p == p), key=lambda index: p_values[index])
    adjusted = list(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class Hits:
    """Correctness of each test image.

    Attributes:
        ids: int64 [N], ascending.
        labels: int64 [N].
        correct: float64 [N], in [0, 1]: share of the runs that classified the image correctly.
        runs: number of runs.
    """

    ids: np.ndarray
    labels: np.ndarray
    correct: np.ndarray
    runs: int

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


def hits_of(tables: Sequence[Mapping[str, np.ndarray]], where: str) -> Hits:
    """Return the correctness of each test image, averaged over one or more runs.

    Args:
        tables: columns ``id, label, prediction`` each; images without a label of the split (-1) are left out.
        where: name of the line, for messages.

    Raises:
        DataError: the runs were not evaluated on the same images.
    """
    hits: list[Hits] = []
    for columns in tables:
        ids, labels = np.asarray(columns["id"], np.int64), np.asarray(columns["label"], np.int64)
        correct = (np.asarray(columns["prediction"], np.int64) == labels).astype(np.float64)
        order = np.argsort(ids, kind="stable")
        order = order[labels[order] >= 0]
        hits.append(Hits(ids[order], labels[order], correct[order], 1))
    for later in hits[1:]:
        check_same_images(hits[0], later, where)
    return Hits(hits[0].ids, hits[0].labels, np.mean([run_hits.correct for run_hits in hits], axis=0), len(hits))


def check_same_images(first: Hits, second: Hits, where: str) -> None:
    """Raise DataError unless both hold the same images with the same labels."""
    if not (np.array_equal(first.ids, second.ids) and np.array_equal(first.labels, second.labels)):
        raise DataError(
            f"{where}: the runs were evaluated on different test images ({len(first.ids):,} and {len(second.ids):,}), "
            "so they cannot be compared image by image. Compare runs of one split"
        )
