"""Thinned curves and histograms, small enough to be kept with every run for its figures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_BINS = 60


def thin_curve(x: np.ndarray, y: np.ndarray, points: int = 200) -> np.ndarray:
    """Return the indices of at most ``points`` points, spread evenly along a curve and including both ends."""
    if len(x) <= points:
        return np.arange(len(x))
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    return np.unique([*np.searchsorted(length, np.linspace(0, length[-1], points))[1:-1], 0, len(x) - 1])


def histograms(score: np.ndarray, kinds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return histograms of the scores of several kinds of images, in the same bins of equal width.

    Infinite scores are counted in the first or the last bin.

    Args:
        score: [N].
        kinds: mask of the images of each kind, bool [N], by name.

    Returns:
        ``histogram_edges`` float64 [61], and int64 [60] ``histogram_<name>`` for every kind.
    """
    finite = score[np.isfinite(score)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    edges = np.linspace(low, high, _BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, _BINS + 1)
    inside = np.clip(score, edges[0], edges[-1])
    counts = {f"histogram_{name}": np.histogram(inside[chosen], edges)[0] for name, chosen in kinds.items()}
    return {"histogram_edges": edges, **counts}
