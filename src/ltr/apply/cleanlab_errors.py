"""Likely label errors by the package cleanlab, for ``ltr-data audit --method cleanlab``."""

from __future__ import annotations

import importlib.util

import numpy as np

from ltr.apply.audit import LabelErrors
from ltr.errors import ConfigError


def check_cleanlab() -> None:
    """Raise ConfigError if the package is not installed."""
    if importlib.util.find_spec("cleanlab") is None:
        raise ConfigError(
            "--method cleanlab needs the package cleanlab, which is not installed. Install it with pip install "
            "'ltr[audit]', or leave --method out"
        )


def cleanlab_errors(
    probabilities: np.ndarray, labels: np.ndarray, *, is_counted: np.ndarray | None = None
) -> LabelErrors:
    """Find likely label errors by ``cleanlab.filter.find_label_issues`` with its defaults.

    It estimates by confident learning (Northcutt, Jiang and Chuang, JAIR 2021) how many labels of each class belong to
    each other class, and returns as many images, those of the lowest margin (``prune_by_noise_rate``).

    Args:
        probabilities: float [N, C] of a model that has not been trained on the image.
        labels: int64 [N].
        is_counted: bool [N], images to examine; None: all.

    Returns:
        The suggestion for an error is its most probable other class, its score the log ratio of the two probabilities.
        Thresholds are NaN.
    """
    from cleanlab.filter import find_label_issues

    rows = np.arange(len(labels)) if is_counted is None else np.flatnonzero(is_counted)
    suggested, scores, is_error = labels.copy(), np.zeros(len(labels)), np.zeros(len(labels), dtype=bool)
    thresholds = np.full(probabilities.shape[1], np.nan)
    classes = np.unique(labels[rows])  # cleanlab expects an image of every class
    if len(classes) < 2:
        return LabelErrors(is_error, suggested, scores, thresholds)
    p = probabilities[np.ix_(rows, classes)].astype(np.float64)
    p = np.maximum(p, 1e-12)
    p /= p.sum(axis=1, keepdims=True)
    label_columns = np.searchsorted(classes, labels[rows])
    is_error[rows] = find_label_issues(label_columns, p, n_jobs=1)
    other_probabilities = p.copy()
    other_probabilities[np.arange(len(rows)), label_columns] = 0
    best = other_probabilities.argmax(axis=1)
    ratio = np.log(other_probabilities.max(axis=1)) - np.log(p[np.arange(len(rows)), label_columns])
    of_rows = is_error[rows]
    suggested[rows[of_rows]] = classes[best[of_rows]]
    scores[rows[of_rows]] = np.maximum(ratio[of_rows], 0)
    return LabelErrors(is_error, suggested, scores, thresholds)
