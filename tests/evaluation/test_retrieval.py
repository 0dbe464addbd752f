"""Recall@K, MAP@R and R-precision against a naive ranking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr.errors import ConfigError, TrainingError
from ltr.evaluation import retrieval
from ltr.evaluation.retrieval import Retrieval, nearest_of_class, normalised_mutual_information
from ltr.evaluation.scores import Scores


def synthetic(seed: int, n: int = 60, classes: int = 7, width: int = 3, levels: int | None = None):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    features = random.normal(size=(n, width)) + labels[:, None] * 0.3
    if levels:
        features = np.round(features * levels) / levels  # many equal distances, all exact in float32
    return features.astype(np.float32), labels


def naive(features: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """A ranking of one query after another; among ties, other classes come first."""
    neighbours = {name: np.zeros(len(labels)) for name in ("rank", "map_at_r", "r_precision")}
    for query in range(len(labels)):
        others = np.delete(np.arange(len(labels)), query)
        distance = ((features[others].astype(np.float64) - features[query]) ** 2).sum(1)
        same = labels[others] == labels[query]
        hits = same[np.lexsort((same, distance))]
        r = int(same.sum())
        neighbours["rank"][query] = np.flatnonzero(hits)[0] + 1 if r else len(labels)
        if r:
            precision = hits.cumsum() / np.arange(1, len(hits) + 1)
            neighbours["r_precision"][query] = hits[:r].mean()
            neighbours["map_at_r"][query] = (precision * hits)[:r].sum() / r
    return neighbours


def evaluated(features, labels, **options):
    evaluate = Retrieval(**options)
    evaluate.update(Scores(torch.empty(len(labels), 0), torch.as_tensor(features)), torch.as_tensor(labels))
    return evaluate.compute()


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_those_of_a_naive_ranking(seed, levels):
    features, labels = synthetic(seed, levels=levels)
    neighbours = nearest_of_class(torch.as_tensor(features), torch.as_tensor(labels))
    for name, expected in naive(features, labels).items():
        assert neighbours[name] == pytest.approx(expected, abs=1e-12), name


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 2)), min_size=2, max_size=25))
def test_ties_and_lone_classes_are_ranked_as_the_naive_ranking_does(rows):
    labels = np.array([label for label, _ in rows])
    features = np.array([[value] for _, value in rows], dtype=np.float32)
    neighbours = nearest_of_class(torch.as_tensor(features), torch.as_tensor(labels))
    for name, expected in naive(features, labels).items():
        assert neighbours[name] == pytest.approx(expected, abs=1e-12), name


def test_metrics_do_not_depend_on_the_block_size(monkeypatch):
    features, labels = map(torch.as_tensor, synthetic(1))
    whole = nearest_of_class(features, labels)
    monkeypatch.setattr(retrieval, "_DISTANCES", 7 * len(labels))
    in_blocks = nearest_of_class(features, labels)
    for name in whole:
        assert in_blocks[name] == pytest.approx(whole[name], abs=1e-5)


def test_recall_counts_the_queries_that_have_another_of_their_class():
    # on a line: a a . b, and one of c alone
    features, labels = np.array([[0.0], [1.0], [1.5], [5.0], [5.5]], np.float32), np.array([0, 0, 1, 1, 2])
    metrics = evaluated(features, labels, recall_at=(1, 2, 3)).metrics
    assert metrics["queries"] == 4
    assert metrics["recall_at_1"] == 1 / 4  # the first alone: the second's nearest is of b
    assert metrics["recall_at_2"] == 3 / 4
    assert metrics["recall_at_3"] == 4 / 4


def test_a_collapsed_embedding_has_no_recall():
    metrics = evaluated(np.ones((20, 4), np.float32), np.arange(20) % 2).metrics
    assert metrics["recall_at_1"] == metrics["map_at_r"] == 0.0


def test_well_separated_classes_have_full_recall():
    labels = np.arange(40) % 4
    features = np.eye(4, dtype=np.float32)[labels] * 100 + np.random.default_rng(0).normal(size=(40, 4)) * 0.1
    metrics = evaluated(features.astype(np.float32), labels).metrics
    assert metrics["recall_at_1"] == metrics["map_at_r"] == metrics["r_precision"] == metrics["nmi"] == 1.0


def test_distances_are_accurate_far_from_the_origin():
    features, labels = synthetic(3)
    near = nearest_of_class(torch.as_tensor(features), torch.as_tensor(labels))
    far = nearest_of_class(torch.as_tensor(features + 1024.0), torch.as_tensor(labels))
    assert (near["rank"] != far["rank"]).mean() < 0.05  # the shift itself rounds the features


def test_metrics_do_not_depend_on_the_order_of_batches():
    features, labels = map(torch.as_tensor, synthetic(5))
    ids = torch.arange(len(labels))
    protocol = Retrieval()
    for part in (slice(1, None, 2), slice(0, None, 2)):
        protocol.update(Scores(torch.empty(0), features[part]), labels[part], ids[part])
    reordered, whole = protocol.compute(), evaluated(features, labels)
    assert reordered.metrics == whole.metrics
    assert np.array_equal(reordered.predictions["id"], whole.predictions["id"])
    assert np.array_equal(reordered.predictions["nearest"], whole.predictions["nearest"])


def test_predictions_name_the_nearest_image():
    features, labels = np.array([[0.0], [1.0], [3.0], [3.5]], np.float32), np.array([0, 0, 0, 1])
    rows = evaluated(features, labels).predictions
    assert rows["nearest"].tolist() == [1, 0, 3, 2]
    assert rows["prediction"].tolist() == [0, 0, 1, 0]
    assert rows["rank"].tolist() == [1, 1, 2, 0]
    assert rows["scores"][:, 0] == pytest.approx([-1, -1, -0.5, -0.5], abs=1e-6)


def test_features_that_are_not_finite_are_an_error():
    with pytest.raises(TrainingError, match="not finite"):
        evaluated(np.array([[np.nan], [1.0]], np.float32), np.array([0, 0]))


def test_a_k_below_one_is_refused():
    with pytest.raises(ConfigError, match="recall_at"):
        Retrieval(recall_at=(0, 1))


def test_recall_without_queries_is_nan():
    assert np.isnan(evaluated(np.zeros((1, 2), np.float32), np.array([3])).metrics["recall_at_1"])


def test_mutual_information_of_one_class_is_nan():
    assert np.isnan(normalised_mutual_information(np.zeros((3, 2)), np.zeros(3)))
