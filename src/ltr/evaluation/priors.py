"""Class priors of training and deployment: the prior ratio on a softmax's scores, long tails of a test set, estimation.

Under label shift p(x | y) stays and p(y) changes, so the posterior of deployment is the posterior of the scores times
the ratio of the priors, normalised (Saerens, Latinne, Decaestecker, Neural Computation 2002, eq. 2.4).
"""

from __future__ import annotations

import numpy as np

from ltr.errors import ConfigError
from ltr.randomness import generator

EXPONENTS = tuple(step / 20 for step in range(-30, 31))  # candidates of `tail_exponent`, -1.5 to 1.5
_REJECTED = 10.83  # chi-squared with one degree of freedom at p = 0.001


def normalised(weights: np.ndarray) -> np.ndarray:
    """Return class weights [C] as a prior, float64 [C], which sums to 1.

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
    """Return log(target / source), float64 [C]: what is added to the logits of a softmax; exactly 0 for equal priors.

    A class that the target excludes gets -inf.

    Args:
        source: prior that the scores hold, [C], all positive.
        target: prior of deployment, [C].

    Raises:
        ConfigError: the scores' prior has a class of probability 0.
    """
    if (source <= 0).any():
        raise ConfigError(
            f"class {int(np.argmin(source))} has no training image, so no prior ratio follows for it. Set "
            "evaluation.prior_of_scores=uniform if the scores hold no training prior, or leave such classes out"
        )
    with np.errstate(divide="ignore"):
        return np.log(target) - np.log(source)


def long_tail_prior(class_counts: np.ndarray, imbalance_factor: float, backward: bool = False) -> np.ndarray:
    """Return an exponential long tail over the classes in the order of their training images, float64 [C].

    Args:
        class_counts: int64 [C], training images; equal classes are in the order of their numbers.
        imbalance_factor: largest over smallest probability, at least 1.
        backward: the rarest class of the training is the most frequent one.
    """
    classes = len(class_counts)
    order = np.argsort(-np.asarray(class_counts), kind="stable")
    ranks = np.arange(classes) / max(1, classes - 1)
    prior = np.empty(classes)
    prior[order[::-1] if backward else order] = float(imbalance_factor) ** -ranks
    return prior / prior.sum()


def subsampled(labels: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return the rows of a subset whose classes are as frequent as a prior says, sorted, int64.

    The subset is as large as the images allow. Each class that has images keeps at least one. Which images of a class
    stay is a function of the class and of their places; a smaller number of them is a subset of a larger one.

    Args:
        labels: int64 [N], in the images' order.
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
    """Return the prior proportional to counts^exponent, float64 [C]: 1 the training's, 0 uniform, -1 its inverse."""
    logarithm = exponent * np.log(np.asarray(counts, dtype=np.float64))
    return normalised(np.exp(logarithm - logarithm.max()))


def tail_exponent(logits: np.ndarray, source: np.ndarray, counts: np.ndarray) -> float:
    """Estimate how long-tailed unlabelled images are: the exponent of `tail_prior` of the highest likelihood.

    One number is estimated, not C of them: by expectation maximisation over all C probabilities, scores of few-shot
    classes that are too low become a prior that is too low. The guard: the exponent is 0, a uniform prior, unless the
    likelihood-ratio test against 0 rejects it (chi-squared with one degree of freedom, p < 0.001).

    Args:
        logits: [N, C] of a softmax.
        source: prior that the scores hold, [C].
        counts: training images of each class, [C], all positive.

    Returns:
        A value of `EXPONENTS`.
    """
    likelihoods = posteriors(logits, log_prior_ratio(source, np.full(len(source), 1 / len(source))))
    evidence = np.array([np.log(likelihoods @ tail_prior(counts, value)).sum() for value in EXPONENTS])
    best = int(evidence.argmax())
    is_uniform = 2 * (evidence[best] - evidence[EXPONENTS.index(0.0)]) < _REJECTED
    return 0.0 if is_uniform else EXPONENTS[best]
