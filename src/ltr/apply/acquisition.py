"""Acquisition strategies: selection of the images to label next, as pure functions of scores and features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ltr.errors import ConfigError, nearest
from ltr.randomness import generator

BY_CLASS = ("probability", "background_split")  # select for each class; the others select for the pool as a whole
STRATEGIES = ("probability", "entropy", "margin", "coreset", "cluster_margin", "background_split", "random")
NEEDS_FEATURES = ("coreset", "cluster_margin")
BY_DISTANCE = ("probability", "background_split", "entropy", "margin")  # observe a least distance
BY_SEED = ("random", "coreset")
# of cluster_margin, for each image of the budget: images of small margin to cluster, and clusters (as in the paper)
CANDIDATES, _CLUSTERS = 10, 1.25
CLUSTERED = 16_000  # at most this many images are clustered: two matrices of their distances take 2 GB


@dataclass(frozen=True)
class PoolScores:
    """Predictions for a pool.

    Attributes:
        probabilities: float32 [N, C].
        background: label of the background; None without one.
        features: float32 [N, D]; None if the network gives none.
        labelled: float32 [M, D], features of labelled images, for ``coreset``.
    """

    probabilities: np.ndarray
    background: int | None = None
    features: np.ndarray | None = None
    labelled: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True)
class Selection:
    """Images to label, in the order in which they were selected.

    Attributes:
        images: int64 [n], rows of the pool.
        classes: int64 [n], the class for which each image was selected; -1 for strategies without classes.
        scores: float64 [n], the strategy's score, higher is preferred; NaN for ``random``.
    """

    images: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def select(
    strategy: str, pool: PoolScores, budgets: Mapping[int, int], *, seed: int = 0, min_distance: float = 0.0
) -> Selection:
    """Select images of a pool.

    ``probability``: for each class, the highest probability of the class.
    ``background_split``: for each class, the highest probability against the background alone, p_c / (p_c + p_0), as in
    background splitting (Mullapudi et al., CVPR 2021), so that rare classes do not hide each other.
    ``entropy``: the highest entropy of the normalised probabilities (Settles 2009, sec. 3.1).
    ``margin``: the smallest difference of the two highest probabilities (Scheffer et al. 2001).
    ``coreset``: greedy k-centre of the features, starting from the labelled images (Sener and Savarese, ICLR 2018).
    ``cluster_margin``: images of small margin, from clusters of features in turn (Citovsky et al., NeurIPS 2021).
    ``random``: a seeded sample.

    An image is selected once. Classes take turns until their budgets are filled.

    Args:
        budgets: number of images for each class; strategies without classes select the sum.
        seed: seed of ``random``, and of the first centre of ``coreset`` without labelled images.
        min_distance: least cosine distance, in [0, 2], between the features of selected images; closer images are
            selected only if no others are left. ``coreset``, ``cluster_margin`` and ``random`` do not use it.

    Raises:
        ConfigError: an unknown strategy, or one that needs features or a background that the network lacks.
    """
    check_strategy(strategy, has_background=pool.background is not None, has_features=pool.features is not None)
    total = min(sum(budgets.values()), len(pool))
    check_budget(strategy, total)
    if strategy in BY_CLASS:
        return _select_by_class(pool, budgets, strategy, _DistanceFilter(pool.features, min_distance))
    if strategy == "random":
        order = generator(seed, "random acquisition").permutation(len(pool))[:total]
        return _without_classes(order, np.full(total, np.nan))
    if strategy == "coreset":
        assert pool.features is not None
        return _without_classes(*k_centre(pool.features, pool.labelled, total, seed))
    scores = entropies(pool.probabilities) if strategy == "entropy" else -margins(pool.probabilities)
    if strategy == "cluster_margin":
        assert pool.features is not None
        order = cluster_margin(pool.features, -scores, total)
    else:
        ranking = np.argsort(-scores, kind="stable")
        order = _DistanceFilter(pool.features, min_distance).first(ranking, total)
    return _without_classes(order, scores[order])


def check_budget(strategy: str, total: int) -> None:
    """Raise ConfigError for a batch of ``total`` images that is too large for a strategy's memory."""
    if strategy == "cluster_margin" and total >= CLUSTERED:
        raise ConfigError(
            f"--strategy cluster_margin: the batch has {total:,} images, and at most {CLUSTERED:,} can be clustered. "
            f"Use a smaller --budget (up to {CLUSTERED // CANDIDATES:,}, so that {CANDIDATES} images are clustered for "
            "each one), or --strategy margin with --min-distance"
        )


def check_strategy(strategy: str, *, has_background: bool = True, has_features: bool = True) -> None:
    """Raise ConfigError for an unknown strategy, or one that cannot work with a network."""
    if strategy not in STRATEGIES:
        raise ConfigError(f"--strategy {strategy}: allowed are {', '.join(STRATEGIES)}{nearest(strategy, STRATEGIES)}")
    if strategy == "background_split" and not has_background:
        raise ConfigError(
            "--strategy background_split: the run has no background class. Train on a background split, or use "
            "--strategy probability"
        )
    if strategy in NEEDS_FEATURES and not has_features:
        raise ConfigError(f"--strategy {strategy}: the run's network gives no features. Use margin or entropy")


