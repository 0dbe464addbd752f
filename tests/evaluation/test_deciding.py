"""Class thresholds and conformal sets, against plain loops and by their guarantees."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ltr.evaluation.deciding import (
    NEVER,
    class_decisions,
    conformal_thresholds,
    decide,
    decision_metrics,
    images_needed,
    precision_thresholds,
    recall_thresholds,
    set_metrics,
)


def synthetic(number=400, classes=5, seed=0, decimals=2):
    """Probabilities with ties, and noisy labels."""
    random = np.random.default_rng(seed)
    labels = random.choice(classes, number, p=np.array([8, 4, 2, 1, 1]) / 16)
    logits = random.normal(size=(number, classes)) + 1.2 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.round(decimals), labels


def by_trial(probabilities, labels, label, accepts):
    """Thresholds among the highest probabilities that ``accepts`` (precision, recall), by counting image by image."""
    accepted = []
    for threshold in sorted({float(max(row)) for row in probabilities}):
        hits = decided = of_class = 0
        for row, truth in zip(probabilities.tolist(), labels.tolist()):
            is_decided = row.index(max(row)) == label and max(row) >= threshold
            decided += is_decided
            hits += is_decided and truth == label
            of_class += truth == label
        if decided and accepts(hits / decided, hits / of_class):
            accepted.append(threshold)
    return accepted


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_precision_thresholds_are_the_lowest_that_reach_the_level(seed, level):
    probabilities, labels = synthetic(seed=seed)
    thresholds = precision_thresholds(probabilities, labels, level)
    for label in range(5):
        accepted = by_trial(probabilities, labels, label, lambda precision, recall: precision >= level)
        if not accepted:
            assert thresholds[label] == NEVER
            continue
        # thresholds between two scores of the class decide the same images
        chosen, lowest = (decide(probabilities, np.full(5, t)) == label for t in (thresholds[label], min(accepted)))
        assert (chosen == lowest).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("level", [0.3, 0.5, 0.9])
def test_recall_thresholds_are_the_highest_that_reach_the_level(seed, level):
    probabilities, labels = synthetic(seed=seed)
    thresholds = recall_thresholds(probabilities, labels, level)
    for label in range(5):
        accepted = by_trial(probabilities, labels, label, lambda precision, recall: recall >= level)
        assert thresholds[label] == (max(accepted) if accepted else 0)


def test_a_class_without_correct_predictions_is_never_decided():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    assert precision_thresholds(probabilities, np.array([1, 1, 1]), 0.9).tolist() == [NEVER, 0.7]


def test_equal_probabilities_are_decided_together():
    probabilities = np.array([[0.8, 0.2]] * 2)
    assert precision_thresholds(probabilities, np.array([0, 1]), 0.9)[0] == NEVER
    assert precision_thresholds(probabilities, np.array([0, 1]), 0.5)[0] == 0.8


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_the_images_needed_are_the_fewest_that_have_a_conformal_rank(level):
    needed = images_needed(level)
    assert math.ceil((needed + 1) * level - 1e-9) <= needed
    assert math.ceil(needed * level - 1e-9) > needed - 1


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_conformal_sets_cover_new_images_of_each_class(level):
    random = np.random.default_rng(5)
    covered = []
    for _ in range(400):
        labels = np.repeat([0, 1, 2], [40, 20, 12])
        pair = []
        for _ in range(2):  # validation and new images of the same distribution
            logits = random.normal(size=(72, 3)) + np.array([1.5, 0.5, 0.2])[labels, None] * np.eye(3)[labels]
            pair.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
        thresholds = conformal_thresholds(pair[0], labels, level)
        covered.append(set_metrics(pair[1], labels, thresholds)["per_class"]["coverage"])
    for n, share, error in zip((40, 20, 12), np.mean(covered, axis=0), np.std(covered, axis=0) / np.sqrt(400)):
        exact = math.ceil((n + 1) * level - 1e-9) / (n + 1)  # without ties
        assert level - 1e-9 <= exact
        assert abs(share - exact) < 4 * error


@pytest.mark.parametrize("choose", [precision_thresholds, recall_thresholds, conformal_thresholds])
def test_a_level_for_each_class_gives_each_class_the_threshold_of_its_level(choose):
    probabilities, labels = synthetic()
    levels = np.array([0.5, 0.9, 0.6, 0.5, 0.8])
    of_one_level = {level: choose(probabilities, labels, level) for level in set(levels.tolist())}
    expected = [of_one_level[level][label] for label, level in enumerate(levels.tolist())]
    assert choose(probabilities, labels, levels).tolist() == expected


def test_a_class_with_too_few_images_has_no_conformal_threshold():
    with pytest.raises(ValueError, match="needs 9"):
        conformal_thresholds(np.full((8, 1), 0.5), np.zeros(8, dtype=np.int64), 0.9)


def test_metrics_of_decisions_equal_counts():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    decision = np.array([0, -1, 1, 0, 1, -1, 0])
    metrics = decision_metrics(decision, labels, 3, background=0)
    assert metrics["coverage"] == pytest.approx(5 / 7)
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["false_alarms_per_thousand"] == pytest.approx(250)
    assert metrics["precision"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metrics["recall"] == pytest.approx((2 / 4 + 1 / 2 + 0) / 3)
    assert np.isnan(decision_metrics(decision, labels, 3, None)["false_alarms_per_thousand"])


def test_with_thresholds_of_zero_every_decision_is_the_prediction():
    probabilities, labels = synthetic()
    decision = decide(probabilities, np.zeros(5))
    assert (decision == probabilities.argmax(1)).all()
    assert decision_metrics(decision, labels, 5, None)["accuracy"] == pytest.approx((decision == labels).mean())
    assert (class_decisions(decision, probabilities.max(1), np.full(5, NEVER)) == -1).all()
