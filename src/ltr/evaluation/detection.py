"""Known images against unknown ones: how well a score of known-ness tells them apart, at every threshold at once.

Everything is counted from one sort of all scores, in integers, and only their order counts: see
`ltr.evaluation.ranking`. Images with equal scores pass a threshold together, and where pairs are compared a tie is half
a pair, so no metric depends on the order in which images come; `oscr_arpl` alone does, as the code it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltr.evaluation.averages import ratio
from ltr.evaluation.ranking import Array, as_numpy, flags, without_nan


@dataclass(frozen=True, eq=False)
class OperatingPoints:
    """Known and unknown images counted at every threshold that tells any two of them apart.

    Attributes:
        thresholds: the distinct scores [T], descending; an image is accepted if its score is at least the threshold.
        known: int64 [T], known images accepted.
        unknown: int64 [T], unknown images accepted.
        correct: int64 [T], accepted known images whose class is predicted rightly; None where that was not said.
    """

    thresholds: np.ndarray
    known: np.ndarray
    unknown: np.ndarray
    correct: np.ndarray | None = None

    @property
    def num_known(self) -> int:
        return int(self.known[-1]) if len(self.known) else 0

    @property
    def num_unknown(self) -> int:
        return int(self.unknown[-1]) if len(self.unknown) else 0

    @property
    def one_sided(self) -> bool:
        """Whether known or unknown images are missing, so that there is nothing to compare."""
        return not (self.num_known and self.num_unknown)


def operating_points(known: Array, unknown: Array, correct: Array | None = None) -> OperatingPoints:
    """Count what every threshold accepts.

    Args:
        known: scores [n] of known images; higher is more known.
        unknown: scores [m] of unknown images.
        correct: bool [n], whether the known image's class is predicted rightly.

    Raises:
        ValueError: a score is NaN.
    """
    first, second = as_numpy(known), as_numpy(unknown)
    scores = np.concatenate([first, second])
    order = np.argsort(scores)
    ascending = without_nan(scores[order])
    order, descending = order[::-1], ascending[::-1]
    last = np.empty(len(scores), dtype=bool)  # of the images with its score
    last[-1:] = True
    np.not_equal(descending[1:], descending[:-1], out=last[:-1])
    ends = np.flatnonzero(last)
    accepted_known = np.cumsum(order < len(first))[ends]
    right = None
    if correct is not None:
        rightly = np.zeros(len(scores), dtype=bool)
        rightly[: len(first)] = flags(correct)
        right = np.cumsum(rightly[order])[ends]
    return OperatingPoints(descending[ends].astype(np.float64), accepted_known, ends + 1 - accepted_known, right)


def _steps(counts: np.ndarray) -> np.ndarray:
    """What each threshold adds to a running count [T]."""
    return np.diff(counts, prepend=0)


def _pairs(points: OperatingPoints, winners: np.ndarray) -> float:
    """Share of the pairs (known, unknown) in which a counted known image scores higher; a tie is half a pair."""
    if points.one_sided:
        return float("nan")
    below = points.num_unknown - points.unknown
    doubled = int((_steps(winners) * (2 * below + _steps(points.unknown))).sum())
    return doubled / (2 * points.num_known * points.num_unknown)


def auroc(points: OperatingPoints) -> float:
    """P(score of a known image > score of an unknown one) + P(they are equal) / 2; NaN where either kind is missing.

    The area under the ROC curve, whichever kind is called positive.
    """
    return _pairs(points, points.known)


def oscr(points: OperatingPoints) -> float:
    """Area under the open-set classification rate curve (Dhamija et al., NeurIPS 2018), in rank form.

    P(a known image is classified rightly and scores above an unknown one), half of it where the scores are equal: the
    trapezoid area under correct classification rate over false positive rate. At most `auroc`, and equal to it where
    every known image is classified rightly. For the numbers of published code see `oscr_arpl`.

    Raises:
        ValueError: the points were counted without ``correct``.
    """
    return _pairs(points, _correct(points))


def _correct(points: OperatingPoints) -> np.ndarray:
    if points.correct is None:
        raise ValueError("OSCR needs to know which known images are classified rightly: give correct=.")
    return points.correct


def oscr_arpl(known: Array, unknown: Array, correct: Array) -> float:
    """OSCR as the code that circulates with ARPL counts it, to compare with numbers that were published with it.

    It counts the rightly classified from the place after a threshold and the unknown from the threshold on, and adds
    an end at (1, 1). That is too low by about 1 / (number of images) and depends on the order of equal scores, where
    known images stand before unknown ones here: all scores equal give 0 instead of half the accuracy.
    """
    first, second = as_numpy(known), as_numpy(unknown)
    if not (len(first) and len(second)):
        return float("nan")
    order = np.argsort(np.concatenate([first, second]), kind="stable")
    right, unseen = np.zeros((2, len(order)), dtype=bool)
    right[: len(first)], unseen[len(first) :] = flags(correct), True
    right_from, unknown_from = (np.cumsum(kind[order][::-1])[::-1] for kind in (right, unseen))
    rate = np.concatenate([[1.0], right_from[1:] / len(first), [0.0]])
    false = np.concatenate([[1.0], unknown_from[:-1] / len(second), [0.0]])
    return float(np.trapezoid(rate[::-1], false[::-1]))


def aupr_known(points: OperatingPoints) -> float:
    """Average precision with known images as the positive ones and high scores first (step-wise, no trapezoids)."""
    if points.one_sided:
        return float("nan")
    precision = ratio(points.known, points.known + points.unknown)
    return float((_steps(points.known) * precision).sum() / points.num_known)


def aupr_unknown(points: OperatingPoints) -> float:
    """Average precision with unknown images as the positive ones and low scores first (step-wise)."""
    if points.one_sided:
        return float("nan")
    known, unknown = _rejected(points)
    return float((_steps(points.unknown) * ratio(unknown, known + unknown)).sum() / points.num_unknown)


def _rejected(points: OperatingPoints) -> tuple[np.ndarray, np.ndarray]:
    """Known and unknown images [T] whose score is at most the threshold."""
    return (
        points.num_known - points.known + _steps(points.known),
        points.num_unknown - points.unknown + _steps(points.unknown),
    )


def fpr95_id_pos(points: OperatingPoints) -> float:
    """Share of unknown images accepted at the highest threshold that accepts 95 % of the known (known = positive)."""
    if points.one_sided:
        return float("nan")
    place = np.searchsorted(points.known / points.num_known, 0.95)
    return int(points.unknown[place]) / points.num_unknown


def fpr95_ood_pos(points: OperatingPoints) -> float:
    """Share of known images rejected at the lowest threshold that rejects 95 % of the unknown (unknown = positive)."""
    if points.one_sided:
        return float("nan")
    known, unknown = (counts[::-1] for counts in _rejected(points))
    return int(known[np.searchsorted(unknown / points.num_unknown, 0.95)]) / points.num_known


def detection_accuracy(points: OperatingPoints) -> float:
    """The best mean of the shares of known images accepted and unknown ones rejected over all thresholds, >= 0.5."""
    if points.one_sided:
        return float("nan")
    balance = points.known / points.num_known - points.unknown / points.num_unknown
    return (1 + max(0.0, float(balance.max()))) / 2


def threshold_at_tpr(known: Array, tpr: float = 0.95) -> float:
    """The highest threshold that accepts this share of known images; NaN without images.

    Args:
        known: their scores [n].
        tpr: in (0, 1].
    """
    ascending = without_nan(np.sort(as_numpy(known)))
    n = len(ascending)
    if not n:
        return float("nan")
    return float(ascending[n - 1 - np.searchsorted(np.arange(1, n + 1) / n, tpr)])


def roc_curve(points: OperatingPoints) -> tuple[np.ndarray, np.ndarray]:
    """Unknown accepted (x) and known accepted (y), shares float64 [T + 1] from (0, 0) to (1, 1)."""
    return _from_zero(points.unknown, points.num_unknown), _from_zero(points.known, points.num_known)


def oscr_curve(points: OperatingPoints) -> tuple[np.ndarray, np.ndarray]:
    """Unknown accepted (x) and known accepted and rightly classified (y), shares float64 [T + 1].

    The right end is the closed-set accuracy, not 1.
    """
    return _from_zero(points.unknown, points.num_unknown), _from_zero(_correct(points), points.num_known)


def _from_zero(counts: np.ndarray, total: int) -> np.ndarray:
    return np.concatenate([[0], counts]) / max(total, 1)
