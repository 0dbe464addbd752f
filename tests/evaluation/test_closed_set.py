"""The closed-set protocol against scikit-learn and against naive definitions."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ltr.errors import ConfigError, DataError, TrainingError
from ltr.evaluation.closed_set import ClosedSet
from ltr.evaluation.groups import GROUPS
from ltr.evaluation.scores import Scores

torch.set_num_threads(1)


SMOOTH = ("scores", "nll", "mean_confidence")


def counts_for(classes: int) -> np.ndarray:
    """Counts that run through many, medium and few."""
    return np.array([(400, 50, 5)[c % 3] + c for c in range(classes)])


def evaluate(logits, labels, class_counts=None, batch=7, **options):
    logits, labels = torch.as_tensor(logits, dtype=torch.float32), torch.as_tensor(labels)
    class_counts = counts_for(logits.shape[1]) if class_counts is None else class_counts
    protocol = ClosedSet(class_counts, **options)
    for start in range(0, len(labels), batch):
        part = slice(start, start + batch)
        protocol.update(Scores(logits[part]), labels[part], torch.arange(len(labels))[part])
    return protocol.compute()


def synthetic(seed, images=60, classes=6, levels=None):
    """Informative logits; ``levels`` limits the number of values, which gives ties."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.normal(size=(images, classes)) + 1.5 * np.eye(classes)[labels]
    if levels:
        logits = np.round(np.clip(logits, -2, 2) * levels / 4)
    return logits.astype(np.float32), labels


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def naive_ece(confidence, right, bins):
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (b == 0 and c == 0)]
        if inside:
            total += abs(sum(right[i] for i in inside) - sum(confidence[i] for i in inside)) / len(confidence)
    return total


inputs = given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 40),
    classes=st.integers(2, 9),
    levels=st.sampled_from([None, 1, 4]),
)


@settings(max_examples=60, deadline=None)
@inputs
def test_accuracies_and_f1_are_those_of_scikit_learn(seed, images, classes, levels):
    logits, labels = synthetic(seed, images, classes, levels)
    predicted = logits.argmax(1)
    result = evaluate(logits, labels).metrics
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of predicted classes that have no label
        assert result["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted), abs=1e-12)
        assert result["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"), abs=1e-12)
    assert result["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted), abs=1e-12)


@settings(max_examples=30, deadline=None)
@inputs
def test_per_class_table_is_that_of_scikit_learn(seed, images, classes, levels):
    logits, labels = synthetic(seed, images, classes, levels)
    table = evaluate(logits, labels).per_class
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, logits.argmax(1), labels=np.arange(classes), zero_division=np.nan
    )
    np.testing.assert_allclose(table["precision"], precision, rtol=1e-12)
    np.testing.assert_allclose(table["recall"], recall, rtol=1e-12)
    np.testing.assert_allclose(table["f1"], f1, rtol=1e-12)
    assert table["n"].tolist() == support.tolist()


@pytest.mark.parametrize("top_k", [1, 3, 5])
def test_top_k_accuracy_is_that_of_scikit_learn(top_k):
    logits, labels = synthetic(0, images=200, classes=9)
    expected = sk.top_k_accuracy_score(labels, logits, k=top_k, labels=np.arange(9))
    assert evaluate(logits, labels, top_k=top_k).metrics[f"top{top_k}"] == pytest.approx(expected, abs=1e-12)


def test_top_k_is_all_classes_where_there_are_fewer():
    result = evaluate(*synthetic(1, classes=2))
    assert result.metrics["top5"] == 1.0
    assert result.predictions["top5"].shape == (60, 2)


def test_nll_is_the_log_loss_of_scikit_learn():
    logits, labels = synthetic(2)
    expected = sk.log_loss(labels, softmax(logits), labels=np.arange(6))
    assert evaluate(logits, labels).metrics["nll"] == pytest.approx(expected, rel=1e-5)


def test_nll_of_probabilities_too_small_for_a_float_is_not_clipped():
    assert evaluate([[1000.0, 0.0], [0.0, 500.0]], [1, 1]).metrics["nll"] == 500.0


def test_sigmoid_nll_is_the_log_loss_of_all_answers_of_an_image():
    logits, labels = synthetic(3)
    one_hot = np.eye(6)[labels]
    expected = np.mean(
        [sk.log_loss(y, 1 / (1 + np.exp(-z)), normalize=False) for y, z in zip(one_hot, logits.astype(float))]
    )
    assert evaluate(logits, labels, link="sigmoid").metrics["nll"] == pytest.approx(expected, rel=1e-5)


