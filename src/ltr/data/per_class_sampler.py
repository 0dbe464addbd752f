"""The sampler of metric learning: every batch holds a few classes, and as many images of each."""

from __future__ import annotations

import math

import numpy as np

from ltr.data.class_index import ClassIndex, image_cycles, shuffled_ranges, stable_order
from ltr.data.samplers import Sampler, Stream
from ltr.errors import ConfigError
from ltr.identity import named


@named("sampler/per_class")
class PerClass(Sampler):
    """m images of each class that is in a batch, after RKD's code (Park et al., CVPR 2019).

    A batch takes the classes in shuffled order until it is full, and a further round of them where there are too few;
    its last class may give fewer than m images. A class gives its images in freshly shuffled rounds, and never one
    twice at one visit. The published sampler draws anew at every visit; here all images come about equally often.

    Args:
        images_per_class: m, at least 2: an image without another of its class has no positive pair.
        batches: per epoch; None is as many as hold all training images once.
        batch_size: of an optimiser step over all processes; the top-level one.

    Raises:
        ConfigError: here, a batch too small for two classes; once the images are known, a class with fewer than m.
    """

    def __init__(self, *, images_per_class: int = 5, batches: int | None = None, batch_size: int) -> None:
        super().__init__()
        if images_per_class < 2:
            raise ConfigError(f"sampler.images_per_class={images_per_class}: a pair of one class needs at least 2")
        if batch_size <= images_per_class:
            raise ConfigError(
                f"batch_size={batch_size} with sampler.images_per_class={images_per_class}: a batch would hold one "
                "class, and a triplet needs an image of another. Raise batch_size or lower images_per_class"
            )
        self.images_per_class = images_per_class
        self.batches = batches
        self.batch_size = batch_size

    def length(self, index: ClassIndex) -> int:
        """Images in an epoch: whole batches."""
        self.check(index.counts)
        batches = math.ceil(len(index) / self.batch_size) if self.batches is None else self.batches
        return batches * self.batch_size

    def check(self, counts: np.ndarray) -> None:
        """Refuse training images [C] per class that such batches cannot be made of; classes without any are skipped.

        Raises:
            ConfigError: fewer than two classes, or one with fewer than m images.
        """
        counts = np.asarray(counts)
        present = np.flatnonzero(counts)
        if len(present) < 2:
            raise ConfigError("sampler=per_class: a triplet needs two classes, and the training images are of one")
        short = present[counts[present] < self.images_per_class]
        if len(short):
            shown = ", ".join(f"{c} ({counts[c]})" for c in short[:5]) + (", ..." if len(short) > 5 else "")
            raise ConfigError(
                f"sampler.images_per_class={self.images_per_class}: {len(short)} of {len(present)} classes have fewer "
                f"training images (label and images: {shown}). Use at most {max(int(counts[present].min()), 2)}, or a "
                "split without such classes"
            )

    def _draw(self, index: ClassIndex, size: int, stream: Stream, epoch: int, epochs: int) -> np.ndarray:
        classes = self._visits(index, size // self.batch_size, stream)
        each = self.images_per_class
        visited = np.bincount(classes.reshape(-1), minlength=len(index.counts))
        # a shuffled round of a class holds whole visits, so that none has an image twice; its rest is left out
        per_round = np.maximum(index.counts // each, 1)
        rounds = -(-visited // per_round)
        images, offsets = image_cycles(index, rounds * index.counts, stream("images"))
        order = stable_order(classes.reshape(-1))
        number = np.empty(classes.size, dtype=np.int64)  # which of its class's visits each one is
        number[order] = np.arange(classes.size) - np.repeat(np.cumsum(visited) - visited, visited)
        flat = classes.reshape(-1)
        first = offsets[flat] + number // per_round[flat] * index.counts[flat] + number % per_round[flat] * each
        drawn = images[first[:, None] + np.arange(each)].reshape(len(classes), -1)
        return drawn[:, : self.batch_size].reshape(-1)

    def _visits(self, index: ClassIndex, batches: int, stream: Stream) -> np.ndarray:
        """The classes that each batch visits, int64 [batches, ceil(batch size / m)]."""
        present = np.flatnonzero(index.counts)
        needed = math.ceil(self.batch_size / self.images_per_class)
        rounds = math.ceil(needed / len(present))
        turns = shuffled_ranges(np.full(batches * rounds, len(present)), stream("classes"))
        return present[turns.reshape(batches, -1)[:, :needed]]

    def _probabilities(self, counts: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
        self.check(counts)
        return (counts > 0) / np.count_nonzero(counts)
