"""Class priors: ratio, long tails of a test set, estimation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ltr.errors import ConfigError
from ltr.evaluation.priors import (
    log_prior_ratio,
    long_tail_prior,
    normalise_prior,
    posteriors,
    subsample,
    tail_exponent,
    tail_prior,
)

TRAIN = np.array([0.6, 0.3, 0.1])


def calibrated(test: np.ndarray, images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return exact logits under the prior TRAIN, and labels, of points on a line whose classes are Gaussians."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, images, p=test)
    x = rng.normal(2.0 * labels)
    return -((x[:, None] - 2.0 * np.arange(3)) ** 2) / 2 + np.log(TRAIN), labels


def test_the_ratio_converts_one_bayes_posterior_into_another():
    likelihood = np.array([0.2, 0.5, 0.7])
    target = np.array([0.1, 0.1, 0.8])
    of_train = likelihood * TRAIN / (likelihood * TRAIN).sum()
    of_target = likelihood * target / (likelihood * target).sum()
    ratio = log_prior_ratio(TRAIN, target)
    assert ratio.tolist() == pytest.approx([math.log(t / s) for s, t in zip(TRAIN, target)], rel=1e-15)
    assert posteriors(np.log(of_train)[None], ratio)[0] == pytest.approx(of_target, rel=1e-14)


@pytest.mark.parametrize("prior", [TRAIN, np.full(3, 1 / 3)])
def test_the_prior_of_the_scores_changes_no_score(prior):
    assert log_prior_ratio(prior, prior).tolist() == [0.0, 0.0, 0.0]


def test_a_class_that_the_target_excludes_is_never_predicted():
    ratio = log_prior_ratio(TRAIN, normalise_prior(np.array([0, 1, 1])))
    assert posteriors(np.array([[50.0, 0.0, 1.0]]), ratio)[0, 0] == 0


def test_a_class_without_training_images_has_no_ratio():
    with pytest.raises(ConfigError, match="class 1 has no training image"):
        log_prior_ratio(np.array([0.5, 0.0, 0.5]), TRAIN)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [1.0, math.nan], [1.0, math.inf]])
def test_weights_that_are_not_a_prior_are_refused(weights):
    with pytest.raises(ConfigError, match="a class prior"):
        normalise_prior(np.array(weights))


def test_a_long_tail_follows_the_order_of_the_training_images():
    counts = np.array([20, 500, 100])
    forward = long_tail_prior(counts, 50)
    assert forward / forward[0] == pytest.approx([1, 50, math.sqrt(50)])
    assert long_tail_prior(counts, 50, backward=True) == pytest.approx(forward[[1, 0, 2]])
    assert long_tail_prior(counts, 1) == pytest.approx([1 / 3] * 3)


def test_subsets_have_the_frequencies_of_the_prior_and_are_nested():
    labels = np.tile(np.arange(3), 100)
    counts = np.array([3, 2, 1])
    rows = subsample(labels, long_tail_prior(counts, 100))
    assert np.bincount(labels[rows]).tolist() == [100, 10, 1]
    assert set(rows) <= set(subsample(labels, long_tail_prior(counts, 10)))
    assert subsample(labels, np.full(3, 1 / 3)).tolist() == list(range(300))


def test_a_subset_leaves_out_classes_without_images():
    labels = np.repeat([0, 2], [10, 5])
    assert np.bincount(labels[subsample(labels, np.full(3, 1 / 3))]).tolist() == [5, 0, 5]


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.5, 1.0])
def test_the_exponent_of_calibrated_scores_is_recovered(exponent):
    logits, _ = calibrated(tail_prior(TRAIN, exponent), 20_000)
    assert tail_exponent(logits, TRAIN, TRAIN) == pytest.approx(exponent, abs=0.1)


@pytest.mark.parametrize("images", [20, 300, 20_000])
def test_uniform_images_keep_the_uniform_prior(images):
    for seed in range(5):
        assert tail_exponent(calibrated(np.full(3, 1 / 3), images, seed)[0], TRAIN, TRAIN) == 0.0


def test_a_balanced_training_set_has_no_tail_to_estimate():
    logits, _ = calibrated(np.array([0.8, 0.1, 0.1]), 500)
    assert tail_exponent(logits, TRAIN, np.full(3, 40)) == 0.0


def test_the_exponents_of_the_training_prior_and_of_uniform_are_one_and_zero():
    assert tail_prior(TRAIN, 1.0) == pytest.approx(TRAIN)
    assert tail_prior(TRAIN, 0.0) == pytest.approx([1 / 3] * 3)
    assert tail_prior(TRAIN, -1.0) == pytest.approx(normalise_prior(1 / TRAIN))


def test_the_known_prior_improves_accuracy():
    test = np.array([0.05, 0.15, 0.8])
    logits, labels = calibrated(test, 5_000)
    adjusted = posteriors(logits, log_prior_ratio(TRAIN, test)).argmax(1)
    assert (adjusted == labels).mean() > (logits.argmax(1) == labels).mean() + 0.03
