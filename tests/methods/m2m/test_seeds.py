"""M2m's choice of images and seeds: probabilities against the paper, and corner cases."""

from __future__ import annotations

import numpy as np
import pytest

from ltr.data.sampling.class_index import ClassIndex
from ltr.methods.m2m.rejection import acceptance
from ltr.methods.m2m.seeds import DRAWS, choose_slots, sample_columns, seed_distribution

COUNTS = np.array([50, 5000, 500, 1])  # the largest is not the first


def draws(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((number, DRAWS))


@pytest.mark.parametrize(("gap", "expected"), [(1000, 0.632), (100, 0.095), (4950, 0.993), (0, 0.0), (-10, 0.0)])
def test_acceptance_probabilities_equal_the_published_values(gap, expected):
    assert acceptance(np.array(5000), np.array(5000 - gap), 0.999) == pytest.approx(expected, abs=5e-4)


def test_with_beta_0_every_larger_class_provides_seeds():
    assert acceptance(np.array([6, 5, 4]), np.array(5), 0.0).tolist() == [1.0, 0.0, 0.0]


def test_seeds_proportional_to_the_acceptance_maximise_the_papers_objective():
    counts, k = np.array([5000, 3000, 1000, 300, 50]), 4
    accepted = acceptance(counts[:4], counts[k], 0.999)
    chosen = seed_distribution(counts, 0.999)[k, :4]

    def value(q):
        return (q * np.log(accepted)).sum() - (q * np.log(q)).sum()

    assert chosen == pytest.approx(accepted / accepted.sum())
    others = np.random.default_rng(0).dirichlet(np.ones(4), 2000)
    near = chosen * np.exp(0.05 * np.random.default_rng(1).standard_normal((2000, 4)))
    near /= near.sum(1, keepdims=True)
    assert max(value(q) for q in (*others, *near)) <= value(chosen)
    assert value(chosen) == pytest.approx(np.log(accepted.sum()))


def test_the_largest_class_has_no_seeds():
    distribution = seed_distribution(COUNTS, 0.999)
    assert distribution[1].sum() == 0
    assert distribution[[0, 2, 3]].sum(1) == pytest.approx(1.0)


def test_the_share_of_slots_of_a_class_follows_from_its_size():
    labels = np.repeat(np.arange(4), 20000)
    slots = choose_slots(labels, COUNTS, 0.999, draws(len(labels)), images=index_of(COUNTS))
    share = np.bincount(slots.labels, minlength=4) / 20000
    assert share == pytest.approx(1 - COUNTS / 5000, abs=0.01)
    assert (slots.targets == slots.labels).all()
    assert slots.total == len(slots)


def index_of(counts: np.ndarray) -> ClassIndex:
    return ClassIndex.from_labels(np.repeat(np.arange(len(counts)), counts), len(counts))


def test_seeds_from_the_data_set_follow_the_distribution_and_are_of_their_class():
    labels = np.full(30000, 0)
    slots = choose_slots(labels, COUNTS, 0.999, draws(len(labels)), images=index_of(COUNTS))
    share = np.bincount(slots.sources, minlength=4) / len(slots)
    assert share == pytest.approx(seed_distribution(COUNTS, 0.999)[0], abs=0.01)
    train_labels = np.repeat(np.arange(4), COUNTS)
    assert (train_labels[slots.seeds] == slots.sources).all()
    of_the_largest = slots.seeds[slots.sources == 1]
    assert len(np.unique(of_the_largest)) > 4000  # all over the class


def test_seeds_from_the_batch_are_sampled_by_the_acceptance_of_their_classes():
    batch = np.array([0, 1, 1, 2])
    actual = [choose_slots(batch, COUNTS, 0.999, draws(4, seed)) for seed in range(4000)]
    seeds = np.concatenate([s.seeds[s.places == 0] for s in actual])
    probability = acceptance(COUNTS[batch], np.array(50), 0.999)
    assert np.bincount(seeds, minlength=4) / len(seeds) == pytest.approx(probability / probability.sum(), abs=0.02)
    assert all((batch[s.seeds] == s.sources).all() for s in actual)


def test_images_are_accepted_with_the_probability_of_the_pair():
    labels = np.full(40000, 0)
    slots = choose_slots(labels, COUNTS, 0.999, draws(len(labels)), images=index_of(COUNTS))
    for source in (1, 2):
        expected = acceptance(COUNTS[source], COUNTS[0], 0.999)
        assert slots.chance[slots.sources == source].mean() == pytest.approx(expected, abs=0.02)


def test_a_batch_without_a_larger_class_has_slots_and_no_seeds():
    slots = choose_slots(np.array([0, 0, 3]), COUNTS, 0.999, np.full((3, DRAWS), 0.999))
    # the two of class 0 find nothing; the one of class 3 could start from class 0
    assert slots.total == 3
    assert slots.places.tolist() == [2]
    alone = choose_slots(np.array([0, 0]), COUNTS, 0.999, np.full((2, DRAWS), 0.999))
    assert (len(alone), alone.total) == (0, 2)


@pytest.mark.parametrize("images", [True, False])
def test_equal_classes_have_no_slots(images):
    counts = np.array([10, 10, 10])
    slots = choose_slots(
        np.arange(3), counts, 0.999, np.full((3, DRAWS), 0.9999), images=index_of(counts) if images else None
    )
    assert (len(slots), slots.total) == (0, 0)


@pytest.mark.parametrize("images", [True, False])
def test_two_classes_have_slots_and_seeds(images):
    counts = np.array([1, 100])
    slots = choose_slots(
        np.array([0, 1, 0, 1]), counts, 0.9, np.full((4, DRAWS), 0.999), images=index_of(counts) if images else None
    )
    assert slots.places.tolist() == [0, 2]
    assert slots.sources.tolist() == [1, 1]


def test_a_class_of_one_image_gets_slots_like_any_other_and_gives_no_seed():
    labels = np.array([3, 3, 1])
    actual = [choose_slots(labels, COUNTS, 0.999, draws(3, seed)) for seed in range(200)]
    assert sum(len(slots) for slots in actual) > 390
    assert all((slots.sources == 1).all() for slots in actual)


def test_random_targets_are_any_class_and_labels_stay():
    labels = np.full(8000, 0)
    slots = choose_slots(labels, COUNTS, 0.999, draws(8000), images=index_of(COUNTS), random_target=True)
    assert (slots.labels == 0).all()
    assert np.bincount(slots.targets, minlength=4) / len(slots) == pytest.approx(0.25, abs=0.02)


def test_the_same_random_numbers_choose_the_same_slots():
    labels = np.tile(np.arange(4), 16)
    first, second = (choose_slots(labels, COUNTS, 0.999, draws(64)) for _ in range(2))
    assert (first.seeds == second.seeds).all()
    assert (first.chance == second.chance).all()


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_nothing_of_weight_0_is_sampled(uniform):
    weights = np.array([[0.0, 0.3, 0.0, 0.1, 0.0], [0.0, 0.0, 1e-300, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.0]])
    columns = sample_columns(weights, np.full(3, uniform))
    assert (weights[np.arange(3), columns] > 0).all()
