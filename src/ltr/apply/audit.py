"""Audit of labels: likely label errors by confident learning, outliers, and copies under two labels.

Each class has a separate threshold, because the probabilities of rare classes are low.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltr.apply.acquisition import unit_rows
from ltr.randomness import derive_seed, generator

NEIGHBOURS = 10
COPY_DISTANCE = 1e-4  # images whose features have a smaller cosine distance are copies
_ROWS = 1024  # rows of the distance matrix per block
_STRENGTH = 100.0  # inverse regularisation of the classifier, times the number of images
_DEVIATIONS = 5.0  # bound of outliers: so many robust standard deviations above the median


@dataclass(frozen=True)
class LabelErrors:
    """Outcome of confident learning.

    Attributes:
        is_error: bool [N].
        suggested: int64 [N], the class with the highest class-relative confidence; may be the label itself.
        scores: float64 [N], log ratio of the class-relative confidences of suggestion and label; at least 0.
        thresholds: float64 [C], mean probability of each class over the images with its label; NaN without any.
    """

    is_error: np.ndarray
    suggested: np.ndarray
    scores: np.ndarray
    thresholds: np.ndarray


def label_errors(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    factor: float = 10.0,
    fraction: float = 0.5,
    is_counted: np.ndarray | None = None,
) -> LabelErrors:
    """Find likely label errors by confident learning (Northcutt, Jiang and Chuang, JAIR 2021, sec. 3.1).

    The threshold of a class is the mean probability of the class over the images with its label. The class-relative
    confidence of an image is its probability divided by the threshold. An image is an error if its confidence in
    another class is at least ``fraction``, and at least ``factor`` times that in the class of its label.

    The paper compares the probabilities of the classes whose confidence is 1 or more. Comparing confidences instead
    spares rare classes, whose probabilities are low, and the factor leaves out images that a linear classifier merely
    confuses (docs/audit.md has the numbers).

    Args:
        probabilities: float [N, C] of a model that has not been trained on the image (held-out or out-of-fold).
        labels: int64 [N].
        factor, fraction: see above.
        is_counted: bool [N], images that determine the thresholds; None: all. A class without any is not suggested.
    """
    p = probabilities.astype(np.float64)
    rows, num_classes = np.arange(len(p)), p.shape[1]
    counted_rows = rows if is_counted is None else rows[is_counted]
    counts = np.bincount(labels[counted_rows], minlength=num_classes)
    label_probabilities = p[counted_rows, labels[counted_rows]]
    sums = np.bincount(labels[counted_rows], weights=label_probabilities, minlength=num_classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(np.isnan(thresholds), 0.0, p / np.maximum(thresholds, 1e-12))
    suggested = relative.argmax(axis=1)
    of_label = relative[rows, labels]
    suggested = np.where(relative[rows, suggested] > of_label, suggested, labels)
    best = relative[rows, suggested]
    scores = np.log(np.maximum(best, 1e-12)) - np.log(np.maximum(of_label, 1e-12))
    is_error = (suggested != labels) & (best >= fraction) & (best >= factor * of_label)
    return LabelErrors(is_error, suggested, np.maximum(scores, 0.0), thresholds)


def folds(
    labels: np.ndarray, number: int, seed: int, groups: np.ndarray | None = None, *, role: str = "audit"
) -> np.ndarray:
    """Return the fold of each image, int64 [N]; each class is spread evenly over the folds.

    Args:
        groups: int [N]; the images of a group are in the same fold. None: images are independent.
    """
    fold = np.empty(len(labels), dtype=np.int64)
    if groups is None:
        for label in np.unique(labels).tolist():
            members = np.flatnonzero(labels == label)
            order = generator(seed, role, label).permutation(len(members))
            fold[members[order]] = (np.arange(len(members)) + derive_seed(seed, role, label)) % number
        return fold
    counts = np.zeros((number, int(labels.max(initial=0)) + 1))
    totals = np.maximum(np.bincount(labels), 1)
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    rows_of_group = np.split(np.argsort(inverse, kind="stable"), np.cumsum(sizes)[:-1])
    shuffled = generator(seed, role).permutation(len(sizes))
    for position in shuffled[np.argsort(-sizes[shuffled], kind="stable")].tolist():
        members = rows_of_group[position]
        added = np.bincount(labels[members], minlength=counts.shape[1])
        fullness = ((counts + added) / totals).max(axis=1) + counts.sum(axis=1) / len(labels)
        chosen = int(fullness.argmin())
        fold[members] = chosen
        counts[chosen] += added
    return fold


def out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    number: int = 5,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict each image by a linear classifier that was trained on the other folds.

    The classifier is a multinomial logistic regression on standardised features. It has no class weights, which would
    mark many images of head classes as errors; `label_errors` has class thresholds instead.

    Args:
        features: float [N, D].
        number: number of folds.
        groups: see `folds`.

    Returns:
        (probabilities float32 [N, C], mask bool [N] of the images whose class is in the other folds; a prediction
        cannot be the class of other images).
    """
    from sklearn.linear_model import LogisticRegression

    values = features.astype(np.float32)
    values = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
    fold = folds(labels, number, seed, groups)
    table = np.zeros((len(labels), num_classes), dtype=np.float32)
    is_predictable = np.zeros(len(labels), dtype=bool)
    for held in range(number):
        train, test = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        known = np.unique(labels[train])
        if not len(test) or len(known) < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the solver stops at max_iter
            model = LogisticRegression(C=_STRENGTH / len(train), max_iter=100).fit(values[train], labels[train])
        table[test[:, None], model.classes_[None, :]] = model.predict_proba(values[test])
        is_predictable[test] = np.isin(labels[test], known)
    return table, is_predictable


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours of each image by the cosine of features.

    Attributes:
        distances: float32 [N], mean cosine distance to the nearest images.
        nearest: int64 [N], the nearest image.
        nearest_distance: float32 [N], distance to the nearest image.
    """

    distances: np.ndarray
    nearest: np.ndarray
    nearest_distance: np.ndarray


def neighbours(features: np.ndarray, number: int = NEIGHBOURS) -> Neighbours:
    """Find the nearest neighbours of every image; the matrix of distances is computed in blocks of rows."""
    values = unit_rows(features)
    count = len(values)
    number = min(number, count - 1)
    distances = np.zeros(count, dtype=np.float32)
    nearest = np.zeros(count, dtype=np.int64)
    nearest_distance = np.full(count, np.inf, dtype=np.float32)
    if number < 1:
        return Neighbours(distances, nearest, nearest_distance)
    for start in range(0, count, _ROWS):
        block = 1 - values[start : start + _ROWS] @ values.T
        rows = np.arange(len(block))
        block[rows, start + rows] = np.inf
        closest = np.partition(block, number - 1, axis=1)[:, :number]
        stop = start + len(block)
        distances[start:stop] = closest.mean(axis=1)
        nearest[start:stop] = block.argmin(axis=1)
        nearest_distance[start:stop] = block[rows, nearest[start:stop]]
    return Neighbours(distances, nearest, nearest_distance)


def outliers(distances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a mask of the images that are farther from their neighbours than the bound of their class, bool [N].

    The bound is the median of the class plus 5 * 1.4826 median absolute deviations; for classes of fewer than ten
    images it is at least the bound of all images.
    """
    bound_of_all = _bound(distances)
    is_outlier = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        bound = _bound(distances[members])
        if len(members) < NEIGHBOURS:
            bound = max(bound, bound_of_all)
        is_outlier[members] = distances[members] > bound
    return is_outlier


