"""Class weights, margins and priors: numbers that follow from the training counts, in float64.

Joint labels of M-fold label augmentation, (y, j) -> y * M + j, need nothing of their own: with every count repeated M
times, weights and margins of a joint class equal those of its y, and the prior differs by a constant, log M.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ltr.errors import ConfigError, DataError

ClassCounts = Sequence[int] | np.ndarray | Tensor

# beta is called useless where it moves no weight by more than this, over counts that differ by half and more
_SAME_WEIGHT = 1.01
_OTHER_COUNT = 1.5


def as_counts(class_counts: ClassCounts) -> np.ndarray:
    """The counts as int64 [C].

    Raises:
        DataError: not a list of whole numbers >= 0 with at least one above 0.
    """
    raw = class_counts.detach().cpu().numpy() if isinstance(class_counts, Tensor) else np.asarray(class_counts)
    whole = raw.ndim == 1 and raw.size > 0 and raw.dtype.kind in "iuf" and bool(np.all(raw == np.floor(raw)))
    if not whole or raw.min() < 0 or raw.max() == 0 or not np.isfinite(raw).all():
        raise DataError(
            f"class_counts = {np.array2string(raw, threshold=10)}: expected one whole number >= 0 for each class, at "
            "least one of them above 0. Pass the counts of the whole training set."
        )
    return raw.astype(np.int64)


def effective_number(class_counts: ClassCounts, beta: float) -> np.ndarray:
    """Effective number of samples, E_n = (1 - beta^n) / (1 - beta) (Cui et al., CVPR 2019, proposition 1).

    beta = 0 gives 1 for every class that has images, beta -> 1 gives n (beta = 1 is that limit), n = 0 gives 0.

    Args:
        class_counts: training images of each class, [C].
        beta: in [0, 1]; (N - 1) / N for a class that has N distinct prototypes.

    Returns:
        float64 [C].

    Raises:
        ConfigError: beta outside [0, 1].
    """
    counts = as_counts(class_counts)
    if not 0.0 <= beta <= 1.0:
        raise ConfigError(f"beta = {beta}: expected a number in [0, 1), the effective number's beta.")
    if beta == 0.0:
        return (counts > 0).astype(np.float64)
    if beta == 1.0:
        return counts.astype(np.float64)
    # 1 - beta^n written so that nothing cancels where beta^n is close to 1
    return -np.expm1(counts * np.log(beta)) / (1.0 - beta)


def class_balanced_weights(class_counts: ClassCounts, beta: float) -> np.ndarray:
    """Weights proportional to 1 / E_n that sum to C (Cui et al., CVPR 2019, section 4).

    A class without images gets weight 0, with a warning; the others still sum to C. Another warning says that beta is
    too small for these counts: beta^n underflows, E_n is 1 / (1 - beta) for all, and all weights are equal.

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
    """Margins Delta_j = K / n_j^(1/4), K such that the largest is max_margin (Cao et al., NeurIPS 2019).

    A class without images gets max_margin, with a warning, and has no say in K.

    Args:
        class_counts: training images of each class, [C].
        max_margin: >= 0, in units of the unscaled (cosine) logit; 0.5 in the paper, 0.3 for iNaturalist.

    Returns:
        float64 [C].

    Raises:
        ConfigError: max_margin below 0 or not finite.
    """
    counts = as_counts(class_counts)
    if not 0.0 <= max_margin < np.inf:
        raise ConfigError(f"max_margin = {max_margin}: expected a finite number >= 0.")
    _warn_of_empty(counts, "they get the largest margin")
    smallest = counts[counts > 0].min()
    return max_margin * (smallest / np.where(counts > 0, counts, smallest)) ** 0.25


def log_prior(class_counts: ClassCounts) -> np.ndarray:
    """log(n_j / N), the log of each class's share of the training images.

    A class without images counts as one image, with a warning: log 0 would end as NaN (0 * inf) or drop the class.

    Returns:
        float64 [C]; exp of it sums to 1.
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
            f"close to 0 for all). Choose a beta for which 1 / (1 - beta) = {1.0 / (1.0 - beta):.4g} comes near the "
            f"largest class, about {1.0 - 1.0 / counts.max():.6g}.",
            stacklevel=3,
        )
