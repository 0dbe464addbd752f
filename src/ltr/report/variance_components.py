"""Variance components of a table of results over two random factors: the training subset and the run's seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ltr.report.intervals import Interval


@dataclass(frozen=True)
class VarianceComponents:
    """Variance components of a two-way random-effects model with one value per cell.

    Attributes:
        subsets, seeds: levels S and R of the two factors.
        mean: mean of all values, with the interval of the expected value over new subsets and seeds.
        sums_of_squares: sums of squares of subsets, seeds and rest, which add up to that of all values around the mean.
        subset, seed: variances of the factors' main effects; an estimate may be negative, its interval is not.
        rest: variance of their interaction.
        total: variance of one value on a new subset with a new seed: the sum of the three, negative ones taken as 0.
    """

    subsets: int
    seeds: int
    mean: Interval
    sums_of_squares: tuple[float, float, float]
    subset: Interval
    seed: Interval
    rest: Interval
    total: Interval

    @property
    def subset_share(self) -> float:
        """Share of the subset's variance in the total, in [0, 1]; NaN if nothing varies."""
        parts = [max(0.0, part.estimate) for part in (self.subset, self.seed, self.rest)]
        return parts[0] / sum(parts) if sum(parts) > 0 else math.nan


def deviation(variance: float) -> float:
    """Return the standard deviation of a variance; 0 for a negative estimate."""
    return math.sqrt(max(0.0, variance))


def variance_components(values: np.ndarray, level: float = 0.95) -> VarianceComponents:
    """Return the ANOVA estimates of the variance components with confidence intervals.

    The model is y_sr = mu + a_s + b_r + e_sr with independent normal effects. The estimates equate mean squares with
    their expectations (Searle, Casella and McCulloch, Variance Components, 1992, chapter 4); if none is negative, they
    are the REML estimates. The interval of the rest is exact. Those of differences of mean squares follow Ting,
    Burdick, Graybill, Jeyaratnam and Lu (1990), those of sums Graybill and Wang (1980); that of the mean has
    Satterthwaite's degrees of freedom.

    Args:
        values: float64 [S, R], S and R at least 2; rows are subsets, columns are seeds.
        level: confidence level, in (0, 1).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"values of shape {values.shape}: at least two subsets and two seeds are needed")
    subsets, seeds = values.shape
    mean = float(values.mean())
    effect_s = values.mean(axis=1) - mean
    effect_r = values.mean(axis=0) - mean
    residual = values - mean - effect_s[:, None] - effect_r[None, :]
    sums = (float(seeds * (effect_s**2).sum()), float(subsets * (effect_r**2).sum()), float((residual**2).sum()))
    degrees = (subsets - 1, seeds - 1, (subsets - 1) * (seeds - 1))
    of_s, of_r, of_rest = (MeanSquare(total / degree, degree) for total, degree in zip(sums, degrees))
    of_subsets = difference_interval(of_s, of_rest, 1 / seeds, level)
    of_seeds = difference_interval(of_r, of_rest, 1 / subsets, level)
    rest = sum_interval((of_rest,), (1.0,), level)
    total = sum_interval((of_s, of_r, of_rest), (1 / seeds, 1 / subsets, 1 - 1 / seeds - 1 / subsets), level)
    whole = max(0.0, of_subsets.estimate) + max(0.0, of_seeds.estimate) + rest.estimate
    return VarianceComponents(
        subsets,
        seeds,
        _mean_interval(mean, of_s, of_r, of_rest, subsets * seeds, level),
        sums,
        of_subsets,
        of_seeds,
        rest,
        Interval(whole, min(total.low, whole), max(total.high, whole)),
    )


@dataclass(frozen=True)
class MeanSquare:
    """Mean square with its degrees of freedom; degrees * value / expectation has a chi-squared distribution."""

    value: float
    degrees: int


def sum_interval(squares: tuple[MeanSquare, ...], weights: tuple[float, ...], level: float) -> Interval:
    """Return a weighted sum of mean squares (weights >= 0) with the interval of its expectation.

    The interval is exact for one mean square, else that of Graybill and Wang (1980).
    """
    from scipy.special import chdtri

    tail = (1 - level) / 2
    estimate = math.fsum(weight * square.value for square, weight in zip(squares, weights))
    below = above = 0.0
    for square, weight in zip(squares, weights):
        part = weight * square.value
        below += (part * (1 - square.degrees / chdtri(square.degrees, tail))) ** 2
        above += (part * (square.degrees / chdtri(square.degrees, 1 - tail) - 1)) ** 2
    return Interval(estimate, max(0.0, estimate - math.sqrt(below)), estimate + math.sqrt(above))


def difference_interval(first: MeanSquare, second: MeanSquare, weight: float, level: float) -> Interval:
    """Return weight * (first - second), also if negative, with the interval of its expectation (Ting et al., 1990).

    The interval is cut at 0.
    """
    from scipy.special import chdtri, fdtri

    tail = (1 - level) / 2
    a, b = first.value, second.value
    n, m = first.degrees, second.degrees
    low_1, high_1 = 1 - n / chdtri(n, tail), n / chdtri(n, 1 - tail) - 1
    low_2, high_2 = 1 - m / chdtri(m, tail), m / chdtri(m, 1 - tail) - 1
    upper, lower = fdtri(n, m, 1 - tail), fdtri(n, m, tail)
    cross_low = ((upper - 1) ** 2 - (low_1 * upper) ** 2 - high_2**2) / upper
    cross_high = ((1 - lower) ** 2 - (high_1 * lower) ** 2 - low_2**2) / lower
    below = (low_1 * a) ** 2 + (high_2 * b) ** 2 + cross_low * a * b
    above = (high_1 * a) ** 2 + (low_2 * b) ** 2 + cross_high * a * b
    difference = a - b
    low = max(0.0, difference - math.sqrt(max(0.0, below)))
    high = max(0.0, difference + math.sqrt(max(0.0, above)))
    return Interval(weight * difference, weight * low, weight * high)


def _mean_interval(
    mean: float, of_s: MeanSquare, of_r: MeanSquare, of_rest: MeanSquare, cells: int, level: float
) -> Interval:
    """Return the interval of the mean over new subsets and seeds, with Satterthwaite's degrees of freedom."""
    from scipy.special import stdtrit

    parts = [(max(square.value, of_rest.value), square.degrees) for square in (of_s, of_r)]
    parts.append((-of_rest.value, of_rest.degrees))
    variance = sum(value for value, _ in parts)
    if variance <= 0:
        return Interval(mean, mean, mean)
    degrees = variance**2 / sum(value**2 / degree for value, degree in parts)
    half = float(stdtrit(max(1.0, degrees), (1 + level) / 2)) * math.sqrt(variance / cells)
    return Interval(mean, mean - half, mean + half)
