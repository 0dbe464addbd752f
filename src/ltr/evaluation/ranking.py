"""Rankings of one class against all other images: exact average precision, R-precision, precision at k.

Results depend only on the order of scores, which may be probabilities, logits or distances. Scores are compared as
float32 or float64 numbers and never pass a sigmoid, which would make large ones equal; counts are integers and their
ratios float64. Images with equal scores pass a threshold together.

A class has few images among very many, so that only the scores of its images are used as thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from torch import Tensor

Array: TypeAlias = np.ndarray | Tensor

_BLOCK = 16  # columns that are transposed together: one cache line in float32


def as_numpy(values: Array) -> np.ndarray:
    """Return numbers on the host as float32 or float64; other types are widened without loss."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values if values.dtype.itemsize > 2 else values.float()).numpy()
    array = np.asarray(values)
    if array.dtype in (np.float32, np.float64):
        return array
    return array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)


def as_bool(values: Array) -> np.ndarray:
    """Return values as bool on the host."""
    return np.asarray(values.detach().cpu().numpy() if isinstance(values, Tensor) else values, dtype=bool)


def refuse_nan(ascending: np.ndarray) -> np.ndarray:
    """Return sorted scores unchanged.

    Raises:
        ValueError: a score is NaN.
    """
    if len(ascending) and np.isnan(ascending[-1]):  # sorting puts NaN last
        raise ValueError("Scores that are NaN have no rank.")
    return ascending


@dataclass(frozen=True, eq=False)
class RankedPositives:
    """Ranks of the images of one class among all images, ordered by the score of the class.

    Attributes:
        ascending: scores of all images [N], ascending.
        scores: scores [P] of the images of the class, descending.
        hits: int64 [P], number of images of the class with at least this score.
        above: int64 [P], number of all images with at least this score.
    """

    ascending: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    above: np.ndarray

    def average_precision(self) -> float:
        """Return the sum over thresholds of (gain in recall) x precision, as in scikit-learn; NaN without positives."""
        return float((self.hits / self.above).mean()) if len(self.scores) else float("nan")

    def precision_at(self, k: int) -> float:
        """Return the share of the class among the k highest scores; NaN without positives or with fewer images.

        If equal scores are on both sides of rank k, it is the mean over their orders.
        """
        if not (len(self.scores) and 1 <= k <= len(self.ascending)):
            return float("nan")
        last = self.ascending[-k]
        higher = len(self.ascending) - int(np.searchsorted(self.ascending, last, side="right"))
        equal = len(self.ascending) - int(np.searchsorted(self.ascending, last)) - higher
        hits, tied = int((self.scores > last).sum()), int((self.scores == last).sum())
        return (hits + (k - higher) / equal * tied) / k

    def r_precision(self) -> float:
        """Return `precision_at` k for k the number of images of the class."""
        return self.precision_at(len(self.scores))

    def recall_at_precision(self, precision: float) -> float:
        """Return the largest recall at a precision of at least ``precision``; 0 if none, NaN without positives."""
        if not len(self.scores):
            return float("nan")
        return int(self.hits[self.hits / self.above >= precision].max(initial=0)) / len(self.scores)

    def curve(self, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
        """Return recall and precision [<= points] at images of the class, evenly thinned, including both ends.

        Between two of these images the precision only decreases.
        """
        keep = np.unique(np.linspace(0, len(self.scores) - 1, min(points, len(self.scores))).round().astype(int))
        return self.hits[keep] / max(len(self.scores), 1), self.hits[keep] / self.above[keep]


def ranked_positives(scores: np.ndarray, positives: np.ndarray) -> RankedPositives:
    """Rank one class.

    It sorts scores instead of images, and counts at positives only, which suffices for all metrics here and is faster
    than a full curve.

    Args:
        scores: [N], higher means more likely the class.
        positives: positions of the images of the class, int64 [P].

    Raises:
        ValueError: a score is NaN.
    """
    of_class = np.sort(scores[positives])
    ascending = refuse_nan(np.sort(scores))
    above = len(ascending) - np.searchsorted(ascending, of_class)
    hits = len(of_class) - np.searchsorted(of_class, of_class)
    return RankedPositives(ascending, of_class[::-1], hits[::-1], above[::-1])


def ranked_columns(batches: list[Tensor] | list[np.ndarray], labels: np.ndarray) -> Iterator[RankedPositives]:
    """Yield the ranking of every class c: images ordered by column c of the scores, with those labelled c as positives.

    A few columns at a time are concatenated, which bounds the extra memory.

    Args:
        batches: scores [B_i, C].
        labels: int64 [sum of B_i]; labels outside [0, C) belong to no class.
    """
    order = np.argsort(labels, kind="stable")
    classes = batches[0].shape[1] if batches else 0
    starts = np.searchsorted(labels[order], np.arange(classes + 1))
    for start in range(0, classes, _BLOCK):
        block = [as_numpy(batch[:, start : start + _BLOCK]) for batch in batches]
        columns = np.ascontiguousarray(np.concatenate(block).T)
        for c, column in enumerate(columns, start=start):
            yield ranked_positives(column, order[starts[c] : starts[c + 1]])


def average_precision(scores: Array, positive: Array) -> float:
    """Return the average precision of one class: scores [N], positive bool [N]; NaN without positives."""
    return ranked_positives(as_numpy(scores), np.flatnonzero(as_bool(positive))).average_precision()


def average_precisions(scores: Array, labels: Array) -> np.ndarray:
    """Return the average precision of each class against all other images, float64 [C]; NaN without images.

    Args:
        scores: [N, C].
        labels: int64 [N]; labels outside [0, C) belong to no class.
    """
    array = np.asarray(labels.detach().cpu().numpy() if isinstance(labels, Tensor) else labels)
    batches: list[np.ndarray] = [as_numpy(scores)]
    return np.array([ranking.average_precision() for ranking in ranked_columns(batches, array)])
