"""Confident learning, folds, neighbours and outliers against plain loops."""

import numpy as np
import pytest

from ltr.apply.audit import audit, folds, label_errors, neighbours, out_of_fold, outliers


def synthetic(seed=0, counts=(300, 120, 40, 12), spread=1.0):
    """Features of a long tail of classes, one cluster per class."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = np.eye(len(counts)) * 5
    features = centres[labels] + random.normal(size=(len(labels), len(counts))) * spread
    return features.astype(np.float32), labels


def flipped(labels, share=0.05, seed=1):
    random = np.random.default_rng(seed)
    wrong = random.uniform(size=len(labels)) < share
    others = (labels + random.integers(1, labels.max() + 1, len(labels))) % (labels.max() + 1)
    return np.where(wrong, others, labels), wrong


def test_label_errors_follow_the_definition():
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(4) * 0.5, 60)
    labels = random.integers(0, 4, 60)
    errors = label_errors(p, labels)
    means = [p[labels == c, c].mean() for c in range(4)]
    for row in range(60):
        relative = [p[row, c] / means[c] for c in range(4)]
        best = int(np.argmax(relative))
        is_error = best != labels[row] and relative[best] >= 0.5 and relative[best] >= 10 * relative[labels[row]]
        assert errors.is_error[row] == is_error
        if is_error:
            assert errors.suggested[row] == best
            assert errors.scores[row] == pytest.approx(np.log(relative[best] / relative[labels[row]]))


def test_a_rare_class_with_low_probabilities_is_not_an_error():
    """The plain argmax would call all images of the rare class errors."""
    p = np.concatenate([np.tile([0.95, 0.05], (50, 1)), np.tile([0.7, 0.3], (5, 1))])
    labels = np.array([0] * 50 + [1] * 5)
    assert (p.argmax(axis=1) != labels).sum() == 5
    assert not label_errors(p, labels).is_error.any()


def test_a_class_without_images_is_never_suggested():
    errors = label_errors(np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]]), np.array([1, 0]))
    assert np.isnan(errors.thresholds[2])
    assert 2 not in errors.suggested


@pytest.mark.parametrize("seed", [0, 1])
def test_folds_spread_every_class(seed):
    labels = np.repeat([0, 1, 2], [23, 10, 3])
    fold = folds(labels, 5, seed)
    for label, count in enumerate((23, 10, 3)):
        sizes = np.bincount(fold[labels == label], minlength=5)
        assert sizes.max() - sizes.min() <= 1
        assert sizes.sum() == count


def test_folds_keep_groups_together():
    random = np.random.default_rng(0)
    groups = random.integers(0, 30, 300)
    labels = random.integers(0, 3, 300)
    fold = folds(labels, 5, 0, groups)
    for group in np.unique(groups):
        assert len(set(fold[groups == group])) == 1
    assert np.bincount(fold, minlength=5).min() > 30


def test_out_of_fold_predictions_do_not_depend_on_the_label_of_their_image():
    features, labels = synthetic(counts=(40, 20))
    table, is_predictable = out_of_fold(features, labels, 2)
    assert is_predictable.all()
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-5)
    changed = labels.copy()
    changed[0] = 1
    other, _ = out_of_fold(features, changed, 2)
    assert other[0].argmax() == table[0].argmax() == 0


def test_a_class_of_one_image_is_not_predictable_and_has_no_error():
    features, labels = synthetic(counts=(30, 30, 1))
    outcome = audit(features, labels, 3)
    assert outcome.is_predictable.tolist() == [True] * 60 + [False]
    assert not outcome.errors.is_error.any()
    assert np.isnan(outcome.errors.thresholds[2])


def test_flipped_labels_rank_first_in_many_and_few_shot_classes():
    features, labels = synthetic(spread=0.8)
    noisy, wrong = flipped(labels)
    outcome = audit(features, noisy, 4)
    is_error = outcome.errors.is_error
    assert (is_error & wrong).sum() / wrong.sum() > 0.8
    assert (is_error & wrong).sum() / is_error.sum() > 0.7
    rare = labels == 3
    assert (is_error & rare & ~wrong).sum() <= 2, "the rare class is spared"
    first = [issue["row"] for issue in outcome.issues()][:10]
    assert wrong[first].mean() >= 0.9


def test_a_networks_predictions_replace_out_of_fold_ones_for_images_that_it_was_not_trained_on():
    features, labels = synthetic(counts=(30, 30))
    held_out = np.tile([0.98, 0.02], (60, 1))
    held_out[30:] = [0.2, 0.8]
    held_out[5] = [0.05, 0.95]
    mask = np.arange(60) < 10
    outcome = audit(features, labels, 2, held_out=held_out, is_held_out=mask)
    assert outcome.errors.is_error[:10].sum() == 0  # class 1 has no label there, so nothing can be said
    outcome = audit(features, labels, 2, held_out=held_out, is_held_out=np.ones(60, dtype=bool))
    assert np.flatnonzero(outcome.errors.is_error).tolist() == [5]


def test_neighbours_equal_those_of_the_full_distance_matrix(monkeypatch):
    monkeypatch.setattr("ltr.apply.audit._ROWS", 70)
    features = np.random.default_rng(0).normal(size=(400, 4))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    np.fill_diagonal(distance, np.inf)
    near = neighbours(features, 3)
    np.testing.assert_array_equal(near.nearest, distance.argmin(axis=1))
    np.testing.assert_allclose(near.distances, np.sort(distance, axis=1)[:, :3].mean(axis=1), rtol=1e-4)


def test_copies_with_two_labels_and_outliers_are_reported():
    features, labels = synthetic(counts=(60, 60))
    features[70] = features[3]  # a copy under the other label
    features[10] = [-8, -8]
    outcome = audit(features, labels, 2)
    kinds = {(issue["issue"], issue["row"]) for issue in outcome.issues()}
    assert {("copy", 3), ("copy", 70)} <= kinds
    assert ("outlier", 10) in kinds


def test_classes_with_few_images_use_the_outlier_bound_of_the_whole_set():
    distances = np.array([0.1] * 50 + [0.1, 0.11, 0.12])
    labels = np.array([0] * 50 + [1] * 3)
    assert not outliers(np.r_[np.linspace(0.05, 0.15, 50), 0.1, 0.1, 0.14], labels).any()
    assert outliers(distances, np.zeros(53, dtype=int)).sum() == 2
