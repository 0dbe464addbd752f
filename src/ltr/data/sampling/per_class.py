"""Sampler for metric learning: batches of a few classes with the same number of images each."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from ltr.configuration.ranges import PositiveInt, check_option
from ltr.data.sampling.class_index import ClassIndex, image_cycles, shuffled_ranges, stable_order
from ltr.data.sampling.samplers import Sampler, Stream
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.names import list_first

Several = Annotated[int, "[2, inf)"]


@named("sampler/per_class")
class PerClass(Sampler):
    """Sampler of batches with m images per class, after RKD's code (Park et al., CVPR 2019).

    A batch takes classes in shuffled order until it is full, in further rounds if there are too few classes; its last
    class may have fewer than m images. A class yields its images in shuffled rounds, without repeats within a visit.
    The published sampler samples independently at every visit; here all images are used about equally often, unless
    ``allow_fewer``.

    Args:
        images_per_class: m, at least 2, because every image needs a positive of its class; the last class of a batch
            may give fewer.
        batches: batches per epoch (RKD: 100; 500 for Online Products); None: as many as cover all training images once.
        batch_size: images per batch over all processes.
        allow_fewer: True admits classes of two to m - 1 images, which give all of their images at a visit, so that a
            batch has as many classes as fill it (RKD on Online Products); images of a class are then sampled anew at
            every visit, as in the published code.

    Raises:
        ConfigError: a batch is too small for two classes, or (once the images are known) a class has fewer than m.
    """

    def __init__(
        self,
        *,
        images_per_class: Several = 5,
        batches: PositiveInt | None = None,
        batch_size: PositiveInt,
        allow_fewer: bool = False,
    ) -> None:
        super().__init__()
        check_option("sampler.images_per_class", images_per_class, Several)
        if batch_size <= images_per_class:
            raise ConfigError(
                f"batch_size={batch_size} with sampler.images_per_class={images_per_class}: a batch would hold one "
                "class, and a triplet needs a second class. Raise batch_size or lower images_per_class"
            )
        self.images_per_class = images_per_class
        self.batches = batches
        self.batch_size = batch_size
        self.allow_fewer = allow_fewer

    def length(self, index: ClassIndex) -> int:
        """Return the images per epoch, a multiple of the batch size."""
        self.check(index.counts)
        batches = math.ceil(len(index) / self.batch_size) if self.batches is None else self.batches
        return batches * self.batch_size

    def check(self, counts: np.ndarray) -> None:
        """Check that class counts [C] allow such batches; empty classes are ignored.

        Raises:
            ConfigError: there are fewer than two classes, or a class has fewer than m images (two with
                ``allow_fewer``).
        """
        counts = np.asarray(counts)
        present = np.flatnonzero(counts)
        if len(present) < 2:
            raise ConfigError("sampler=per_class: a triplet needs two classes, and the training images are of one")
        needed = 2 if self.allow_fewer else self.images_per_class
        short = present[counts[present] < needed]
        if len(short):
            shown = list_first([f"{label} ({counts[label]})" for label in short], 5)
            least = int(counts[present].min())
            lower = f"Use at most {least}, sampler.allow_fewer=true, or a split" if least >= 2 else "Use a split"
            raise ConfigError(
                f"sampler.images_per_class={self.images_per_class}: {len(short)} of {len(present)} classes have fewer "
                f"than {needed} training images (label and images: {shown}). {lower} without such classes"
            )

    def _sample(self, index: ClassIndex, size: int, stream: Stream, epoch: int, epochs: int) -> np.ndarray:
        if self.allow_fewer:
            return self._sample_fewer(index, size // self.batch_size, stream)
        classes = self._visits(index, size // self.batch_size, stream)
        per_visit = self.images_per_class
        visits = np.bincount(classes.reshape(-1), minlength=len(index.counts))
        # a shuffled round of a class has whole visits only, so that no visit repeats an image; a remainder is dropped
        per_round = np.maximum(index.counts // per_visit, 1)
        rounds = -(-visits // per_round)
        images, offsets = image_cycles(index, rounds * index.counts, stream("images"))
        order = stable_order(classes.reshape(-1))
        visit_index = np.empty(classes.size, dtype=np.int64)  # index of each visit among those of its class
        visit_index[order] = np.arange(classes.size) - np.repeat(np.cumsum(visits) - visits, visits)
        flat = classes.reshape(-1)
        first = (
            offsets[flat]
            + visit_index // per_round[flat] * index.counts[flat]
            + visit_index % per_round[flat] * per_visit
        )
        sampled = images[first[:, None] + np.arange(per_visit)].reshape(len(classes), -1)
        return sampled[:, : self.batch_size].reshape(-1)

    def _sample_fewer(self, index: ClassIndex, batches: int, stream: Stream) -> np.ndarray:
        """Return batches of classes that give at most m images each, int64 [batches * batch size]."""
        present = np.flatnonzero(index.counts)
        each = np.minimum(index.counts, self.images_per_class)
        of_round = int(each[present].sum())
        rounds = math.ceil(self.batch_size / of_round)  # above 1 if a batch needs classes again
        classes, images = stream("classes"), stream("images")
        sampled = np.empty((batches, self.batch_size), dtype=np.int64)
        for batch in sampled:
            order = np.concatenate([classes.permutation(present) for _ in range(rounds)])
            order = order[: np.searchsorted(np.cumsum(each[order]), self.batch_size) + 1]
            drawn = [images.choice(index.counts[label], each[label], replace=False) for label in order]
            within = np.concatenate(drawn)[: self.batch_size]
            batch[:] = index.order[np.repeat(index.starts[order], each[order])[: self.batch_size] + within]
        return sampled.reshape(-1)

    def _visits(self, index: ClassIndex, batches: int, stream: Stream) -> np.ndarray:
        """Return the classes of each batch, int64 [batches, ceil(batch size / m)]."""
        present = np.flatnonzero(index.counts)
        needed = math.ceil(self.batch_size / self.images_per_class)
        rounds = math.ceil(needed / len(present))
        turns = shuffled_ranges(np.full(batches * rounds, len(present)), stream("classes"))
        return present[turns.reshape(batches, -1)[:, :needed]]

    def _probabilities(self, counts: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
        self.check(counts)
        return (counts > 0) / np.count_nonzero(counts)
