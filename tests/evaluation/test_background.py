"""The background protocol against scikit-learn and against counts by hand; merged shares, memory, bad input."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn import metrics as sk

from ltr.errors import ConfigError, DataError, TrainingError
from ltr.evaluation.background import Background
from ltr.evaluation.scores import Scores

torch.set_num_threads(1)


def counts_for(foreground):
    """A large background, then counts that run through many, medium and few."""
    return np.array([5000, *((400, 50, 5)[c % 3] for c in range(foreground))])


def synthetic(seed, images=80, foreground=3, share=0.7, levels=None):
    random = np.random.default_rng(seed)
    labels = random.integers(1, foreground + 1, images)
    labels[random.random(images) < share] = 0
    logits = random.normal(size=(images, foreground + 1)) + 1.5 * np.eye(foreground + 1)[labels]
    logits[:, 0] = 0.1  # the constant of background thresholding
    if levels:
        logits = np.round(np.clip(logits, -2, 2) * levels / 4)
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(labels)


def updated(protocol, logits, labels, places=None, batch=7):
    places = torch.arange(len(labels)) if places is None else places
    for start in range(0, len(places), batch):
        part = places[start : start + batch]
        protocol.update(Scores(logits[part]), labels[part], part)
    return protocol


def evaluate(logits, labels, **options):
    return updated(Background(counts_for(logits.shape[1] - 1), **options), logits, labels).compute()


inputs = given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 60),
    foreground=st.integers(1, 20),
    levels=st.sampled_from([None, 1, 4]),
)


@settings(max_examples=50, deadline=None)
@inputs
def test_map_by_logit_equals_scikit_learn(seed, images, foreground, levels):
    logits, labels = synthetic(seed, images, foreground, levels=levels)
    result = evaluate(logits, labels, scorer="logit")
    present = [c for c in range(1, foreground + 1) if (labels == c).any()]
    expected = [sk.average_precision_score(labels == c, logits[:, c].double()) for c in present]
    np.testing.assert_allclose(result.per_class["average_precision"][[c - 1 for c in present]], expected, atol=1e-12)
    assert result.metrics["map"] == pytest.approx(np.mean(expected) if expected else math.nan, nan_ok=True, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), link=st.sampled_from(["softmax", "sigmoid"]))
def test_map_by_probability_equals_scikit_learn(seed, link):
    logits, labels = synthetic(seed, 200, 4)
    z = logits.double().numpy()
    probability = special.softmax(z, axis=1) if link == "softmax" else special.expit(z)
    expected = np.mean([sk.average_precision_score(labels == c, probability[:, c]) for c in range(1, 5)])
    assert evaluate(logits, labels, link=link).metrics["map"] == pytest.approx(expected, abs=1e-12)


def test_probability_and_logit_rank_differently_under_softmax_only():
    logits, labels = synthetic(0, 300, 4)
    by = {
        (scorer, link): evaluate(logits, labels, scorer=scorer, link=link).metrics["map"]
        for scorer in ("probability", "logit")
        for link in ("softmax", "sigmoid")
    }
    assert by["probability", "softmax"] != by["logit", "softmax"]
    assert by["probability", "sigmoid"] == by["logit", "sigmoid"] == by["logit", "softmax"]


def test_confident_images_are_still_ranked():
    logits = torch.zeros(100, 3)
    labels = torch.tensor([1, 0]).repeat(50)
    logits[:, 1] = torch.where(labels == 1, 70.0, 60.0)  # both are probability 1 in floating point
    assert evaluate(logits, labels).metrics["map"] == 1.0


@settings(max_examples=40, deadline=None)
@inputs
def test_precision_recall_and_f1_are_those_of_scikit_learn_over_the_foreground(seed, images, foreground, levels):
    logits, labels = synthetic(seed, images, foreground, levels=levels)
    present = sorted({int(label) for label in labels} - {0})
    if not present:
        return
    result = evaluate(logits, labels).metrics
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, logits.argmax(1), labels=present, average="macro", zero_division=0
    )
    assert result["macro_precision"] == pytest.approx(precision, abs=1e-12)
    assert result["macro_recall"] == pytest.approx(recall, abs=1e-12)
    assert result["macro_f1"] == pytest.approx(f1, abs=1e-12)
    assert result["accuracy"] == pytest.approx(sk.accuracy_score(labels, logits.argmax(1)))


def test_false_alarms_are_background_images_predicted_as_foreground():
    logits = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, -1.0], [0.0, 1.0]])
    result = evaluate(logits, torch.tensor([0, 0, 0, 1]))
    assert result.metrics["false_alarms_per_thousand"] == pytest.approx(1000 / 3)
    assert result.curves["false_alarms"].tolist() == [1]


def test_metrics_by_shot_group_are_means_over_its_classes():
    logits, labels = synthetic(1, 600, 6)
    result = evaluate(logits, labels)
    for group, classes in (("many", [0, 3]), ("medium", [1, 4]), ("few", [2, 5])):
        for metric, column in (("map", "average_precision"), ("macro_f1", "f1"), ("macro_recall", "recall")):
            assert result.metrics[f"{metric}_{group}"] == pytest.approx(result.per_class[column][classes].mean())
        assert result.metrics[group] == result.metrics[f"macro_recall_{group}"]


def test_the_background_is_excluded_from_the_class_table_and_shot_groups():
    result = evaluate(*synthetic(2, foreground=1))
    assert result.per_class["class_id"].tolist() == [1]
    assert result.per_class["group"].tolist() == ["many"]
    assert math.isnan(result.metrics["map_few"])


def test_a_class_without_evaluated_images_is_left_out_of_means():
    logits, labels = synthetic(3, 200, 4)
    labels[labels == 2] = 0
    result = evaluate(logits, labels)
    assert np.isnan(result.per_class["average_precision"]).tolist() == [False, True, False, False]
    assert result.metrics["map"] == pytest.approx(np.nanmean(result.per_class["average_precision"]))
    for name in ("precision_at_10", "r_precision", "recall_at_precision_90"):
        assert np.isnan(result.per_class[name]).tolist() == [False, True, False, False]
        assert result.metrics[name] == pytest.approx(np.nanmean(result.per_class[name]))


def test_precision_at_more_images_than_there_are_is_nan():
    result = evaluate(*synthetic(4, images=50)).metrics
    assert 0 <= result["precision_at_10"] <= 1
    assert math.isnan(result["precision_at_100"])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_metrics_without_background_or_foreground_are_nan(share):
    result = evaluate(*synthetic(5, share=share)).metrics
    missing = ("map", "macro_f1", "precision_at_10") if share else ("false_alarms_per_thousand",)
    assert all(math.isnan(result[name]) for name in missing)
    assert 0 <= result["accuracy"] <= 1


def test_no_images_at_all_are_nan():
    assert all(math.isnan(value) for value in Background(counts_for(3)).compute().metrics.values())


def test_metrics_do_not_depend_on_the_order_of_batches():
    logits, labels = synthetic(6, 90)
    whole = evaluate(logits, labels)
    protocol = Background(counts_for(3))
    for share in (torch.arange(40, 90), torch.arange(0), torch.arange(40)):
        updated(protocol, logits, labels, share, batch=11)
    together = protocol.compute()
    assert together.metrics == pytest.approx(whole.metrics, rel=1e-15, nan_ok=True)
    for kind in ("per_class", "predictions", "curves"):
        for name, values in getattr(whole, kind).items():
            np.testing.assert_array_equal(getattr(together, kind)[name], values)


def test_curves_hold_at_most_200_points_a_class_and_end_at_recall_1():
    logits, labels = synthetic(7, 3000, 3, share=0.5)
    labels[labels == 3] = 0
    labels[0] = 3
    curves = evaluate(logits, labels).curves
    assert curves["pr_recall"].shape == curves["pr_precision"].shape == (3, 200)
    assert curves["pr_recall"][:2, -1].tolist() == [1.0, 1.0]
    assert np.isnan(curves["pr_recall"][2, 1:]).all()
    assert curves["histogram_background"].sum() == (labels == 0).sum()
    assert curves["histogram_foreground"].sum() == (labels != 0).sum()


def test_predictions_are_sorted_by_image():
    logits, labels = synthetic(8, 30)
    backwards = updated(Background(counts_for(3)), logits, labels, torch.arange(29, -1, -1)).compute().predictions
    assert backwards["id"].tolist() == list(range(30))
    assert backwards["prediction"].tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(
        backwards["scores"], logits.softmax(1).sort(dim=1, descending=True).values[:, :5], rtol=1e-6
    )
    assert evaluate(logits, labels, keep_predictions=False).predictions == {}


def test_memory_per_image_equals_the_documented_bytes():
    assert Background(counts_for(100), keep_predictions=False).bytes_per_image == 4 * 100 + 8
    assert Background(counts_for(100)).bytes_per_image == 4 * 100 + 8 + 48


@pytest.mark.parametrize("scorer", ["probability", "logit"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(scorer, bad):
    logits, labels = synthetic(0)
    logits[3, 0] = bad
    with pytest.raises(TrainingError, match="1 of 80 images"):
        evaluate(logits, labels, scorer=scorer)


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range_are_refused(label):
    logits, labels = synthetic(0)
    labels[0] = label
    with pytest.raises(DataError, match="1 of 80"):
        evaluate(logits, labels)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scorer": "logits"}, "probability or logit"),
        ({"link": "softmx"}, "softmax"),
        ({"many_above": 5, "few_below": 50}, "overlap"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        Background(counts_for(3), **options)


def test_a_split_without_foreground_is_refused():
    with pytest.raises(ConfigError, match="at least one foreground class"):
        Background(np.array([100]))


def test_updates_in_inference_mode_give_the_same_metrics():
    logits, labels = synthetic(9)
    protocol = Background(counts_for(3))
    with torch.inference_mode():
        updated(protocol, logits, labels)
    assert protocol.compute().metrics == pytest.approx(evaluate(logits, labels).metrics, nan_ok=True)