def _bound(values: np.ndarray) -> float:
    if not len(values):
        return float("inf")
    median = float(np.median(values))
    return median + _DEVIATIONS * 1.4826 * float(np.median(np.abs(values - median))) + 1e-6


@dataclass(frozen=True)
class Audit:
    """Issues of a labelled data set; rows are positions in the audited images.

    Attributes:
        errors: outcome of confident learning; images that could not be predicted are not errors.
        is_predictable: bool [N].
        is_outlier: bool [N].
        neighbours: nearest images.
        is_copy: bool [N], the nearest image is a copy under another label.
    """

    errors: LabelErrors
    is_predictable: np.ndarray
    is_outlier: np.ndarray
    neighbours: Neighbours
    is_copy: np.ndarray

    def issues(self) -> Iterator[dict[str, Any]]:
        """Yield ``row, issue, suggested, score, other`` of each issue: label errors by score, copies, then outliers."""
        wrong = np.flatnonzero(self.errors.is_error)
        for row in wrong[np.argsort(-self.errors.scores[wrong], kind="stable")].tolist():
            suggested, score = int(self.errors.suggested[row]), float(self.errors.scores[row])
            yield {"row": row, "issue": "label", "suggested": suggested, "score": score, "other": -1}
        for row in np.flatnonzero(self.is_copy).tolist():
            other = int(self.neighbours.nearest[row])
            score = 1 - float(self.neighbours.nearest_distance[row])
            yield {"row": row, "issue": "copy", "suggested": -1, "score": score, "other": other}
        far = np.flatnonzero(self.is_outlier)
        for row in far[np.argsort(-self.neighbours.distances[far], kind="stable")].tolist():
            score = float(self.neighbours.distances[row])
            yield {"row": row, "issue": "outlier", "suggested": -1, "score": score, "other": -1}


def audit(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    seed: int = 0,
    number: int = 5,
    groups: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
    is_held_out: np.ndarray | None = None,
    find_errors: Callable[..., LabelErrors] = label_errors,
) -> Audit:
    """Audit the labels of images by their features.

    Args:
        features: float [N, D].
        labels: int64 [N].
        number, seed, groups: options of the folds, see `out_of_fold`.
        held_out: float [N, C] probabilities of a network; used for the images of ``is_held_out``, on which it was not
            trained, instead of out-of-fold predictions.
        is_held_out: bool [N].
        find_errors: function of (probabilities, labels, is_counted) that returns the label errors.
    """
    table, is_predictable = out_of_fold(features, labels, num_classes, number=number, seed=seed, groups=groups)
    errors = find_errors(table, labels, is_counted=is_predictable)
    is_error = errors.is_error & is_predictable
    suggested, scores = errors.suggested.copy(), errors.scores.copy()
    if held_out is not None and is_held_out is not None and is_held_out.any():
        held_out_errors = find_errors(held_out[is_held_out], labels[is_held_out])
        is_error[is_held_out], suggested[is_held_out] = held_out_errors.is_error, held_out_errors.suggested
        scores[is_held_out] = held_out_errors.scores
        is_predictable = is_predictable | is_held_out
    near = neighbours(features)
    is_copy = (near.nearest_distance < COPY_DISTANCE) & (labels != labels[near.nearest])
    all_errors = LabelErrors(is_error, suggested, np.where(is_predictable, scores, 0.0), errors.thresholds)
    return Audit(all_errors, is_predictable, outliers(near.distances, labels), near, is_copy)
