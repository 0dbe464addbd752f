"""The open-set protocol: against scikit-learn, against sweeps over every threshold, in shares and at its edges."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ltr.errors import ConfigError, DataError, TrainingError
from ltr.evaluation import open_decisions
from ltr.evaluation.open_set import OpenSet
from ltr.evaluation.scorers import known_scores
from ltr.evaluation.scores import Scores

torch.set_num_threads(1)

SCORER = st.sampled_from(["msp", "max_logit", "energy", "entropy"])


def counts_for(classes):
    """Counts that run through many, medium and few."""
    return np.array([(400, 50, 5)[c % 3] for c in range(classes)])


def synthetic(seed, images=60, classes=4, unknown=0.4, levels=None):
    """Logits and labels, -1 for unknown images, whose logits are smaller."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.normal(size=(images, classes)) + 2 * np.eye(classes)[labels]
    labels[random.random(images) < unknown] = -1
    logits[labels < 0] *= 0.7
    if levels:
        logits = np.round(np.clip(logits, -2, 2) * levels / 4)
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(labels)


def updated(protocol, logits, labels, places=None, batch=7):
    places = torch.arange(len(labels)) if places is None else places
    for start in range(0, len(places), batch):
        part = places[start : start + batch]
        protocol.update(Scores(logits[part], knownness=logits[part].sum(1)), labels[part], part)
    return protocol


def evaluate(logits, labels, **options):
    return updated(OpenSet(counts_for(logits.shape[1]), **options), logits, labels).compute()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), images=st.integers(8, 60), levels=st.sampled_from([None, 2, 4]), scorer=SCORER)
def test_detection_equals_scikit_learn(seed, images, levels, scorer):
    logits, labels = synthetic(seed, images, levels=levels)
    known = (labels >= 0).numpy()
    if known.all() or not known.any():
        return
    result = evaluate(logits, labels, scorer=scorer).metrics
    score = known_scores(scorer, Scores(logits), "softmax").numpy()
    assert result["auroc"] == pytest.approx(sk.roc_auc_score(known, score), abs=1e-12)
    assert result["aupr_known"] == pytest.approx(sk.average_precision_score(known, score), abs=1e-12)
    assert result["aupr_unknown"] == pytest.approx(sk.average_precision_score(~known, -score), abs=1e-12)
    assert result["oscr"] <= result["auroc"]
    closed = sk.accuracy_score(labels[known], logits[known].argmax(1))
    assert result["closed_set_accuracy"] == result["accuracy"] == pytest.approx(closed, abs=1e-12)


def test_oscr_equals_auroc_if_every_known_image_is_correct():
    logits, labels = synthetic(1, 200)
    logits[labels >= 0, labels[labels >= 0]] = 9.0
    logits[labels < 0, 0] = 9.0
    result = evaluate(logits, labels).metrics
    assert result["closed_set_accuracy"] == 1.0
    assert result["oscr"] == result["auroc"] < 1.0


def decided(score, prediction, labels, threshold):
    return np.where(score >= threshold, prediction, -1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 50),
    classes=st.integers(1, 6),
    levels=st.sampled_from([None, 1, 3]),
    threshold=st.floats(-3, 3),
)
def test_macro_f1_over_known_classes_and_unknown_is_that_of_scikit_learn(seed, images, classes, levels, threshold):
    logits, labels = synthetic(seed, images, classes, levels=levels)
    if (labels >= 0).all():
        return
    protocol = OpenSet(counts_for(classes), scorer="max_logit").with_threshold(threshold)
    result = updated(protocol, logits, labels).compute().metrics
    decision = decided(logits.amax(1).double().numpy(), logits.argmax(1).numpy(), labels, threshold)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sk.f1_score(labels.numpy(), decision, average="macro", zero_division=0)
    assert result["open_macro_f1_validation"] == pytest.approx(expected, abs=1e-12)
    assert result["threshold_validation"] == pytest.approx(threshold)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 40),
    classes=st.integers(1, 7),
    levels=st.sampled_from([None, 1, 3]),
    unknown=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_the_oracle_is_the_best_of_all_thresholds(seed, images, classes, levels, unknown):
    logits, labels = synthetic(seed, images, classes, unknown, levels)
    score, prediction, label = logits.amax(1).double().numpy(), logits.argmax(1).numpy(), labels.numpy()
    result = open_decisions.best_threshold(score, prediction, label, classes)
    if (label >= 0).all():
        assert math.isnan(result)
        return
    thresholds = np.append(np.nextafter(score.max(), np.inf), np.unique(score)[::-1])
    every = [
        open_decisions.open_macro_f1(open_decisions.decide_open_set(score, prediction, t), label, classes)
        for t in thresholds
    ]
    assert result == thresholds[np.flatnonzero(np.array(every) >= max(every) - 1e-12)[0]]
    assert evaluate(logits, labels, scorer="max_logit").metrics["open_macro_f1_oracle"] == pytest.approx(max(every))


