"""Known against unknown: scikit-learn in float64, definitions over all pairs, and the edges."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ltr.evaluation import curves, detection

torch.set_num_threads(1)


def synthetic(seed, known, unknown, levels=None, dtype=np.float64):
    """Scores of known and unknown images, and which known ones are right; ``levels`` makes ties."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=known) + 1, random.normal(size=unknown)
    if levels:
        scores = tuple(np.round(np.clip(part, -1, 2) * levels / 3) for part in scores)
    return scores[0].astype(dtype), scores[1].astype(dtype), random.random(known) < 0.7


def joined(known, unknown):
    return np.r_[np.ones(len(known)), np.zeros(len(unknown))], np.r_[known, unknown].astype(np.float64)


images = given(
    seed=st.integers(0, 10_000),
    known=st.integers(1, 60),
    unknown=st.integers(1, 60),
    levels=st.sampled_from([None, 1, 2, 7]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
exact = {"rel": 1e-12, "abs": 1e-12}


@settings(max_examples=80, deadline=None)
@images
def test_auroc_and_aupr_equal_scikit_learn(seed, known, unknown, levels, dtype):
    known, unknown, _ = synthetic(seed, known, unknown, levels, dtype)
    points = detection.operating_points(known, unknown)
    is_known, scores = joined(known, unknown)
    assert detection.auroc(points) == pytest.approx(sk.roc_auc_score(is_known, scores), **exact)
    assert detection.aupr_known(points) == pytest.approx(sk.average_precision_score(is_known, scores), **exact)
    assert detection.aupr_unknown(points) == pytest.approx(sk.average_precision_score(1 - is_known, -scores), **exact)


@settings(max_examples=80, deadline=None)
@images
def test_fpr95_and_detection_accuracy_are_read_off_the_curve_of_scikit_learn(seed, known, unknown, levels, dtype):
    known, unknown, _ = synthetic(seed, known, unknown, levels, dtype)
    points = detection.operating_points(known, unknown)
    is_known, scores = joined(known, unknown)
    for function, positive, score in (
        (detection.fpr95_id_pos, is_known, scores),
        (detection.fpr95_ood_pos, 1 - is_known, -scores),
    ):
        fpr, tpr, _ = sk.roc_curve(positive, score, drop_intermediate=False)
        assert function(points) == pytest.approx(fpr[tpr >= 0.95][0], **exact)
        assert detection.detection_accuracy(points) == pytest.approx(((tpr + 1 - fpr) / 2).max(), **exact)


@settings(max_examples=80, deadline=None)
@images
def test_oscr_is_the_share_of_pairs_with_half_credit_for_ties(seed, known, unknown, levels, dtype):
    known, unknown, correct = synthetic(seed, known, unknown, levels, dtype)
    wins = np.sign(known[:, None] - unknown[None, :]) / 2 + 0.5
    points = detection.operating_points(known, unknown, correct)
    assert detection.oscr(points) == pytest.approx((wins * correct[:, None]).mean(), **exact)
    assert detection.oscr(points) <= detection.auroc(points)
    everything = detection.operating_points(known, unknown, np.ones(len(known), dtype=bool))
    assert detection.oscr(everything) == detection.auroc(everything)


@settings(max_examples=40, deadline=None)
@images
def test_areas_under_the_plotted_curves_are_the_metrics(seed, known, unknown, levels, dtype):
    known, unknown, correct = synthetic(seed, known, unknown, levels, dtype)
    points = detection.operating_points(known, unknown, correct)
    for curve, area in ((detection.roc_curve, detection.auroc), (detection.oscr_curve, detection.oscr)):
        x, y = curve(points)
        assert np.trapezoid(y, x) == pytest.approx(area(points), **exact)
        assert (x[0], y[0], x[-1]) == (0, 0, 1)


def test_the_oscr_curve_ends_at_the_closed_set_accuracy():
    known, unknown, correct = synthetic(3, 200, 100)
    assert detection.oscr_curve(detection.operating_points(known, unknown, correct))[1][-1] == correct.mean()


def test_equal_scores_give_an_auroc_of_one_half():
    points = detection.operating_points(np.zeros(4), np.zeros(6), np.array([True, True, True, False]))
    assert detection.auroc(points) == 0.5
    assert detection.oscr(points) == 0.375
    assert detection.aupr_known(points) == 0.4
    assert detection.aupr_unknown(points) == 0.6
    assert detection.detection_accuracy(points) == 0.5
    assert detection.fpr95_id_pos(points) == detection.fpr95_ood_pos(points) == 1.0


def published_oscr(known, unknown, correct):
    """The published count, over all ranks k."""
    scores = np.concatenate([known, unknown])
    order = np.argsort(scores, kind="stable")
    right = np.concatenate([correct, np.zeros(len(unknown))])[order]
    open_ = np.concatenate([np.zeros(len(known)), np.ones(len(unknown))])[order]
    points = [(1.0, 1.0), (0.0, 0.0), (0.0, 0.0)]
    for k in range(len(scores) - 1):
        points.append((open_[k:].sum() / len(unknown), right[k + 1 :].sum() / len(known)))
    points.sort(reverse=True)
    return sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


@settings(max_examples=60, deadline=None)
@images
def test_oscr_arpl_equals_the_published_count(seed, known, unknown, levels, dtype):
    known, unknown, correct = synthetic(seed, known, unknown, levels, dtype)
    expected = published_oscr(known, unknown, correct)
    assert detection.oscr_arpl(known, unknown, correct) == pytest.approx(expected, **exact)


def test_oscr_arpl_differs_little_without_ties_and_much_with_them():
    known, unknown, correct = synthetic(5, 1000, 1000)
    actual = detection.oscr(detection.operating_points(known, unknown, correct))
    assert 0 < actual - detection.oscr_arpl(known, unknown, correct) < 2 / 1000
    assert detection.oscr_arpl(np.zeros(5), np.zeros(5), np.ones(5, dtype=bool)) == 0.0


@pytest.mark.parametrize("shift", [0.0, 20.0, 1e4])
def test_large_scores_keep_their_differences(shift):
    random = np.random.default_rng(0)
    known, unknown = random.normal(size=500) + 1, random.normal(size=500)
    plain = detection.auroc(detection.operating_points(known, unknown))
    assert 0.7 < plain < 0.8
    assert detection.auroc(detection.operating_points(known + shift, unknown + shift)) == pytest.approx(plain, abs=1e-4)


def test_fpr95_depends_on_what_is_positive_and_auroc_does_not():
    random = np.random.default_rng(1)
    known, unknown = random.normal(1.5, 2.0, 4000), random.normal(0, 0.5, 4000)
    points = detection.operating_points(known, unknown)
    mirrored = detection.operating_points(-unknown, -known)
    assert abs(detection.fpr95_id_pos(points) - detection.fpr95_ood_pos(points)) > 0.2
    assert detection.auroc(mirrored) == pytest.approx(detection.auroc(points), **exact)
    assert detection.fpr95_id_pos(mirrored) == detection.fpr95_ood_pos(points)


@pytest.mark.parametrize(("known", "unknown"), [(0, 5), (5, 0), (0, 0)])
def test_metrics_without_known_or_unknown_images_are_nan(known, unknown):
    scores = np.arange(known, dtype=float), np.arange(unknown, dtype=float)
    points = detection.operating_points(*scores, np.ones(known, dtype=bool))
    for metric in (
        detection.auroc,
        detection.aupr_known,
        detection.aupr_unknown,
        detection.fpr95_id_pos,
        detection.fpr95_ood_pos,
        detection.detection_accuracy,
        detection.oscr,
    ):
        assert math.isnan(metric(points))
    assert math.isnan(detection.oscr_arpl(*scores, np.ones(known, dtype=bool)))


def test_tensors_of_any_float_are_ranked_as_the_numbers_they_hold():
    known, unknown, correct = (torch.from_numpy(part) for part in synthetic(7, 30, 40))
    expected = detection.oscr(
        detection.operating_points(known.bfloat16().double(), unknown.bfloat16().double(), correct)
    )
    assert detection.oscr(detection.operating_points(known.bfloat16(), unknown.bfloat16(), correct)) == expected


def test_scores_that_are_nan_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        detection.operating_points(np.array([1.0, np.nan]), np.array([0.0]))


def test_infinite_scores_are_ranked():
    assert detection.auroc(detection.operating_points(np.array([np.inf, 0.0]), np.array([-np.inf, 0.0]))) == 0.875


def test_oscr_without_correctness_is_refused():
    with pytest.raises(ValueError, match="correct="):
        detection.oscr(detection.operating_points(np.ones(2), np.zeros(2)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=60),
    st.sampled_from([0.05, 0.5, 0.9, 0.95, 1.0]),
)
def test_the_threshold_at_a_rate_is_the_highest_that_accepts_so_many(scores, rate):
    scores = np.array(scores, dtype=float)
    threshold = detection.threshold_at_tpr(scores, rate)
    assert (scores >= threshold).mean() >= rate
    assert (scores > threshold).mean() < rate


def test_curves_are_thinned_and_keep_their_ends():
    known, unknown, correct = synthetic(0, 3000, 3000)
    x, y = detection.oscr_curve(detection.operating_points(known, unknown, correct))
    keep = curves.thin_curve(x, y)
    assert len(keep) <= 200
    assert (keep[0], keep[-1]) == (0, len(x) - 1)
    assert np.interp(x, x[keep], y[keep]) == pytest.approx(y, abs=0.01)
