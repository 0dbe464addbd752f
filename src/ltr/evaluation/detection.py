"""Detection of unknown images by a score, at every threshold at once: AUROC, AUPR, FPR at 95 % TPR, OSCR.

All metrics are integer counts from one sort of all scores and depend only on their order: see `ltr.evaluation.ranking`.
Images with equal scores pass a threshold together, and a tie between a pair counts as half a pair, so that no metric
depends on the order of the images. The exception is `oscr_arpl`, which reproduces published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ltr.evaluation.ranking import Array, as_bool, as_numpy, refuse_nan


@dataclass(frozen=True, eq=False)
class OperatingPoints:
    """Cumulative counts of known and unknown images at every distinct score, each of which is a threshold.

    An image is accepted if its score is at least the threshold.

    Attributes:
        thresholds: distinct scores float64 [T], ascending.
        known_up_to: int64 [T], number of known images whose score is at most the threshold.
        unknown_up_to: int64 [T], number of unknown images whose score is at most the threshold.
        correct_up_to: int64 [T], number of correctly classified known images whose score is at most the threshold;
            None without ``correct``.
    """

    thresholds: np.ndarray
    known_up_to: np.ndarray
    unknown_up_to: np.ndarray
    correct_up_to: np.ndarray | None = None

    @cached_property
    def known(self) -> np.ndarray:
        """Number of known images with exactly this score, int64 [T]."""
        return _steps(self.known_up_to)

    @cached_property
    def unknown(self) -> np.ndarray:
        """Number of unknown images with exactly this score, int64 [T]."""
        return _steps(self.unknown_up_to)

    @cached_property
    def correct(self) -> np.ndarray:
        """Number of correctly classified known images with exactly this score, int64 [T].

        Raises:
            ValueError: the points were counted without ``correct``.
        """
        if self.correct_up_to is None:
            raise ValueError("OSCR needs to know which known images are classified correctly: pass correct=.")
        return _steps(self.correct_up_to)

    @cached_property
    def known_accepted(self) -> np.ndarray:
        """Number of known images whose score is at least the threshold, int64 [T]."""
        return self.num_known - self.known_up_to + self.known

    @cached_property
    def unknown_accepted(self) -> np.ndarray:
        """Number of unknown images whose score is at least the threshold, int64 [T]."""
        return self.num_unknown - self.unknown_up_to + self.unknown

    @property
    def num_known(self) -> int:
        return int(self.known_up_to[-1]) if len(self.thresholds) else 0

    @property
    def num_unknown(self) -> int:
        return int(self.unknown_up_to[-1]) if len(self.thresholds) else 0

    @property
    def one_sided(self) -> bool:
        """True if there are no known or no unknown images, so that there is nothing to compare."""
        return not (self.num_known and self.num_unknown)


def operating_points(known: Array, unknown: Array, correct: Array | None = None) -> OperatingPoints:
    """Count the images of every score.

    Args:
        known: scores [n] of known images; higher is more known.
        unknown: scores [m] of unknown images.
        correct: bool [n], True for correctly classified known images.

    Raises:
        ValueError: a score is NaN.
    """
    first, second = as_numpy(known), as_numpy(unknown)
    scores = np.concatenate([first, second])
    order = np.argsort(scores)
    ascending = refuse_nan(scores[order])
    last = np.empty(len(scores), dtype=bool)  # True for the last image of each distinct score
    last[-1:] = True
    np.not_equal(ascending[1:], ascending[:-1], out=last[:-1])
    ends = np.flatnonzero(last)
    known_up_to = np.cumsum((order < len(first)).view(np.int8), dtype=np.int64)[ends]
    correct_up_to = None
    if correct is not None:
        right = np.zeros(len(scores), dtype=np.int8)
        right[: len(first)] = as_bool(correct)
        correct_up_to = np.cumsum(right[order], dtype=np.int64)[ends]
    return OperatingPoints(ascending[ends].astype(np.float64), known_up_to, ends + 1 - known_up_to, correct_up_to)


def _steps(up_to: np.ndarray) -> np.ndarray:
    """Return the increments of a running count [T]."""
    return np.diff(up_to, prepend=0)


def _pairs(points: OperatingPoints, winners: np.ndarray) -> float:
    """Return the share of pairs (known, unknown) whose known image is a winner and scores higher; a tie is half."""
    if points.one_sided:
        return float("nan")
    doubled = 2 * int(np.dot(winners, points.unknown_up_to)) - int(np.dot(winners, points.unknown))
    return doubled / (2 * points.num_known * points.num_unknown)


def auroc(points: OperatingPoints) -> float:
    """Return P(a known image scores higher than an unknown one) + P(equal) / 2; NaN if either kind is missing.

    It is the area under the ROC curve, independent of which kind is the positive one.
    """
    return _pairs(points, points.known)


def oscr(points: OperatingPoints) -> float:
    """Return the area under the open-set classification rate curve (Dhamija et al., NeurIPS 2018), in rank form.

    It is P(a known image is classified correctly and scores above an unknown one), with ties counted half: the
    trapezoid area under correct classification rate over false positive rate. It is at most `auroc`, and equal to it if
    every known image is classified correctly. For the numbers of published code see `oscr_arpl`.

    Raises:
        ValueError: the points were counted without ``correct``.
    """
    return _pairs(points, points.correct)


def oscr_arpl(known: Array, unknown: Array, correct: Array) -> float:
    """Return OSCR as computed by the code of ARPL, for comparison with numbers published with it.

    That code counts correctly classified images from the index after a threshold but unknown images from the threshold
    on, and adds the end point (1, 1). The result is too low by about 1 / (number of images) and depends on the order of
    equal scores; here known images precede unknown ones, so that equal scores give 0 instead of half the accuracy.
    """
    first, second = as_numpy(known), as_numpy(unknown)
    if not (len(first) and len(second)):
        return float("nan")
    order = np.argsort(np.concatenate([first, second]), kind="stable")
    right, unseen = np.zeros((2, len(order)), dtype=bool)
    right[: len(first)], unseen[len(first) :] = as_bool(correct), True
    right_from, unknown_from = (np.cumsum(kind[order][::-1])[::-1] for kind in (right, unseen))
    rate = np.concatenate([[1.0], right_from[1:] / len(first), [0.0]])
    false = np.concatenate([[1.0], unknown_from[:-1] / len(second), [0.0]])
    return float(np.trapezoid(rate[::-1], false[::-1]))


def aupr_known(points: OperatingPoints) -> float:
    """Return the average precision with known images as positives and high scores first (step-wise, no trapezoids)."""
    return _average_precision(points.known, points.known_accepted, points.unknown_accepted, points)


def aupr_unknown(points: OperatingPoints) -> float:
    """Return the average precision with unknown images as positives and low scores first (step-wise)."""
    return _average_precision(points.unknown, points.unknown_up_to, points.known_up_to, points)


def _average_precision(
    gained: np.ndarray, positive: np.ndarray, negative: np.ndarray, points: OperatingPoints
) -> float:
    """Return the sum over thresholds of the gain in recall times the precision."""
    if points.one_sided:
        return float("nan")
    return float(np.dot(gained, positive / (positive + negative)) / gained.sum())


def fpr95_id_pos(points: OperatingPoints) -> float:
    """Return the share of unknown images accepted at the highest threshold that accepts 95 % of the known ones."""
    if points.one_sided:
        return float("nan")
    tpr = points.known_accepted[::-1] / points.num_known
    return int(points.unknown_accepted[::-1][np.searchsorted(tpr, 0.95)]) / points.num_unknown


def fpr95_ood_pos(points: OperatingPoints) -> float:
    """Return the share of known images rejected at the lowest threshold that rejects 95 % of the unknown ones."""
    if points.one_sided:
        return float("nan")
    tpr = points.unknown_up_to / points.num_unknown
    return int(points.known_up_to[np.searchsorted(tpr, 0.95)]) / points.num_known


def detection_accuracy(points: OperatingPoints) -> float:
    """Return the mean of the shares of accepted known and rejected unknown images at the best threshold, >= 0.5."""
    if points.one_sided:
        return float("nan")
    balance = points.known_accepted / points.num_known - points.unknown_accepted / points.num_unknown
    return (1 + max(0.0, float(balance.max()))) / 2


def threshold_at_tpr(known: Array, tpr: float = 0.95) -> float:
    """Return the highest threshold that accepts this share of known images; NaN without images.

    Args:
        known: scores [n] of known images.
        tpr: share in (0, 1].
    """
    ascending = refuse_nan(np.sort(as_numpy(known)))
    n = len(ascending)
    if not n:
        return float("nan")
    return float(ascending[n - 1 - np.searchsorted(np.arange(1, n + 1) / n, tpr)])


def roc_curve(points: OperatingPoints) -> tuple[np.ndarray, np.ndarray]:
    """Return the accepted shares of unknown (x) and known (y) images, float64 [T + 1] from (0, 0) to (1, 1)."""
    return _from_zero(points.unknown, points.num_unknown), _from_zero(points.known, points.num_known)


def oscr_curve(points: OperatingPoints) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of accepted unknown (x) and of accepted, correctly classified known images (y).

    Both are float64 [T + 1]. The right end is the closed-set accuracy, not 1.
    """
    return _from_zero(points.unknown, points.num_unknown), _from_zero(points.correct, points.num_known)


def _from_zero(counts: np.ndarray, total: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts[::-1])]) / max(total, 1)
