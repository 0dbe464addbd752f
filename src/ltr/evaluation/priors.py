"""Class priors of training and deployment: prior ratios for softmax scores, long-tailed subsets, and estimation.

Under label shift p(y) changes and p(x | y) does not, so the deployment posterior is the posterior of the scores times
the ratio of the priors, normalised (Saerens, Latinne, Decaestecker, Neural Computation 2002, eq. 2.4).
"""

from __future__ import annotations

import numpy as np

from ltr.errors import ConfigError
from ltr.randomness import generator

EXPONENTS = tuple(step / 20 for step in range(-30, 31))  # candidates of `tail_exponent`, -1.5 to 1.5
_REJECTED = 10.83  # chi-squared with one degree of freedom at p = 0.001


def normalise_prior(weights: np.ndarray) -> np.ndarray:
    """Normalise class weights [C] to a prior, float64 [C], whose sum is 1.

    Raises:
        ConfigError: a weight is negative or not finite, or all are zero.
    """
    values = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
        raise ConfigError(
            "a class prior has weights that are negative or not finite, or all of them are zero. Give each class a "
            "number of at least 0, such as its expected share of the images"
        )
    return values / values.sum()


def log_prior_ratio(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return log(target / source), float64 [C], to add to the logits of a softmax; exactly 0 for equal priors.

    A class with target probability 0 gets -inf.

    Args:
        source: prior implied by the scores, [C], all positive.
        target: deployment prior, [C].

    Raises:
        ConfigError: a class has probability 0 in ``source``.
    """
    if (source <= 0).any():
        raise ConfigError(
            f"class {int(np.argmin(source))} has no training image, so its prior ratio is undefined. Set "
            "evaluation.prior_of_scores=uniform if the scores imply no training prior, or exclude such classes"
        )
    with np.errstate(divide="ignore"):
        return np.log(target) - np.log(source)


def long_tail_prior(class_counts: np.ndarray, imbalance_factor: float, backward: bool = False) -> np.ndarray:
    """Return an exponential long tail over the classes in the order of their training images, float64 [C].

    Args:
        class_counts: int64 [C], training images of each class; ties are in the order of class numbers.
        imbalance_factor: largest over smallest probability, >= 1.
        backward: True makes the rarest training class the most frequent one.
    """
    classes = len(class_counts)
    order = np.argsort(-np.asarray(class_counts), kind="stable")
    ranks = np.arange(classes) / max(1, classes - 1)
    prior = np.empty(classes)
    prior[order[::-1] if backward else order] = float(imbalance_factor) ** -ranks
    return prior / prior.sum()


def subsample(labels: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return the rows of the largest subset whose class frequencies follow a prior, int64, sorted.

    Each class that has images keeps at least one. The kept images of a class are a function of the class and of their
    positions; a smaller number of them is a subset of a larger one.

    Args:
        labels: int64 [N].
        prior: float64 [C].
    """
    counts = np.bincount(labels, minlength=len(prior))
    present = counts > 0
    scale = (counts[present] / np.maximum(prior[present], 1e-300)).min()
    sizes = np.clip(np.floor(scale * prior + 1e-9).astype(np.int64), 1, np.maximum(counts, 1))
    chosen = [
        generator(0, "label_shift", int(label)).permutation(np.flatnonzero(labels == label))[: sizes[label]]
        for label in np.flatnonzero(present)
    ]
    return np.sort(np.concatenate(chosen))


def posteriors(logits: np.ndarray, log_ratio: np.ndarray) -> np.ndarray:
    """Return softmax(logits + log_ratio), float64 [N, C]."""
    values = logits.astype(np.float64) + log_ratio
    values = np.exp(values - values.max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


def tail_prior(counts: np.ndarray, exponent: float) -> np.ndarray:
    """Return the prior proportional to counts^exponent, float64 [C]; exponent 1 is the training prior, 0 uniform."""
    logarithm = exponent * np.log(np.asarray(counts, dtype=np.float64))
    return normalise_prior(np.exp(logarithm - logarithm.max()))


def tail_exponent(logits: np.ndarray, source: np.ndarray, counts: np.ndarray) -> float:
    """Estimate the exponent of `tail_prior` of unlabelled images by maximum likelihood.

    It estimates one number instead of C probabilities: expectation maximisation over all C of them would turn scores
    of few-shot classes that are too low into a prior that is too low. The exponent is 0, a uniform prior, unless the
    likelihood-ratio test rejects 0 (chi-squared with one degree of freedom, p < 0.001).

    Args:
        logits: softmax logits [N, C].
        source: prior implied by the scores, [C].
        counts: training images of each class, [C], all positive.

    Returns:
        A value of `EXPONENTS`.
    """
    likelihoods = posteriors(logits, log_prior_ratio(source, np.full(len(source), 1 / len(source))))
    evidence = np.array([np.log(likelihoods @ tail_prior(counts, value)).sum() for value in EXPONENTS])
    best = int(evidence.argmax())
    is_uniform = 2 * (evidence[best] - evidence[EXPONENTS.index(0.0)]) < _REJECTED
    return 0.0 if is_uniform else EXPONENTS[best]