def entropies(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy in nats of each row of probabilities [N, C], normalised to sum 1; [N]."""
    p = probabilities.astype(np.float64)
    p /= np.maximum(p.sum(axis=1, keepdims=True), 1e-300)
    return -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)


def margins(probabilities: np.ndarray) -> np.ndarray:
    """Return the difference of the two highest probabilities of each row [N, C]; [N], 1 with a single class."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    top = np.partition(probabilities.astype(np.float64), -2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]


def k_centre(
    features: np.ndarray, labelled: np.ndarray | None, number: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Select rows greedily, each the farthest from all centres so far (2-approximation of k-centre).

    Args:
        features: [N, D].
        labelled: [M, D], the first centres; None: the first row is sampled by ``seed``.

    Returns:
        (rows int64 [number], their Euclidean distance to the nearest centre when selected, float64 [number]; infinite
        for a sampled first row).
    """
    values = features.astype(np.float32)
    squares = (values**2).sum(axis=1)
    nearest_square = np.full(len(values), np.inf, dtype=np.float32)

    def add(centre: np.ndarray) -> None:
        np.minimum(nearest_square, squares - 2 * (values @ centre) + centre @ centre, out=nearest_square)

    for centre in labelled if labelled is not None else ():
        add(centre.astype(np.float32))
    rows = np.empty(number, dtype=np.int64)
    distances = np.empty(number)
    for position in range(number):
        if np.isinf(nearest_square).all():
            row = int(generator(seed, "first centre").integers(len(values)))
        else:
            row = int(nearest_square.argmax())
        rows[position] = row
        distances[position] = np.sqrt(max(float(nearest_square[row]), 0.0))
        add(values[row])
        nearest_square[row] = -np.inf  # never selected again, even among copies
    return rows, distances


def cluster_margin(features: np.ndarray, margin: np.ndarray, number: int) -> np.ndarray:
    """Select rows of small margin from clusters in turn, the smallest cluster first.

    The paper clusters the whole pool by average linkage. Clustering m images takes 8 m^2 bytes, and a pool may have
    millions, so here only the `CANDIDATES` * number images of smallest margin are clustered, at most `CLUSTERED`.

    Args:
        features: [N, D].
        margin: [N].

    Returns:
        int64 [number].
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    candidates = np.argsort(margin, kind="stable")[: min(CANDIDATES * number, CLUSTERED)]
    if len(candidates) <= number:
        return candidates
    tree = linkage(unit_rows(features[candidates]), method="average")
    cluster_of = fcluster(tree, t=max(2, int(number * _CLUSTERS)), criterion="maxclust")
    members = [candidates[cluster_of == cluster] for cluster in np.unique(cluster_of)]
    members.sort(key=lambda rows: (len(rows), int(rows[0])))
    rows: list[int] = []
    turn = 0
    while len(rows) < number:
        rows += [int(group[turn]) for group in members if len(group) > turn][: number - len(rows)]
        turn += 1
    return np.array(rows, dtype=np.int64)


class _DistanceFilter:
    """Selection from a ranking that postpones images whose features are close to those of selected ones."""

    def __init__(self, features: np.ndarray | None, min_distance: float) -> None:
        self._unit = None if features is None or min_distance <= 0 else unit_rows(features)
        self._max_similarity = 1 - min_distance
        self._chosen: list[int] = []

    def is_close(self, row: int) -> bool:
        """Return whether a row is close to a selected one."""
        if self._unit is None or not self._chosen:
            return False
        return bool((self._unit[self._chosen] @ self._unit[row]).max() > self._max_similarity)

    def add(self, row: int) -> None:
        self._chosen.append(row)

    def first(self, order: Iterable[int], number: int) -> np.ndarray:
        """Return the first ``number`` rows of a ranking; postponed rows come last."""
        rows: list[int] = []
        postponed: list[int] = []
        for row in map(int, order):
            if len(rows) == number:
                break
            if self.is_close(row):
                postponed.append(row)
            else:
                rows.append(row)
                self.add(row)
        return np.array((rows + postponed)[:number], dtype=np.int64)


def _select_by_class(pool: PoolScores, budgets: Mapping[int, int], strategy: str, close: _DistanceFilter) -> Selection:
    """Select for the classes in turn the best remaining image of their ranking."""
    left = {label: number for label, number in budgets.items() if number > 0}
    scores = {label: _class_scores(pool, label, strategy) for label in left}
    rankings = {label: np.argsort(-scores[label], kind="stable") for label in left}
    position = dict.fromkeys(left, 0)
    postponed: dict[int, list[int]] = {label: [] for label in left}
    is_taken = np.zeros(len(pool), dtype=bool)
    selected: list[tuple[int, int]] = []

    def next_row(label: int) -> int | None:
        while position[label] < len(pool):
            row = int(rankings[label][position[label]])
            position[label] += 1
            if is_taken[row]:
                continue
            if not close.is_close(row):
                return row
            postponed[label].append(row)
        return next((row for row in postponed[label] if not is_taken[row]), None)

    while left:
        for label in list(left):
            row = next_row(label)
            if row is not None:
                is_taken[row] = True
                close.add(row)
                selected.append((row, label))
                left[label] -= 1
            if row is None or not left[label]:
                del left[label]
    images, classes = np.array(selected, dtype=np.int64).reshape(-1, 2).T
    values = np.array([scores[label][row] for row, label in selected], dtype=np.float64)
    return Selection(images, classes, values)


def _class_scores(pool: PoolScores, label: int, strategy: str) -> np.ndarray:
    p = pool.probabilities[:, label].astype(np.float64)
    if strategy == "probability":
        return p
    assert pool.background is not None
    return p / np.maximum(p + pool.probabilities[:, pool.background], 1e-300)


def _without_classes(rows: np.ndarray, scores: np.ndarray) -> Selection:
    return Selection(rows.astype(np.int64), np.full(len(rows), -1, dtype=np.int64), scores)


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Return features [N, D] divided by their norms, float32."""
    values = features.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
