"""Averages, which are NaN and not 0 if there is nothing to average."""

from __future__ import annotations

import numpy as np


def ratio(part: np.ndarray | np.number, total: np.ndarray | np.number) -> np.ndarray:
    """Return part / total in float64, elementwise; NaN where total is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(total) > 0, np.divide(part, total, dtype=np.float64), np.nan)


def mean(values: np.ndarray) -> float:
    """Return the arithmetic mean; NaN without values."""
    return float(values.mean()) if len(values) else float("nan")


def geometric_mean(values: np.ndarray) -> float:
    """Return the geometric mean of numbers >= 0: NaN without values, 0 if one of them is 0 (without a floor)."""
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(values).mean())) if len(values) else float("nan")


def calibration_error(n: np.ndarray, correct: np.ndarray, confidence: np.ndarray) -> float:
    """Return the expected calibration error of Guo et al. (ICML 2017, eq. 3), in [0, 1]; NaN without images.

    It is the mean over images of |accuracy - mean confidence| of the image's bin.

    Args:
        n: number of images in each bin, [M].
        correct: number of correct predictions in each bin, [M].
        confidence: sum of the probabilities of the predicted classes in each bin, [M].
    """
    return float(ratio(np.abs(correct - confidence).sum(), n.sum()))
