"""Acquisition strategies against plain formulas, and properties of every selection."""

import itertools

import numpy as np
import pytest
from scipy.stats import entropy

from ltr.apply import acquisition
from ltr.apply.acquisition import STRATEGIES, PoolScores, cluster_margin, entropies, k_centre, margins, select
from ltr.errors import ConfigError


@pytest.fixture
def pool():
    random = np.random.default_rng(0)
    logits = random.normal(size=(80, 5)) * 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return PoolScores(p.astype(np.float32), 0, random.normal(size=(80, 3)).astype(np.float32))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("min_distance", [0.0, 0.3])
def test_every_strategy_selects_each_image_once_and_fills_the_budgets(pool, strategy, min_distance):
    selection = select(strategy, pool, {1: 7, 3: 12}, min_distance=min_distance)
    assert len(set(selection.images.tolist())) == len(selection.images) == 19
    if strategy in ("probability", "background_split"):
        assert np.bincount(selection.classes).tolist() == [0, 7, 0, 12]
    again = select(strategy, pool, {1: 7, 3: 12}, min_distance=min_distance)
    np.testing.assert_array_equal(again.images, selection.images)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_budget_larger_than_the_pool_selects_all_of_it(pool, strategy):
    selection = select(strategy, pool, {1: 60, 2: 60}, min_distance=0.1)
    assert sorted(selection.images.tolist()) == list(range(80))


def test_entropy_and_margin_follow_their_definitions(pool):
    p = pool.probabilities
    np.testing.assert_allclose(entropies(p), entropy(p.astype(np.float64), axis=1), rtol=1e-6)
    ordered = np.sort(p, axis=1)
    np.testing.assert_allclose(margins(p), ordered[:, -1] - ordered[:, -2], rtol=1e-6)
    best = select("entropy", pool, {1: 5}).images
    assert set(best) == set(np.argsort(-entropy(p, axis=1))[:5])
    assert set(select("margin", pool, {1: 5}).images) == set(np.argsort(ordered[:, -1] - ordered[:, -2])[:5])


def test_probabilities_of_sigmoids_are_divided_by_their_sum():
    np.testing.assert_allclose(entropies(np.array([[0.4, 0.4], [0.1, 0.1]])), np.log(2))


def test_probability_alternates_between_classes_and_selects_an_image_for_one_class_only():
    p = np.array([[0.0, 0.9, 0.8], [0.0, 0.5, 0.7], [0.0, 0.4, 0.1]], dtype=np.float32)
    selection = select("probability", PoolScores(p), {1: 1, 2: 1})
    assert list(zip(selection.images.tolist(), selection.classes.tolist())) == [(0, 1), (1, 2)]
    np.testing.assert_allclose(selection.scores, [0.9, 0.7])


def test_background_split_compares_each_class_with_the_background_only():
    p = np.array([[0.1, 0.45, 0.45], [0.5, 0.5, 0.0]], dtype=np.float32)  # two rare classes hide each other
    assert select("probability", PoolScores(p, 0), {1: 1}).images.tolist() == [1]
    assert select("background_split", PoolScores(p, 0), {1: 1}).images.tolist() == [0]


def test_images_closer_than_min_distance_are_selected_last():
    p = np.array([[0.9], [0.8], [0.7], [0.6]], dtype=np.float32)
    features = np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1]], dtype=np.float32)
    pool = PoolScores(p, None, features)
    assert select("probability", pool, {0: 2}).images.tolist() == [0, 1]
    assert select("probability", pool, {0: 2}, min_distance=0.1).images.tolist() == [0, 2]
    assert select("probability", pool, {0: 4}, min_distance=0.1).images.tolist() == [0, 2, 1, 3]


def test_k_centre_is_within_twice_the_best_radius():
    random = np.random.default_rng(3)
    features = random.normal(size=(14, 2))
    rows, distances = k_centre(features, None, 3)

    def radius(centres):
        return np.linalg.norm(features[:, None] - features[list(centres)], axis=2).min(axis=1).max()

    best = min(radius(centres) for centres in itertools.combinations(range(14), 3))
    assert radius(rows) <= 2 * best + 1e-6
    assert distances[1] >= distances[2]


def test_k_centre_selects_images_far_from_labelled_ones():
    features = np.array([[0.0], [1.0], [10.0]])
    rows, distances = k_centre(features, np.array([[10.5]]), 2)
    assert rows.tolist() == [0, 1]
    np.testing.assert_allclose(distances, [10.5, 1.0], rtol=1e-5)


def test_cluster_margin_visits_small_clusters_first_and_prefers_small_margins():
    angles = np.concatenate([np.full(6, 0.0), np.full(3, 1.5), np.full(1, 3.0)]) + np.linspace(0, 0.01, 10)
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    margin = np.linspace(0.9, 0.0, 10)
    rows = cluster_margin(features, margin, 3)
    assert rows[0] == 9  # alone in its cluster
    assert len(set(rows.tolist())) == 3
    assert {0 if row < 6 else 1 if row < 9 else 2 for row in rows.tolist()} == {0, 1, 2}


def test_cluster_margin_clusters_no_more_images_than_its_bound(monkeypatch):
    monkeypatch.setattr(acquisition, "CLUSTERED", 20)
    margin = np.random.default_rng(0).uniform(size=500)
    features = np.random.default_rng(1).normal(size=(500, 4)).astype(np.float32)
    rows = cluster_margin(features, margin, 15)
    assert len(set(rows.tolist())) == 15
    assert set(rows.tolist()) <= set(np.argsort(margin)[:20].tolist())
    pool = PoolScores(np.stack([margin, 1 - margin], axis=1).astype(np.float32), None, features)
    with pytest.raises(ConfigError, match="the batch has 20 images, and at most 20 can be clustered"):
        select("cluster_margin", pool, {0: 20})
    assert len(select("margin", pool, {0: 20}).images) == 20


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("uncertainty", "allowed are probability, entropy"),
        ("core_set", "Did you mean 'coreset'"),
        ("background_split", "has no background class"),
        ("coreset", "gives no features"),
    ],
)
def test_invalid_selections_are_refused_with_a_reason(strategy, words):
    with pytest.raises(ConfigError, match=words):
        select(strategy, PoolScores(np.ones((3, 2), dtype=np.float32)), {1: 1})
