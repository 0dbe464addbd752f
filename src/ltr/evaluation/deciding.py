"""Class thresholds with abstention, and conformal sets, chosen on validation images.

All functions use these arrays: ``probabilities`` [N, C], ``labels`` int64 [N] in [0, C), ``decision`` int64 [N] in
[0, C) or -1 for abstention. The decision is the most probable class if its probability reaches the threshold of the
class. A ``level`` in (0, 1) is one number for all classes, or an array [C].
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ltr.evaluation.averages import mean, ratio

NEVER = float("inf")  # threshold of a class that is never decided
Level = float | np.ndarray


def images_needed(level: float) -> int:
    """Return the smallest number n of images of a class that allows a ``level``: ceil((n + 1) level) <= n."""
    return math.ceil(level / (1 - level) - 1e-9)


def precision_thresholds(probabilities: np.ndarray, labels: np.ndarray, level: Level) -> np.ndarray:
    """Return the lowest threshold of each class at which its decisions have a precision of ``level``, float64 [C].

    It is `NEVER` if no threshold reaches it, or if the class is never the most probable one. Equal probabilities get
    the same decision.
    """
    predicted, highest = _predictions(probabilities)
    thresholds = np.full(probabilities.shape[1], NEVER)
    levels = np.broadcast_to(level, len(thresholds))
    for label in range(probabilities.shape[1]):
        chosen = predicted == label
        order = np.argsort(-highest[chosen], kind="stable")
        values, hits = highest[chosen][order], (labels[chosen] == label)[order]
        if not len(values):
            continue
        precision = np.cumsum(hits) / np.arange(1, len(values) + 1)
        is_last_of_ties = np.append(values[1:] < values[:-1], True)
        reached = np.flatnonzero(is_last_of_ties & (precision >= levels[label] - 1e-12))
        if reached.size:
            thresholds[label] = values[reached[-1]]
    return thresholds


def recall_thresholds(probabilities: np.ndarray, labels: np.ndarray, level: Level) -> np.ndarray:
    """Return the highest threshold of each class at which its recall is ``level``, float64 [C].

    It is 0 if all predictions of a class together do not reach the level.
    """
    predicted, highest = _predictions(probabilities)
    thresholds = np.zeros(probabilities.shape[1])
    levels = np.broadcast_to(level, len(thresholds))
    for label in range(probabilities.shape[1]):
        of_class = labels == label
        hits = np.sort(highest[of_class & (predicted == label)])[::-1]
        needed = math.ceil(levels[label] * int(of_class.sum()) - 1e-9)
        if 0 < needed <= len(hits):
            thresholds[label] = hits[needed - 1]
    return thresholds


def conformal_thresholds(probabilities: np.ndarray, labels: np.ndarray, level: Level) -> np.ndarray:
    """Return the smallest probability with which each class enters a set, float64 [C].

    This is class-conditional split conformal prediction (Vovk, 2012; Sadinle, Lei and Wasserman, JASA 2019): the
    ceil((n + 1) level)-th highest probability of the true class among the n images of a class. If these images and new
    ones are exchangeable, the set of a new image contains its class with a probability of at least ``level``.

    Raises:
        ValueError: a class has fewer images than `images_needed`.
    """
    thresholds = np.empty(probabilities.shape[1])
    levels = np.broadcast_to(level, len(thresholds))
    for label in range(probabilities.shape[1]):
        of_class = np.sort(probabilities[labels == label, label].astype(np.float64))[::-1]
        rank = math.ceil((len(of_class) + 1) * levels[label] - 1e-9)
        if not 1 <= rank <= len(of_class):
            needed = images_needed(levels[label])
            raise ValueError(f"class {label} has {len(of_class)} images; a level of {levels[label]} needs {needed}")
        thresholds[label] = of_class[rank - 1]
    return thresholds


def class_decisions(predicted: np.ndarray, highest: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the decision of each image, int64 [N].

    Args:
        predicted: int64 [N], the most probable class.
        highest: [N], its probability.
        thresholds: [C].
    """
    return np.where(highest >= thresholds[predicted], predicted, -1)


def decide(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the decision of each image from all probabilities, int64 [N]."""
    return class_decisions(*_predictions(probabilities), thresholds)


def decision_metrics(
    decision: np.ndarray, labels: np.ndarray, num_classes: int, background: int | None
) -> dict[str, Any]:
    """Return coverage, precision, recall, accuracy of decided images, and per-class arrays.

    Returns:
        ``coverage`` (share of images with a decision), ``accuracy`` (of these), ``precision`` and ``recall`` (means
        over classes that have a value), ``false_alarms_per_thousand`` (background images decided as another class; NaN
        without background), and ``per_class`` with ``n decided precision recall`` [C].
    """
    decided = decision >= 0
    n, chosen = (np.bincount(values, minlength=num_classes) for values in (labels, decision[decided]))
    hits = np.bincount(labels[decision == labels], minlength=num_classes)
    precision, recall = ratio(hits, chosen), ratio(hits, n)
    false_alarms = float("nan")
    if background is not None:
        of_background = decision[labels == background]
        alarms = ((of_background >= 0) & (of_background != background)).sum()
        false_alarms = 1000 * float(ratio(alarms, np.int64(len(of_background))))
    return {
        "coverage": mean(decided),
        "accuracy": mean((decision == labels)[decided]),
        "precision": mean(precision[~np.isnan(precision)]),
        "recall": mean(recall[~np.isnan(recall)]),
        "false_alarms_per_thousand": false_alarms,
        "per_class": {"n": n, "decided": chosen, "precision": precision, "recall": recall},
    }


def set_metrics(probabilities: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> dict[str, Any]:
    """Return ``coverage`` (share of sets with the label), ``size`` (mean), and ``per_class`` coverage [C]."""
    members = probabilities >= thresholds
    covered = members[np.arange(len(labels)), labels]
    size = probabilities.shape[1]
    n, hits = (np.bincount(values, minlength=size) for values in (labels, labels[covered]))
    return {"coverage": mean(covered), "size": mean(members.sum(axis=1)), "per_class": {"coverage": ratio(hits, n)}}


def _predictions(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the most probable class of each image (the first one for ties), and its probability."""
    predicted = probabilities.argmax(axis=1)
    return predicted, probabilities[np.arange(len(probabilities)), predicted]