def test_the_best_threshold_may_reject_every_image():
    score, label = np.arange(5.0), np.full(5, -1)
    threshold = open_decisions.best_threshold(score, np.zeros(5, int), label, 3)
    assert 4 < threshold < math.inf
    decision = open_decisions.decide_open_set(score, np.zeros(5, int), threshold)
    assert open_decisions.open_macro_f1(decision, label, 3) == 1.0
    # an infinite score cannot be rejected by a finite threshold
    assert open_decisions.best_threshold(np.array([math.inf]), np.zeros(1, int), np.array([-1]), 3) == math.inf


def test_the_f_measure_is_counted_as_in_open_long_tailed_recognition():
    label = np.array([0, 0, 1, 1, -1, -1, -1])
    decision = np.array([0, 1, 1, -1, -1, 0, -1])
    # 2 right; wrong: one of the other class, one called unknown; one unknown image taken for known
    assert open_decisions.open_f_measure(decision, label) == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))


def test_the_fixed_threshold_is_a_probability():
    logits = torch.log(torch.tensor([[0.95, 0.03, 0.02], [0.4, 0.3, 0.3], [0.4, 0.3, 0.3], [0.6, 0.2, 0.2]]))
    result = evaluate(logits, torch.tensor([0, 0, -1, -1]), fixed_threshold=0.5).metrics
    assert result["threshold_fixed"] == 0.0
    assert (result["open_accuracy_fixed"], result["unknown_rejected_fixed"]) == (0.5, 0.5)
    assert result["many_fixed"] == 0.5
    assert result["closed_set_accuracy"] == result["many"] == 1.0


def test_a_probability_threshold_applies_to_msp_only():
    result = evaluate(*synthetic(0), scorer="max_logit").metrics
    assert math.isnan(result["threshold_fixed"])
    assert math.isnan(result["open_macro_f1_fixed"])


def test_without_a_threshold_from_validation_its_metrics_are_nan():
    result = evaluate(*synthetic(0)).metrics
    assert all(math.isnan(value) for name, value in result.items() if name.endswith("_validation"))
    assert not any(math.isnan(result[f"open_macro_f1_{source}"]) for source in ("fixed", "oracle"))


def test_the_threshold_of_validation_images_accepts_95_percent_of_them():
    logits, labels = synthetic(2, images=400, unknown=0.0)
    result = evaluate(logits, labels, scorer="energy")
    share = (known_scores("energy", Scores(logits), "softmax") >= result.threshold_at_95_tpr).double().mean()
    assert 0.95 <= share < 0.96
    with_threshold_from_val = OpenSet(counts_for(4), scorer="energy").with_threshold(result.threshold_at_95_tpr)
    assert updated(with_threshold_from_val, logits, labels).compute().metrics["open_accuracy_validation"] > 0.5


@pytest.mark.parametrize("source", ["oracle", "two words", ""])
def test_a_threshold_names_its_source(source):
    with pytest.raises(ValueError, match="source"):
        OpenSet(counts_for(3)).with_threshold(0.0, source)


def test_without_unknown_images_only_the_closed_set_is_evaluated():
    result = evaluate(*synthetic(0, unknown=0.0))
    about_unknown = ("auroc", "aupr_known", "aupr_unknown", "fpr95_id_pos", "fpr95_ood_pos", "detection_accuracy")
    for name in (*about_unknown, "oscr", "oscr_arpl", "open_macro_f1_fixed", "open_f_measure_fixed"):
        assert math.isnan(result.metrics[name]), name
    assert result.metrics["closed_set_accuracy"] > 0.5
    assert "roc_fpr" not in result.curves


def test_metrics_without_known_images_are_nan():
    result = evaluate(*synthetic(0, unknown=1.0))
    for name in ("closed_set_accuracy", "balanced_accuracy", "many", "auroc", "oscr", "open_f_measure_fixed"):
        assert math.isnan(result.metrics[name]), name
    assert math.isnan(result.threshold_at_95_tpr)


def test_no_images_at_all_are_nan():
    result = OpenSet(counts_for(3)).compute()
    assert all(math.isnan(v) for name, v in result.metrics.items() if name != "threshold_fixed")