def test_an_impossible_label_gives_an_infinite_nll():
    assert evaluate([[-np.inf, 0.0]], [0]).metrics["nll"] == math.inf


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), bins=st.sampled_from([1, 2, 10, 15]), link=st.sampled_from(["softmax", "sigmoid"]))
def test_calibration_error_equals_a_naive_loop(seed, bins, link):
    logits, labels = synthetic(seed, images=50, levels=8)
    result = evaluate(logits, labels, calibration_bins=bins, link=link)
    confidence = result.predictions["scores"][:, 0].astype(float)
    right = logits.argmax(1) == labels
    few = counts_for(6)[labels] < 20
    assert result.metrics["ece"] == pytest.approx(naive_ece(confidence, right, bins), abs=1e-7)
    assert result.metrics["ece_few"] == pytest.approx(naive_ece(confidence[few], right[few], bins), abs=1e-7)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_recorded_scores_are_the_probabilities_of_the_link(link):
    logits, labels = synthetic(4)
    expected = softmax(logits) if link == "softmax" else 1 / (1 + np.exp(-logits.astype(float)))
    kept = evaluate(logits, labels, link=link).predictions
    np.testing.assert_allclose(kept["scores"], -np.sort(-expected, axis=1)[:, :5], rtol=1e-5)


def test_mean_confidence_of_a_class_is_over_its_images():
    logits, labels = synthetic(5)
    expected = [softmax(logits).max(1)[labels == c].mean() for c in range(6)]
    np.testing.assert_allclose(evaluate(logits, labels).per_class["mean_confidence"], expected, rtol=1e-6)


def test_group_accuracy_is_the_unweighted_mean_over_the_present_classes_of_the_group():
    class_counts = np.array([500, 400, 300, 50, 5, 5])
    labels = np.array([0, 0, 0, 0, 1, 3, 4])  # class 2 (many) and class 5 (few) are absent
    predicted = np.array([0, 0, 0, 1, 1, 3, 0])
    result = evaluate(np.eye(6)[predicted], labels, class_counts).metrics
    assert [result[name] for name in GROUPS] == [(0.75 + 1) / 2, 1.0, 0.0]
    assert result["balanced_accuracy"] == (0.75 + 1 + 1 + 0) / 4


def test_a_group_without_classes_or_without_images_is_nan():
    result = evaluate(np.eye(3)[[0, 1]], [0, 1], np.array([500, 200, 50])).metrics
    assert result["many"] == 1.0
    assert math.isnan(result["medium"])
    assert math.isnan(result["few"])
    assert math.isnan(result["ece_few"])


def test_geometric_mean_is_over_present_classes():
    predicted, labels = [0, 0, 1, 0], [0, 0, 1, 1]
    assert evaluate(np.eye(3)[predicted], labels).metrics["geometric_mean"] == pytest.approx(math.sqrt(0.5))


def test_geometric_mean_is_zero_when_one_class_is_never_right():
    assert evaluate(np.eye(3)[[0, 0]], [0, 1]).metrics["geometric_mean"] == 0.0


def test_without_images_everything_is_nan():
    result = ClosedSet(counts_for(4)).compute()
    assert all(math.isnan(value) for value in result.metrics.values())
    assert result.predictions["top5"].shape == (0, 4)


def test_equal_scores_predict_the_lowest_class():
    result = evaluate(np.zeros((4, 3)), [0, 1, 2, 0])
    assert result.metrics["accuracy"] == 0.5
    assert result.per_class["correct"].tolist() == [2, 0, 0]


def test_predictions_are_sorted_by_index():
    protocol = ClosedSet(counts_for(3))
    for ids in ([7, 2], [5]):
        labels = torch.tensor(ids) % 3
        protocol.update(Scores(torch.eye(3)[labels]), labels, torch.tensor(ids))
    rows = protocol.compute().predictions
    assert rows["id"].tolist() == [2, 5, 7]
    assert rows["label"].tolist() == rows["prediction"].tolist() == [2, 2, 1]


def test_without_indices_images_are_numbered_in_order():
    protocol = ClosedSet(counts_for(3))
    for size in (2, 3):
        protocol.update(Scores(torch.randn(size, 3)), torch.zeros(size, dtype=torch.int64))
    assert protocol.compute().predictions["id"].tolist() == [0, 1, 2, 3, 4]


