"""Counter-based random numbers."""

import numpy as np
import pytest

from ltr.randomness import derive_seed, generator, uniforms


def test_a_seed_depends_on_every_part_and_on_their_order_and_types():
    seeds = {derive_seed(0, "a", 1), derive_seed(0, "b", 1), derive_seed(1, "a", 1), derive_seed("a", 0, 1),
             derive_seed("0", "a", 1), derive_seed(0, "a", 1, 0)}  # fmt: skip
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_in_every_process_and_version():
    assert derive_seed(0, "representation", "init") == 4212611368521915476


def test_random_numbers_of_an_image_do_not_depend_on_its_batch():
    positions = np.arange(1000)
    whole = uniforms(7, positions, 5)
    picked = np.array([17, 3, 999])
    np.testing.assert_array_equal(uniforms(7, picked, 5), whole[picked])
    np.testing.assert_array_equal(uniforms(7, picked, 2), whole[picked, :2])


@pytest.mark.parametrize("seed", range(5))
def test_numbers_are_uniform_and_independent_across_positions_streams_and_seeds(seed):
    numbers = uniforms(seed, np.arange(200_000), 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    error = 5 / np.sqrt(200_000)  # five standard errors of a correlation
    assert np.abs(numbers.mean(0) - 0.5).max() < error / np.sqrt(12)
    columns = [numbers[:-1], numbers[1:], uniforms(seed + 1, np.arange(199_999), 4)]
    correlation = np.corrcoef(np.concatenate(columns, 1).T) - np.eye(12)
    assert np.abs(correlation).max() < error
    counts = np.histogram(numbers[:, 0], 64, (0, 1))[0]
    assert ((counts - 3125) ** 2 / 3125).sum() < 130  # chi-square, 63 degrees of freedom: p about 1e-6


def test_generators_are_independent_of_the_global_one():
    np.random.seed(0)  # noqa: NPY002
    first = generator(1, "x").random(3)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(generator(1, "x").random(3), first)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