def test_shot_groups_follow_the_training_counts():
    logits, labels = synthetic(3, 300, classes=6)
    result = evaluate(logits, labels)
    accuracy = result.per_class["accuracy"]
    assert result.metrics["many"] == pytest.approx(accuracy[[0, 3]].mean())
    assert result.metrics["few"] == pytest.approx(accuracy[[2, 5]].mean())
    assert result.metrics["balanced_accuracy"] == pytest.approx(accuracy.mean())
    assert math.isnan(evaluate(*synthetic(3, classes=1)).metrics["few"])


@pytest.mark.parametrize("scorer", ["msp", "distance"])
def test_metrics_do_not_depend_on_the_order_of_batches(scorer):
    logits, labels = synthetic(4, 90)
    whole = evaluate(logits, labels, scorer=scorer)
    protocol = OpenSet(counts_for(4), scorer=scorer)
    for share in (torch.arange(50, 90), torch.arange(0), torch.arange(50)):
        updated(protocol, logits, labels, share, batch=11)
    together = protocol.compute()
    # the compatible OSCR alone depends on the order, where scores are equal
    assert together.metrics == pytest.approx(whole.metrics, rel=1e-12, nan_ok=True)
    for name, values in whole.predictions.items():
        np.testing.assert_array_equal(together.predictions[name], values)
    for name, values in whole.curves.items():
        np.testing.assert_array_equal(together.curves[name], values)


def test_predictions_name_unknown_images_and_scores():
    logits, labels = synthetic(5, 30)
    rows = evaluate(logits, labels, scorer="max_logit").predictions
    assert rows["id"].tolist() == list(range(30))
    assert rows["label"].tolist() == labels.tolist()
    assert rows["prediction"].tolist() == logits.argmax(1).tolist()
    np.testing.assert_array_equal(rows["known_score"].astype(np.float32), logits.amax(1))
    assert rows["top5"].shape == rows["scores"].shape == (30, 4)
    assert evaluate(logits, labels, keep_predictions=False).predictions == {}


def test_histograms_count_every_image_once_even_an_infinite_score():
    logits, labels = synthetic(6, 50)
    curves = evaluate(logits, labels).curves
    counted = [curves[f"histogram_{kind}"].sum() for kind in ("correct", "wrong", "unknown")]
    assert sum(counted) == 50
    assert counted[2] == (labels < 0).sum()
    one_class = evaluate(torch.zeros(5, 1), torch.tensor([0, 0, 0, -1, -1]))
    assert sum(one_class.curves[f"histogram_{kind}"].sum() for kind in ("correct", "wrong", "unknown")) == 5
    assert one_class.metrics["auroc"] == 0.5


def test_the_curve_of_oscr_ends_at_the_closed_set_accuracy():
    result = evaluate(*synthetic(7, 500))
    assert result.curves["oscr_ccr"][-1] == result.metrics["closed_set_accuracy"]
    assert len(result.curves["oscr_ccr"]) <= 200


def test_saturated_logits_are_distinguished():
    random = np.random.default_rng(0)
    logits = torch.zeros(400, 3)
    labels = torch.tensor([0, -1]).repeat(200)
    logits[:, 0] = torch.tensor(np.where(labels == 0, 62.0, 60.0) + random.normal(0, 1, 400), dtype=torch.float32)
    assert evaluate(logits, labels, scorer="msp").metrics["auroc"] > 0.85


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    logits, labels = synthetic(0)
    logits[3, 1] = bad
    with pytest.raises(TrainingError, match="1 of 60 images"):
        evaluate(logits, labels)


def test_a_distance_that_is_not_finite_is_refused():
    protocol = OpenSet(counts_for(3), scorer="distance")
    protocol.update(Scores(torch.zeros(2, 3), knownness=torch.tensor([1.0, math.inf])), torch.tensor([0, 1]))
    with pytest.raises(TrainingError, match="1 of 2 images"):
        protocol.compute()


@pytest.mark.parametrize("label", [-2, 4])
def test_labels_out_of_range_are_refused(label):
    logits, labels = synthetic(0)
    labels[0] = label
    with pytest.raises(DataError, match="1 of 60"):
        evaluate(logits, labels)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scorer": "mps"}, "msp"),
        ({"link": "softmx"}, "softmax"),
        ({"fixed_threshold": 1.5}, "probability"),
        ({"many_above": 5, "few_below": 50}, "overlap"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        OpenSet(counts_for(3), **options)


def test_updates_in_inference_mode_give_the_same_metrics():
    logits, labels = synthetic(8)
    protocol = OpenSet(counts_for(4))
    with torch.inference_mode():
        updated(protocol, logits, labels)
    assert protocol.compute().metrics == pytest.approx(evaluate(logits, labels).metrics, nan_ok=True)