def test_metrics_do_not_depend_on_recording_predictions():
    logits, labels = synthetic(7)
    short = evaluate(logits, labels, keep_predictions=False)
    assert short.metrics == evaluate(logits, labels).metrics
    assert short.predictions == {}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 60), link=st.sampled_from(["softmax", "sigmoid"]))
def test_two_batches_in_any_order_equal_one(seed, cut, link):
    logits, labels = map(torch.from_numpy, synthetic(seed))
    ids = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    whole, parts = (ClosedSet(counts_for(6), link=link) for _ in range(2))
    whole.update(Scores(logits), labels, ids)
    parts.update(Scores(logits[cut:]), labels[cut:], ids[cut:])
    parts.update(Scores(logits[:cut]), labels[:cut], ids[:cut])
    one, two = whole.compute(), parts.compute()
    for name in ("per_class", "predictions"):
        for key, column in getattr(one, name).items():
            # exp of one image may differ in its last bit with the image's place in the batch; counts may not differ
            compare = np.testing.assert_allclose if key in SMOOTH else np.testing.assert_array_equal
            compare(
                column, getattr(two, name)[key], err_msg=f"{name} {key}", **({"rtol": 1e-6} if key in SMOOTH else {})
            )
    assert one.metrics == pytest.approx(two.metrics, rel=1e-6, nan_ok=True)
    counted = ("accuracy", "top5", *GROUPS, "balanced_accuracy", "geometric_mean", "macro_f1")
    assert [one.metrics[name] for name in counted] == [two.metrics[name] for name in counted]


def test_the_size_of_a_batch_changes_no_count():
    logits, labels = synthetic(8)
    for column in ("n", "correct", "precision", "f1"):
        np.testing.assert_array_equal(*(evaluate(logits, labels, batch=size).per_class[column] for size in (1, 60)))


def test_bfloat16_scores_are_read_as_float32():
    protocol = ClosedSet(counts_for(3))
    protocol.update(Scores(torch.eye(3, dtype=torch.bfloat16)), torch.arange(3))
    assert protocol.compute().metrics["accuracy"] == 1.0


def test_counters_created_in_inference_mode_can_be_updated_outside_of_it():
    with torch.inference_mode():
        protocol = ClosedSet(counts_for(3))
        protocol.update(Scores(torch.eye(3)), torch.arange(3))
    protocol.update(Scores(torch.eye(3)), torch.arange(3))
    assert protocol.compute().per_class["n"].tolist() == [2, 2, 2]


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("classes", [3, 1000])
def test_update_never_reads_a_value_back_from_the_device(link, classes):
    # meta tensors have no values: whatever needs one (item, bincount, a mask as index) raises
    protocol = ClosedSet(np.full(classes, 30), link=link, device="meta")
    labels = torch.zeros(4, dtype=torch.int64, device="meta")
    protocol.update(Scores(torch.zeros(4, classes, device="meta")), labels, labels)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        protocol.compute()  # which does read them


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_update_on_a_gpu_does_not_wait_and_counts_as_on_the_cpu(link):
    logits, labels = map(torch.from_numpy, synthetic(9, images=500, classes=900, levels=8))
    protocol = ClosedSet(counts_for(900), link=link, device="cuda")
    scores, on_device = Scores(logits.cuda()), labels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        protocol.update(scores, on_device, on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = evaluate(logits, labels, link=link, batch=500).per_class["correct"]
    assert protocol.compute().per_class["correct"].tolist() == expected.tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_non_finite_scores_stop_the_evaluation(bad, link):
    logits, labels = synthetic(10)
    logits[3, 2] = bad
    with pytest.raises(TrainingError, match=r"not finite .* for 1 of 60 images"):
        evaluate(logits, labels, link=link)


@pytest.mark.parametrize("label", [-1, 6])
def test_labels_out_of_range_stop_the_evaluation(label):
    logits, labels = synthetic(11)
    labels[5] = label
    with pytest.raises(DataError, match=r"1 of 60 evaluated images have a label outside 0\.\.5"):
        evaluate(logits, labels)


def test_scores_of_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 4\)"):
        ClosedSet(counts_for(3)).update(Scores(torch.zeros(2, 4)), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("options", [{"link": "sofmax"}, {"top_k": 0}, {"calibration_bins": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        ClosedSet(counts_for(3), **options)
