"""Class weights, margins and log priors, computed from the training counts in float64.

Joint labels of M-fold label augmentation, (y, j) -> y * M + j, need no special case: if every count is repeated M
times, a joint class has the weight and the margin of its y, and its log prior differs by the constant log M.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ltr.errors import ConfigError, DataError

ClassCounts = Sequence[int] | np.ndarray | Tensor

# class_balanced_weights warns if weights differ by less than 1 % while counts differ by half or more
_SAME_WEIGHT = 1.01
_OTHER_COUNT = 1.5


def as_counts(class_counts: ClassCounts) -> np.ndarray:
    """Convert class counts to int64 [C].

    Raises:
        DataError: the counts are not whole numbers >= 0, or all are 0.
    """
    raw = class_counts.detach().cpu().numpy() if isinstance(class_counts, Tensor) else np.asarray(class_counts)
    whole = raw.ndim == 1 and raw.size > 0 and raw.dtype.kind in "iuf" and bool(np.all(raw == np.floor(raw)))
    if not whole or raw.min() < 0 or raw.max() == 0 or not np.isfinite(raw).all():
        raise DataError(
            f"class_counts={np.array2string(raw, threshold=10)}; allowed is a whole number >= 0 for each class, at "
            "least one of them above 0. Pass the counts of the whole training set"
        )
    return raw.astype(np.int64)


def effective_number(class_counts: ClassCounts, beta: float) -> np.ndarray:
    """Return the effective number of samples, E_n = (1 - beta^n) / (1 - beta) (Cui et al., CVPR 2019, proposition 1).

    beta = 0 gives 1 for every class with images, beta = 1 gives the limit n, and n = 0 gives 0.

    Args:
        class_counts: training images of each class, [C].
        beta: in [0, 1]; (N - 1) / N for N distinct prototypes per class.

    Returns:
        float64 [C].

    Raises:
        ConfigError: beta is outside [0, 1].
    """
    counts = as_counts(class_counts)
    if not 0.0 <= beta <= 1.0:
        raise ConfigError(f"beta={beta}; allowed is [0, 1]. Use (N - 1) / N for N distinct prototypes of a class")
    if beta == 0.0:
        return (counts > 0).astype(np.float64)
    if beta == 1.0:
        return counts.astype(np.float64)
    # expm1 avoids cancellation where beta^n is close to 1
    return -np.expm1(counts * np.log(beta)) / (1.0 - beta)


def class_balanced_weights(class_counts: ClassCounts, beta: float) -> np.ndarray:
    """Return weights proportional to 1 / E_n that sum to C (Cui et al., CVPR 2019, section 4).

    A class without images gets weight 0, with a warning; the other weights still sum to C. The function also warns if
    beta is too small for these counts: beta^n is then close to 0, E_n is 1 / (1 - beta) for all classes, and all
    weights are equal.

    Args:
        class_counts: training images of each class, [C].
        beta: in [0, 1).

    Returns:
        float64 [C], mean 1.
    """
    counts = as_counts(class_counts)
    number = effective_number(counts, beta)
    present = counts > 0
    _warn_of_empty(counts, "they get weight 0")
    _warn_of_equal_weights(counts[present], number[present], beta)
    inverse = np.divide(1.0, number, out=np.zeros_like(number), where=present)
    return inverse * (len(counts) / inverse.sum())


def ldam_margins(class_counts: ClassCounts, max_margin: float) -> np.ndarray:
    """Return margins Delta_j = K / n_j^(1/4), with K such that the largest is max_margin (Cao et al., NeurIPS 2019).

    A class without images gets max_margin, with a warning, and does not change K.

    Args:
        class_counts: training images of each class, [C].
        max_margin: >= 0, in units of the unscaled (cosine) logit; 0.5 in the paper, 0.3 for iNaturalist.

    Returns:
        float64 [C].

    Raises:
        ConfigError: max_margin is below 0 or not finite.
    """
    counts = as_counts(class_counts)
    if not 0.0 <= max_margin < np.inf:
        raise ConfigError(f"loss.max_margin={max_margin}; allowed is a finite number >= 0. LDAM uses 0.5")
    _warn_of_empty(counts, "they get the largest margin")
    smallest = counts[counts > 0].min()
    return max_margin * (smallest / np.where(counts > 0, counts, smallest)) ** 0.25


def log_prior(class_counts: ClassCounts) -> np.ndarray:
    """Return log(n_j / N), the log of each class's share of the training images.

    A class without images is treated as a class of one, with a warning: log 0 would give NaN (0 * inf) or exclude the
    class.

    Returns:
        float64 [C], whose exp sums to 1.
    """
    counts = as_counts(class_counts)
    _warn_of_empty(counts, "their prior is that of one image")
    counts = np.maximum(counts, 1)
    return np.log(counts) - np.log(counts.sum())


def _warn_of_empty(counts: np.ndarray, consequence: str) -> None:
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        shown = ", ".join(map(str, empty[:5])) + (", ..." if empty.size > 5 else "")
        warnings.warn(
            f"{empty.size} of {counts.size} classes have no training images ({shown}): {consequence}.", stacklevel=3
        )


def _warn_of_equal_weights(counts: np.ndarray, number: np.ndarray, beta: float) -> None:
    differ = counts.max() >= _OTHER_COUNT * counts.min()
    if beta > 0.0 and differ and number.max() <= _SAME_WEIGHT * number.min():
        warnings.warn(
            f"beta = {beta} gives classes of {counts.min()} and of {counts.max()} images the same weight (beta^n is "
            f"close to 0 for all). Choose a beta for which 1 / (1 - beta), now {1.0 / (1.0 - beta):.4g}, is near the "
            f"largest class size, about {1.0 - 1.0 / counts.max():.6g}.",
            stacklevel=3,
        )
