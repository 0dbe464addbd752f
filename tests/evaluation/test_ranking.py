"""Ranking metrics of a class against scikit-learn in float64, against naive definitions, and at their edges."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ltr.evaluation import ranking

torch.set_num_threads(1)

exact = {"rel": 1e-12, "abs": 1e-12}
columns = given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 80),
    classes=st.integers(1, 40),
    levels=st.sampled_from([None, 1, 3, 10]),
    dtype=st.sampled_from([np.float32, np.float64]),
)


def class_scores(seed, images, classes, levels=None, dtype=np.float64):
    random = np.random.default_rng(seed)
    labels = random.integers(-1, classes, images)
    scores = random.normal(size=(images, classes)) + (labels[:, None] == np.arange(classes))
    return (np.round(np.clip(scores, -1, 2) * levels) if levels else scores).astype(dtype), labels


@settings(max_examples=60, deadline=None)
@columns
def test_average_precision_of_every_class_is_that_of_scikit_learn(seed, images, classes, levels, dtype):
    scores, labels = class_scores(seed, images, classes, levels, dtype)
    averages = ranking.average_precisions(torch.from_numpy(scores), torch.from_numpy(labels))
    for c in range(classes):
        if (labels == c).any():
            expected = sk.average_precision_score(labels == c, scores[:, c].astype(np.float64))
            assert averages[c] == pytest.approx(expected, **exact)
            assert ranking.average_precision(scores[:, c], labels == c) == averages[c]
        else:
            assert np.isnan(averages[c])


def ranked(scores, positive):
    return ranking.ranked_positives(np.asarray(scores, dtype=float), np.flatnonzero(positive))


@settings(max_examples=60, deadline=None)
@columns
def test_recall_at_a_precision_and_curves_are_read_off_scikit_learn(seed, images, classes, levels, dtype):
    scores, labels = class_scores(seed, images, 1, levels, dtype)
    positive = labels == 0
    if not positive.any():
        return
    one = ranked(scores[:, 0], positive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, recall, _ = sk.precision_recall_curve(positive, scores[:, 0].astype(np.float64))
    for level in (0.5, 0.9):
        assert one.recall_at_precision(level) == pytest.approx(recall[precision >= level].max(), **exact)
    points = set(zip(recall.round(9), precision.round(9)))
    assert {(round(r, 9), round(p, 9)) for r, p in zip(*one.curve())} <= points


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), images=st.integers(1, 30), k=st.integers(1, 30), levels=st.sampled_from([None, 1, 3]))
def test_precision_at_k_is_the_mean_over_the_orders_of_ties(seed, images, k, levels):
    scores, labels = class_scores(seed, images, 1, levels)
    positive, one = labels == 0, ranked(scores[:, 0], labels == 0)
    if k > images or not positive.any():
        assert math.isnan(one.precision_at(k))
        return
    if levels is None:
        assert one.precision_at(k) == pytest.approx(positive[np.argsort(-scores[:, 0])][:k].mean(), **exact)
        return
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(400):
        order = random.permutation(images)
        order = order[np.argsort(-scores[order, 0], kind="stable")]
        drawn.append(positive[order][:k].mean())
    assert one.precision_at(k) == pytest.approx(np.mean(drawn), abs=0.15)


def test_r_precision_is_precision_at_the_number_of_positives():
    assert ranked([5, 4, 3, 2, 1], [1, 0, 1, 1, 0]).r_precision() == pytest.approx(2 / 3)


def test_no_positives_are_nan_everywhere():
    one = ranked([1, 2, 3], [0, 0, 0])
    assert all(math.isnan(v) for v in (one.average_precision(), one.r_precision(), one.precision_at(1)))
    assert math.isnan(one.recall_at_precision(0.5))
    assert [len(part) for part in one.curve()] == [0, 0]


def test_curves_are_thinned_and_keep_their_ends():
    scores, labels = class_scores(0, 5000, 1)
    recall, precision = ranked(scores[:, 0], labels == 0).curve(200)
    assert len(recall) == len(precision) == 200
    assert recall[-1] == 1.0


def test_scores_that_are_nan_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        ranking.average_precision(np.array([1.0, np.nan]), np.array([True, False]))
