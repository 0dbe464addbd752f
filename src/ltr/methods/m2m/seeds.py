"""M2m's choice of the images that it replaces in a class-balanced batch, and of their seeds, in plain numpy."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ltr.data.sampling.class_index import ClassIndex
from ltr.errors import ConfigError

DRAWS = 5  # uniform numbers per image of the batch, in this order; see `choose_slots`
_KEEP, _SEED, _CHANCE, _IMAGE, _TARGET = range(DRAWS)


@dataclass(frozen=True, eq=False)
class Slots:
    """K images to be made.

    Attributes:
        places: int64 [K], in the batch: where they go.
        labels: int64 [K], k: the class that they are made for.
        targets: int64 [K], the class that they are moved towards: k, or any in the ablation.
        seeds: int64 [K], what they start from: places in the batch, or positions in the train array.
        sources: int64 [K], k0: the seeds' classes.
        chance: bool [K], whether the draw with probability 1 - beta^(N_k0 - N_k) accepts them.
        wanted: slots there were, those without a seed included.
    """

    places: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    seeds: np.ndarray
    sources: np.ndarray
    chance: np.ndarray
    wanted: int

    def __len__(self) -> int:
        return len(self.places)

    def chosen(self, which: np.ndarray) -> Slots:
        """Some of them, by a mask or by indices [K']."""
        arrays = {f.name: getattr(self, f.name)[which] for f in fields(self) if f.name != "wanted"}
        return Slots(**arrays, wanted=self.wanted)


def acceptance(source_counts: np.ndarray, target_counts: np.ndarray, beta: float) -> np.ndarray:
    """1 - beta^(N_k0 - N_k)+, the probability that a seed of class k0 serves class k; float64, broadcast.

    0 where the seed's class is no larger, and the larger the gap the nearer to 1. M2m draws seeds in proportion to it
    and accepts with it: Q proportional to P maximises E_Q[log P] + H(Q) (section 3.2 of the paper).
    """
    gap = np.maximum(np.asarray(source_counts, dtype=np.float64) - target_counts, 0.0)
    return 1.0 - np.power(float(beta), gap)  # 0^0 is 1: no gap, no acceptance, for beta = 0 too


def seed_distribution(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Q(k0 | k) = P(k0, k) / sum P(., k), float64 [k, k0]; rows of classes for which none is larger are 0."""
    counts = np.asarray(class_counts)
    weights = acceptance(counts[None], counts[:, None], beta)
    total = weights.sum(1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def choose_slots(
    labels: np.ndarray,
    class_counts: np.ndarray,
    beta: float,
    uniforms: np.ndarray,
    *,
    images: ClassIndex | None = None,
    random_target: bool = False,
) -> Slots:
    """Return the slots of a batch and their seeds.

    An image of class k is kept with probability N_k / N_max, N_max the count of the largest class (the official code
    takes class 0's, which is the largest in its data sets); else it is a slot.

    Args:
        labels: int64 [B] of the batch.
        class_counts: int64 [C], training images.
        beta: in [0, 1).
        uniforms: float64 [B, DRAWS] in [0, 1), a row for each image of the batch. Its columns decide, in order: 0,
            whether the image is kept (at least N_k / N_max: it is a slot); 1, which seed or seed's class is drawn, by
            cumulative weights; 2, acceptance (below 1 - beta^gap); 3, which image of the seed's class (``images``
            only); 4, the random target (``random_target`` only). They may be anyone's: a test's, or another code's.
        images: seeds come from the whole training set: a class by `seed_distribution`, then any of its images, as the
            paper's text has it. None: from the batch, each image in proportion to its class's acceptance, as in the
            official code; a class-balanced batch makes this nearly the same law, with the batch's own images.
        random_target: move images towards a class that is drawn at random.

    Returns:
        Slots; those for which no larger class is at hand are left out, and keep their image.

    Raises:
        ConfigError: uniforms of another shape.
    """
    if uniforms.shape != (len(labels), DRAWS):
        raise ConfigError(
            f"uniforms of shape {list(uniforms.shape)} for {len(labels)} images; needed is [{len(labels)}, {DRAWS}], "
            "numbers in [0, 1): keep, seed, chance, image, target"
        )
    counts = np.asarray(class_counts)
    slot = np.flatnonzero(uniforms[:, _KEEP] >= counts[labels] / counts.max())
    own, draws = labels[slot], uniforms[slot]
    candidates = counts if images is not None else counts[labels]
    probability = acceptance(candidates[None], counts[own][:, None], beta)  # [S, C] or [S, B]
    possible = np.asarray(probability.any(axis=1))
    slot, own, draws, probability = slot[possible], own[possible], draws[possible], probability[possible]
    picked = pick(probability, draws[:, _SEED])
    accepted = draws[:, _CHANCE] < probability[np.arange(len(picked)), picked]
    if images is None:
        seeds, sources = picked, labels[picked]
    else:
        within = (draws[:, _IMAGE] * images.counts[picked]).astype(np.int64)
        seeds, sources = images.order[images.starts[picked] + within], picked
    targets = (draws[:, _TARGET] * len(counts)).astype(np.int64) if random_target else own
    return Slots(slot, own, targets, seeds, sources, accepted, wanted=len(possible))


def pick(weights: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """A column for each row, in proportion to weights [R, J] >= 0, from uniform numbers [R]; never one of weight 0."""
    edges = weights.cumsum(1)
    if not len(edges):
        return np.zeros(0, dtype=np.int64)
    total = edges[:, -1]
    point = np.minimum(uniforms * total, np.nextafter(total, 0.0))
    return (edges <= point[:, None]).sum(1)
