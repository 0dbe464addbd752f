"""Effective numbers, class-balanced weights, LDAM margins and log priors against their formulas and limits."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltr.errors import ConfigError, DataError
from ltr.losses.weights import as_counts, class_balanced_weights, effective_number, ldam_margins, log_prior

COUNTS = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]  # CIFAR-10-LT, imbalance factor 100


def exact_effective_number(count: int, beta: float) -> float:
    """Return the effective number in rational arithmetic, without rounding."""
    exact = Fraction(beta)
    return float((1 - exact**count) / (1 - exact))


@pytest.mark.parametrize("beta", [0.1, 0.9, 0.99, 0.999, 0.9999, 1 - 2**-40])
def test_effective_number_equals_exact_arithmetic(beta):
    counts = [1, 2, 50, 139, 700]
    expected = [exact_effective_number(count, beta) for count in counts]
    np.testing.assert_allclose(effective_number(counts, beta), expected, rtol=1e-13)


def test_effective_number_at_beta_0_is_1():
    np.testing.assert_array_equal(effective_number(COUNTS, 0.0), np.ones(10))


@pytest.mark.parametrize("beta", [np.nextafter(1.0, 0.0), 1.0])
def test_effective_number_tends_to_the_count_as_beta_tends_to_1(beta):
    np.testing.assert_allclose(effective_number(COUNTS, beta), COUNTS, rtol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.9, 1.0])
def test_effective_number_of_an_empty_class_is_0(beta):
    assert effective_number([3, 0], beta)[1] == 0.0


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=30),
    st.floats(0.0, 1.0, exclude_max=True),
)
def test_effective_number_lies_between_1_and_the_count(counts, beta):
    number = effective_number(counts, beta)
    assert np.all(number >= 1 - 1e-12)
    assert np.all(number <= np.array(counts) * (1 + 1e-9))


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_a_beta_outside_its_range_is_an_error(beta):
    with pytest.raises(ConfigError, match="beta"):
        effective_number(COUNTS, beta)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.9999])
def test_class_balanced_weights_are_inverse_effective_numbers_that_sum_to_the_class_count(beta):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = class_balanced_weights(COUNTS, beta)
    expected = [1 / exact_effective_number(count, beta) for count in COUNTS]
    np.testing.assert_allclose(weights, np.array(expected) * 10 / sum(expected), rtol=1e-12)


def test_an_empty_class_has_weight_0_with_a_warning_and_weights_sum_to_the_class_count():
    with pytest.warns(UserWarning, match=r"1 of 3 classes have no training images \(1\)"):
        weights = class_balanced_weights([10, 0, 4], 0.9)
    assert weights[1] == 0.0
    assert weights.sum() == pytest.approx(3.0)


@pytest.mark.parametrize(("number", "shown"), [(5, r"0, 1, 2, 3, 4"), (6, r"0, 1, 2, 3, 4, \.\.\.")])
def test_at_most_five_empty_classes_are_named(number, shown):
    with pytest.warns(UserWarning, match=rf"{number} of {number + 1} classes have no training images \({shown}\)"):
        log_prior([0] * number + [3])


def test_a_beta_too_small_for_the_counts_warns_that_all_weights_are_equal():
    with pytest.warns(UserWarning, match=r"beta = 0.9 gives classes of 1000 and of 200000 images the same weight"):
        weights = class_balanced_weights([200_000, 1000], 0.9)
    np.testing.assert_allclose(weights, 1.0, atol=1e-6)


@pytest.mark.parametrize(("counts", "beta"), [(COUNTS, 0.9999), (COUNTS, 0.0), ([500, 500], 0.9), ([1000, 990], 0.9)])
def test_no_warning_where_weights_differ_or_counts_do_not(counts, beta):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        weights = class_balanced_weights(counts, beta)
    assert warned == []
    assert weights.sum() == pytest.approx(len(counts))


def test_ldam_margins_fall_with_the_fourth_root_of_the_count():
    expected = [0.5 * (50 / count) ** 0.25 for count in COUNTS]
    np.testing.assert_allclose(ldam_margins(COUNTS, 0.5), expected, rtol=1e-14)


def test_the_rarest_class_has_exactly_the_largest_margin():
    assert ldam_margins(COUNTS, 0.5)[-1] == 0.5


def test_an_empty_class_gets_the_largest_margin_and_does_not_change_other_margins():
    with pytest.warns(UserWarning, match="largest margin"):
        margins = ldam_margins([16, 0, 1], 0.4)
    np.testing.assert_allclose(margins, [0.2, 0.4, 0.4])


@pytest.mark.parametrize("margin", [-0.1, float("inf"), float("nan")])
def test_a_margin_outside_its_range_is_an_error(margin):
    with pytest.raises(ConfigError, match="max_margin"):
        ldam_margins(COUNTS, margin)


def test_log_prior_is_the_log_of_each_share():
    np.testing.assert_allclose(np.exp(log_prior(COUNTS)), np.array(COUNTS) / 12406, rtol=1e-13)


def test_log_prior_counts_an_empty_class_as_one_image():
    with pytest.warns(UserWarning, match="one image"):
        prior = np.exp(log_prior([3, 0]))
    np.testing.assert_allclose(prior, [0.75, 0.25])


@pytest.mark.parametrize("repeats", [1, 4, 6])
def test_repeated_counts_repeat_weights_and_margins(repeats):
    joint = np.repeat(COUNTS, repeats)
    np.testing.assert_allclose(
        class_balanced_weights(joint, 0.999), np.repeat(class_balanced_weights(COUNTS, 0.999), repeats), rtol=1e-12
    )
    np.testing.assert_array_equal(ldam_margins(joint, 0.5), np.repeat(ldam_margins(COUNTS, 0.5), repeats))


@pytest.mark.parametrize("given_as", [list, tuple, np.array, torch.tensor, lambda counts: np.array(counts, float)])
def test_counts_may_be_lists_arrays_or_tensors(given_as):
    np.testing.assert_array_equal(as_counts(given_as(COUNTS)), np.array(COUNTS, np.int64))


@pytest.mark.parametrize(
    "counts", [[], [[1, 2]], 3, [1, -1], [0, 0], [1.5, 2], [float("nan"), 1.0], [float("inf"), 1.0], ["a", "b"]]
)
def test_invalid_counts_are_an_error(counts):
    with pytest.raises(DataError, match="whole number"):
        as_counts(counts)
