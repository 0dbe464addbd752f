"""Decisions between the known classes and "unknown" at a threshold, and their metrics.

An image whose score is below the threshold is "unknown", any other has its predicted class. All functions use arrays
``score`` float64 [N], ``prediction`` int64 [N] in [0, K), ``label`` int64 [N] in [0, K) or -1 for unknown images.
"""

from __future__ import annotations

import numpy as np

from ltr.evaluation.averages import mean, ratio


def decide_open_set(score: np.ndarray, prediction: np.ndarray, threshold: float) -> np.ndarray:
    """Return the class, or -1 for unknown, int64 [N]; a score equal to the threshold is accepted."""
    return np.where(score >= threshold, prediction, -1)


def open_macro_f1(decision: np.ndarray, label: np.ndarray, num_classes: int) -> float:
    """Return the mean F1 over the K known classes and the class "unknown".

    The mean is over classes that occur in the labels or the decisions, as in scikit-learn; NaN without unknown images.
    """
    if not (label < 0).any():
        return float("nan")
    size = num_classes + 1
    true, decided = (np.bincount(values + 1, minlength=size) for values in (label, decision))
    hits = np.bincount(label[label == decision] + 1, minlength=size)
    f1 = ratio(2 * hits, true + decided)
    return mean(f1[~np.isnan(f1)])


def open_f_measure(decision: np.ndarray, label: np.ndarray) -> float:
    """Return the F-measure of open long-tailed recognition (Liu et al., CVPR 2019), as its code computes it.

    It is 2 TP / (2 TP + FP + FN): TP are known images with the correct decision, FP known images with a wrong one
    (including "unknown"), FN unknown images accepted as known. NaN without known or without unknown images.
    """
    known = label >= 0
    if known.all() or not known.any():
        return float("nan")
    right = decision == label
    hits, wrong, missed = (int(kind.sum()) for kind in (right & known, ~right & known, ~right & ~known))
    return 2 * hits / (2 * hits + wrong + missed)


def best_threshold(score: np.ndarray, prediction: np.ndarray, label: np.ndarray, num_classes: int) -> float:
    """Return the oracle threshold, which maximises `open_macro_f1` on these images; for ties the highest.

    One sweep over the images in order of their scores suffices, because accepting an image changes only the F1 of its
    predicted class and of "unknown". The highest threshold rejects all images: it is the next number above the largest
    score. NaN without unknown images.
    """
    if not (label < 0).any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    score, prediction, label = score[order], prediction[order], label[order]
    true = np.bincount(label[label >= 0], minlength=num_classes)
    unknown = label < 0

    # within each predicted class, in order of score: the number of accepted images, and of correct ones among them
    by_class = np.argsort(prediction, kind="stable")
    predicted = prediction[by_class]
    hit = (label[by_class] == predicted).astype(np.int64)
    first = np.searchsorted(predicted, predicted)
    accepted = np.arange(len(score)) - first
    running = np.concatenate([[0], np.cumsum(hit)])
    right = running[:-1] - running[first]
    with np.errstate(invalid="ignore"):
        gain = 2 * (right + hit) / (true[predicted] + accepted + 1) - np.nan_to_num(
            2 * right / (true[predicted] + accepted)
        )
    f1_known, new_classes = np.empty(len(score)), np.empty(len(score), dtype=np.int64)
    f1_known[by_class] = gain
    new_classes[by_class] = (true[predicted] == 0) & (accepted == 0)

    rejected = np.arange(len(score) - 1, -1, -1)
    f1_unknown = 2 * (unknown.sum() - np.cumsum(unknown)) / (unknown.sum() + rejected)
    macro = (np.cumsum(f1_known) + f1_unknown) / (np.cumsum(new_classes) + (true > 0).sum() + 1)
    ends = np.append(score[1:] != score[:-1], True)  # images of equal scores are accepted together
    thresholds, values = score[ends], macro[ends]
    above = np.nextafter(score[0], np.inf, dtype=np.float64)
    if np.isfinite(above):  # a result file has no infinities
        rejecting = 2 * unknown.sum() / (unknown.sum() + len(score)) / ((true > 0).sum() + 1)
        thresholds, values = np.append(above, thresholds), np.append(rejecting, values)
    # sums in another order differ by rounding, so values this close are equal; the first is the highest threshold
    return float(thresholds[np.flatnonzero(values >= values.max() - 1e-12)[0]])
