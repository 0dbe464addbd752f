"""Variance components over two random factors, against least squares, identities and simulated tables."""

from __future__ import annotations

import numpy as np
import pytest

from ltr.report.variance_components import MeanSquare, difference_interval, sum_interval, variance_components


def table(subset: float, seed: float, rest: float, shape: tuple[int, int] = (10, 3), random=None):
    random = random or np.random.default_rng(0)
    rows, columns = random.normal(0, subset, (shape[0], 1)), random.normal(0, seed, (1, shape[1]))
    return 0.4 + rows + columns + random.normal(0, rest, shape)


def residual_sum(values: np.ndarray, *factors: np.ndarray) -> float:
    """Residual sum of squares of a least-squares fit of an intercept and dummy variables."""
    design = np.column_stack([np.ones(values.size), *(np.eye(factor.max() + 1)[factor] for factor in factors)])
    y = values.ravel()
    return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())


@pytest.mark.parametrize("shape", [(10, 3), (2, 2), (4, 7)])
def test_sums_of_squares_equal_those_of_least_squares_and_add_up(shape):
    values = table(0.01, 0.02, 0.005, shape)
    rows, columns = (axis.ravel() for axis in np.indices(shape))
    sums = variance_components(values).sums_of_squares
    expected = (
        residual_sum(values, columns) - residual_sum(values, rows, columns),
        residual_sum(values, rows) - residual_sum(values, rows, columns),
        residual_sum(values, rows, columns),
    )
    assert sums == pytest.approx(expected, rel=1e-8)
    assert sum(sums) == pytest.approx(((values - values.mean()) ** 2).sum(), rel=1e-12)


def test_an_additive_table_has_no_residual_and_the_variances_of_its_effects():
    rows, columns = np.array([1.0, 2.0, 6.0]), np.array([0.5, -0.5])
    components = variance_components(rows[:, None] + columns[None, :])
    assert components.rest.estimate == pytest.approx(0, abs=1e-15)
    assert components.subset.estimate == pytest.approx(rows.var(ddof=1))
    assert components.seed.estimate == pytest.approx(columns.var(ddof=1))
    assert components.mean.estimate == pytest.approx(3.0)


def test_the_total_is_the_sum_of_the_components():
    parts = variance_components(table(0.01, 0.02, 0.03))
    total = parts.subset.estimate + parts.seed.estimate + parts.rest.estimate
    assert parts.total.estimate == pytest.approx(total, rel=1e-12)


def test_transposing_exchanges_the_factors():
    values = table(0.01, 0.02, 0.005)
    one, two = variance_components(values), variance_components(values.T)
    assert (one.subset, one.seed, one.rest) == (two.seed, two.subset, two.rest)


def test_a_shift_changes_only_the_mean_and_a_scale_multiplies_variances_by_its_square():
    values = table(0.01, 0.02, 0.005)
    one, two = variance_components(values), variance_components(10 * values + 3)
    assert two.mean.estimate == pytest.approx(10 * one.mean.estimate + 3)
    for name in ("subset", "seed", "rest", "total"):
        first, second = getattr(one, name), getattr(two, name)
        assert (second.estimate, second.low, second.high) == pytest.approx(
            (100 * first.estimate, 100 * first.low, 100 * first.high), rel=1e-6
        )


def test_equal_values_have_zero_variance():
    components = variance_components(np.full((3, 2), 0.5))
    assert components.total.estimate == 0
    assert components.subset_share != components.subset_share
    assert (components.mean.low, components.mean.high) == (0.5, 0.5)


@pytest.mark.parametrize(("subset", "seed", "rest"), [(1.0, 0.5, 0.3), (0.2, 0.2, 1.0)])
def test_simulated_tables_give_their_components_back_inside_their_intervals(subset, seed, rest):
    random = np.random.default_rng(0)
    drawn = [variance_components(table(subset, seed, rest, random=random)) for _ in range(300)]
    expected = {"subset": subset**2, "seed": seed**2, "rest": rest**2, "total": subset**2 + seed**2 + rest**2}
    for name, variance in expected.items():
        intervals = [getattr(components, name) for components in drawn]
        mean = np.mean([interval.estimate for interval in intervals])
        standard_error = np.std([interval.estimate for interval in intervals]) / np.sqrt(len(drawn))
        if name != "total":  # a sum without its negative parts
            assert abs(mean - variance) < 4 * standard_error, name
        assert np.mean([interval.low <= variance <= interval.high for interval in intervals]) > 0.9, name
    assert np.mean([one.mean.low <= 0.4 <= one.mean.high for one in drawn]) > 0.9


def test_the_interval_of_one_mean_square_is_the_chi_squared_one():
    # 0.975 and 0.025 quantiles of chi-squared with 10 degrees of freedom: 20.4832 and 3.2470
    interval = sum_interval((MeanSquare(2.0, 10),), (1.0,), 0.95)
    assert (interval.low, interval.high) == pytest.approx((20 / 20.4832, 20 / 3.2470), rel=1e-4)


def test_a_negative_estimate_has_an_interval_from_zero():
    interval = difference_interval(MeanSquare(0.5, 9), MeanSquare(1.0, 18), 1.0, 0.95)
    assert interval.estimate == -0.5
    assert interval.low == 0
    assert interval.high > 0


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (4,)])
def test_a_table_with_one_row_or_column_is_refused(shape):
    with pytest.raises(ValueError, match="two subsets and two seeds"):
        variance_components(np.zeros(shape))


def test_the_displayed_total_is_the_sum_of_the_displayed_parts():
    components = variance_components(np.array([[1.0, 3.0], [3.0, 1.5]]))
    assert components.subset.estimate < 0
    assert components.seed.estimate < 0
    assert components.total.estimate == components.rest.estimate
    assert components.total.low <= components.total.estimate <= components.total.high
