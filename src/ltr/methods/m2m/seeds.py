"""Sampling of the images that M2m replaces in a class-balanced batch, and of their seed images, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ltr.data.sampling.class_index import ClassIndex
from ltr.errors import ConfigError
from ltr.methods.m2m.rejection import acceptance

DRAWS = 5  # uniform numbers per image of the batch, in this order; see `choose_slots`
_KEEP, _SEED, _CHANCE, _IMAGE, _TARGET = range(DRAWS)


@dataclass(frozen=True, eq=False)
class Slots:
    """K images to generate.

    Attributes:
        places: int64 [K], indices into the global batch that they replace.
        labels: int64 [K], k: their labels.
        targets: int64 [K], target classes of the generation: k, or random ones in the ablation.
        seeds: int64 [K], seed images: indices into the global batch, or positions in the train array.
        sources: int64 [K], k0: classes of the seeds.
        chance: bool [K], accepted at random with probability 1 - beta^(N_k0 - N_k).
        total: number of slots, including those without a seed.
    """

    places: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    seeds: np.ndarray
    sources: np.ndarray
    chance: np.ndarray
    total: int

    def __len__(self) -> int:
        return len(self.places)

    def select(self, index: np.ndarray) -> Slots:
        """Return a subset, by a mask [K] or by indices [K']."""
        arrays = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "total"}
        return Slots(**arrays, total=self.total)


def seed_distribution(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Compute Q(k0 | k) = P(k0, k) / sum P(., k), float64 [k, k0]; rows of classes without larger ones are 0."""
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
    """Sample the slots of a batch, which are the images to replace, and their seeds.

    An image of class k is kept with probability N_k / N_max, where N_max is the count of the largest class (the
    official code uses class 0, the largest of its data sets); otherwise it is a slot.

    Args:
        labels: int64 [B] of the batch.
        class_counts: int64 [C], training images.
        beta: in [0, 1).
        uniforms: random numbers in [0, 1), float64 [B, DRAWS]. Columns: 0, slot if at least N_k / N_max; 1, the seed or
            its class, by cumulative weights; 2, accepted if below 1 - beta^gap; 3, image of the seed's class
            (``images`` only); 4, random target (``random_target`` only).
        images: sample seeds from the training set, a class by `seed_distribution` and then one of its images, as the
            paper says. None: from the batch, in proportion to the acceptance probability of each image's class, as in
            the official code; in class-balanced batches both distributions are nearly equal.
        random_target: generate towards a class that is sampled uniformly.

    Returns:
        The slots for which a larger class is available; the others keep their image.

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
    slot_labels, draws = labels[slot], uniforms[slot]
    candidates = counts if images is not None else counts[labels]
    probability = acceptance(candidates[None], counts[slot_labels][:, None], beta)  # [S, C] or [S, B]
    possible = np.asarray(probability.any(axis=1))
    slot, slot_labels, draws, probability = (a[possible] for a in (slot, slot_labels, draws, probability))
    columns = sample_columns(probability, draws[:, _SEED])
    accepted = draws[:, _CHANCE] < probability[np.arange(len(columns)), columns]
    if images is None:
        seeds, sources = columns, labels[columns]
    else:
        within = (draws[:, _IMAGE] * images.counts[columns]).astype(np.int64)
        seeds, sources = images.order[images.starts[columns] + within], columns
    targets = (draws[:, _TARGET] * len(counts)).astype(np.int64) if random_target else slot_labels
    return Slots(slot, slot_labels, targets, seeds, sources, accepted, total=len(possible))


def sample_columns(weights: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Sample a column for each row in proportion to weights [R, J] >= 0, from uniform random numbers [R]."""
    edges = weights.cumsum(1)
    if not len(edges):
        return np.zeros(0, dtype=np.int64)
    total = edges[:, -1]
    point = np.minimum(uniforms * total, np.nextafter(total, 0.0))
    return (edges <= point[:, None]).sum(1)
