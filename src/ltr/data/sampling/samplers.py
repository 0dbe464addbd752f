"""Samplers: the order of the training images as a pure function of (class index, seed, epoch).

A sample is one global array, which `shard` divides over the processes. Samplers keep nothing between epochs: their
state is the epoch number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np

from ltr.configuration.ranges import BelowOne, Fraction, PositiveInt, check_option
from ltr.configuration.unwritten import left_to_subclasses
from ltr.data.sampling.class_index import ClassIndex, image_cycles, sample_classes, shuffled_ranges, stable_order
from ltr.errors import ConfigError, DataError
from ltr.identity import named
from ltr.randomness import generator

_PERIODS = 3  # periods of the progressive sampler's periodic schedules

Exponent = Annotated[float, "[-2, 2]"]
Draw = Literal["cyclic", "iid"]
ProgressiveSchedule = Literal["official", "paper", "periodic", "mirrored"]
Stream = Callable[[str], np.random.Generator]  # purpose -> generator of the epoch


class Sampler:
    """Base class of samplers.

    Args:
        num_samples: images per epoch over all processes; None: N, the number of training images, so that an epoch has
            the same length for every sampler (as in the official class-balanced sampler).
        defer_from: fraction of the epochs with instance sampling before this sampler starts (deferred re-sampling, 0.8
            in LDAM-DRW), at epoch round(defer_from * epochs); None: from the first epoch.
    """

    def __init__(self, *, num_samples: PositiveInt | None = None, defer_from: Fraction | None = None) -> None:
        self.num_samples = check_option("sampler.num_samples", num_samples, PositiveInt | None)
        self.defer_from = check_option("sampler.defer_from", defer_from, Fraction | None)

    def length(self, index: ClassIndex) -> int:
        """Return the images per epoch over all processes."""
        return len(index) if self.num_samples is None else self.num_samples

    def start_epoch(self, epochs: int) -> int:
        """Return the first epoch (0-based) that does not use instance sampling."""
        return 0 if self.defer_from is None else round(self.defer_from * epochs)

    def epoch(self, index: ClassIndex, *, seed: int, epoch: int, epochs: int) -> np.ndarray:
        """Return the global sample of one epoch: int64 [length] positions in the train array.

        Args:
            seed: derived from (run seed, stage role) by the caller.
            epoch: 0-based.
            epochs: number of epochs of the training.
        """
        size, start = self.length(index), self.start_epoch(epochs)

        def stream(purpose: str) -> np.random.Generator:
            return generator(seed, purpose, epoch)

        if epoch < start:
            return _permutations(len(index), size, stream)
        return self._sample(index, size, stream, epoch - start, epochs - start)

    def class_probabilities(self, counts: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
        """Return the expected share of each class in an epoch's sample, float64 [C]."""
        start = self.start_epoch(epochs)
        if epoch < start:
            return _power_probabilities(counts, 1.0)
        return self._probabilities(counts, epoch - start, epochs - start)

    @left_to_subclasses("epoch")
    def _sample(self, index: ClassIndex, size: int, stream: Stream, epoch: int, epochs: int) -> np.ndarray:
        """Return the sample of an epoch after the deferral.

        Args:
            index: the training images by class.
            size: number of images of the sample, N.
            stream: function from a name to a generator of random numbers, which follows from seed and epoch.
            epoch, epochs: epoch from 0, and number of epochs, without the deferred ones.

        Returns:
            Positions among the training images, int64 [N].
        """
        raise NotImplementedError

    @left_to_subclasses("class_probabilities")
    def _probabilities(self, counts: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
        """Return the expected share of each class in the sample of an epoch after the deferral, float64 [C].

        Args:
            counts: training images of each class, int64 [C]; a class without images has the share 0.
            epoch, epochs: as for `_sample`.
        """
        raise NotImplementedError


@named("sampler/instance")
class Instance(Sampler):
    """Sampler of every image once per epoch in random order; ``num_samples`` repeats or truncates permutations.

    Args:
        reshuffle: False repeats the order of the first epoch, for example to overfit one batch.
        num_samples: see `Sampler`.
        defer_from: without effect, because deferred samplers use instance sampling before they start.
    """

    def __init__(
        self, *, reshuffle: bool = True, num_samples: PositiveInt | None = None, defer_from: Fraction | None = None
    ) -> None:
        super().__init__(num_samples=num_samples, defer_from=defer_from)
        self.reshuffle = reshuffle

    def epoch(self, index: ClassIndex, *, seed: int, epoch: int, epochs: int) -> np.ndarray:
        return super().epoch(index, seed=seed, epoch=epoch if self.reshuffle else 0, epochs=epochs)

    def _sample(self, index: ClassIndex, size: int, stream: Stream, epoch: int, epochs: int) -> np.ndarray:
        return _permutations(len(index), size, stream)

    def _probabilities(self, counts: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
        return _power_probabilities(counts, 1.0)


@named("sampler/power")
class Power(Sampler):
    """Sampler of a class with p_j = n_j^q / sum_i n_i^q (Kang et al., ICLR 2020), then of an image, independently.

    Args:
        q: 1 is instance-balanced (with replacement), 0 class-balanced, 1/2 square-root; values below 0 favour the
            tail.
        num_samples, defer_from: see `Sampler`.
    """

    def __init__(
        self, *, q: Exponent, num_samples: PositiveInt | None = None, defer_from: Fraction | None = None
    ) -> None:
        super().__init__(num_samples=num_samples, defer_from=defer_from)
        self.q = check_option("sampler.q", q, Exponent)

    def _sample(self, index: ClassIndex, size: int, stream: Stream, epoch: int, epochs: int) -> np.ndarray:
        return _independent(index, _power_probabilities(index.counts, self.q), size, stream)

    def _probabilities(self, counts: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
        return _power_probabilities(counts, self.q)


@named("sampler/square_root")
class SquareRoot(Power):
    """`Power` with q = 1/2 (Mahajan et al., ECCV 2018)."""

    def __init__(self, *, num_samples: PositiveInt | None = None, defer_from: Fraction | None = None) -> None:
        super().__init__(q=0.5, num_samples=num_samples, defer_from=defer_from)


@named("sampler/effective_number")
class EffectiveNumber(Sampler):
    """Sampler of images independently with weights 1 / E_j, for the effective number E_j of their class's images.

    E_j = (1 - beta^n_j) / (1 - beta) (Cui et al., CVPR 2019), so that the shares of classes are in proportion to
    n_j / E_j: nearly equal for beta near 1, as in class-balanced re-sampling ("CB RS") of LDAM-DRW's tables. Its
    released code builds the loader before this sampler and does not use it.

    Args:
        beta: 0 is instance-balanced (with replacement), and values near 1 class-balanced.
        num_samples, defer_from: see `Sampler`.
    """

    def __init__(
        self,
        *,
        beta: BelowOne = 0.9999,
        num_samples: PositiveInt | None = None,
        defer_from: Fraction | None = None,
    ) -> None:
        super().__init__(num_samples=num_samples, defer_from=defer_from)
        self.beta = check_option("sampler.beta", beta, BelowOne)

    def _sample(self, index: ClassIndex, size: int, stream: Stream, epoch: int, epochs: int) -> np.ndarray:
        return _independent(index, self._probabilities(index.counts, epoch, epochs), size, stream)

    def _probabilities(self, counts: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
        if self.beta == 0:
            return _power_probabilities(counts, 1.0)
        # expm1 avoids cancellation where beta^n is close to 1
        shares = np.divide(counts, -np.expm1(counts * np.log(self.beta)), out=np.zeros(len(counts)), where=counts > 0)
        return shares / shares.sum()


@named("sampler/class_balanced")
class ClassBalanced(Sampler):
    """Sampler with equal frequencies for all classes.

    ``draw="cyclic"`` follows the published code (the ClassAwareSampler of OLTR and of Kang et al.). Classes come in
    shuffled rounds, so that their counts differ by at most one visit. A class yields its images in shuffled rounds, so
    that no image repeats before all were used. The published sampler continues from epoch to epoch; this one restarts
    at each epoch, so that epochs are independent. ``draw="iid"`` is `Power` with q = 0.

    Args:
        draw: ``cyclic`` takes classes, and the images of each class, in shuffled rounds without replacement (the
            published code); ``iid`` samples both independently.
        images_per_visit: consecutive images of a class per visit (4 in the published configs); only for ``cyclic``.
        num_samples, defer_from: see `Sampler`.
    """

    def __init__(
        self,
        *,
        draw: Draw = "cyclic",
        images_per_visit: PositiveInt = 1,
        num_samples: PositiveInt | None = None,
        defer_from: Fraction | None = None,
    ) -> None:
        super().__init__(num_samples=num_samples, defer_from=defer_from)
        check_option("sampler.draw", draw, Draw)
        check_option("sampler.images_per_visit", images_per_visit, PositiveInt)
        if draw == "iid" and images_per_visit != 1:
            raise ConfigError(
                f"sampler.images_per_visit={images_per_visit} needs sampler.draw=cyclic; with iid it is 1"
            )
        self.draw = draw
        self.images_per_visit = images_per_visit

    def _sample(self, index: ClassIndex, size: int, stream: Stream, epoch: int, epochs: int) -> np.ndarray:
        if self.draw == "iid":
            return Power(q=0.0)._sample(index, size, stream, epoch, epochs)
        present = np.flatnonzero(index.counts)
        per_visit = self.images_per_visit
        rounds = math.ceil(size / (len(present) * per_visit))
        turns = shuffled_ranges(np.full(rounds, len(present)), stream("classes")).reshape(rounds, -1)
        turns = present[turns]
        # a class has one turn in each round, so that round k takes its images from k * per_visit on
        visits = np.where(index.counts > 0, rounds * per_visit, 0)
        images, offsets = image_cycles(index, visits, stream("images"))
        first_of_visit = offsets[turns] + np.arange(0, rounds * per_visit, per_visit)[:, None]
        return images[(first_of_visit[..., None] + np.arange(per_visit)).reshape(-1)[:size]]

    def _probabilities(self, counts: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
        return _power_probabilities(counts, 0.0)


@named("sampler/progressive")
class Progressive(Sampler):
    """Sampler that changes from instance-balanced to class-balanced over the epochs (Kang et al., ICLR 2020).

    Classes are sampled independently with p_j = (1 - t) n_j / N + t / C; a class yields the next image of its shuffled
    round. ``schedule="official"`` is t = e / (E - 1) with e from 0, as in the published code, and ends class-balanced;
    ``"paper"`` is t = e / E and ends just before. The published code has two more schedules over three periods of
    P = E // 3 epochs: ``"periodic"`` (cycle 1) rises from 0 to 1 in each period, t = (e mod P) / (P - 1);
    ``"mirrored"`` (cycle 2) rises, falls and rises. If 3 does not divide E, the remaining epochs keep the last value;
    the published code fails there. With ``defer_from`` the schedule spans the remaining epochs.

    Args:
        schedule: share of class balance in epoch e (from 0) of E: e / (E - 1) (``official``, the published code) or e /
            E (``paper``); over three periods 0 to 1 in each (``periodic``), or 0 to 1, 1 to 0, 0 to 1 (``mirrored``).
        num_samples, defer_from: see `Sampler`.
    """

    def __init__(
        self,
        *,
        schedule: ProgressiveSchedule = "official",
        num_samples: PositiveInt | None = None,
        defer_from: Fraction | None = None,
    ) -> None:
        super().__init__(num_samples=num_samples, defer_from=defer_from)
        check_option("sampler.schedule", schedule, ProgressiveSchedule)
        self.schedule = schedule

    def _sample(self, index: ClassIndex, size: int, stream: Stream, epoch: int, epochs: int) -> np.ndarray:
        classes = sample_classes(self._probabilities(index.counts, epoch, epochs), size, stream("classes"))
        visits = np.bincount(classes, minlength=len(index.counts))
        images, offsets = image_cycles(index, visits, stream("images"))
        # the k-th sample of a class takes its k-th image
        before = np.cumsum(visits) - visits
        sample = np.empty(size, dtype=np.int64)
        sample[stable_order(classes)] = images[np.arange(size) + np.repeat(offsets - before, visits)]
        return sample

    def _probabilities(self, counts: np.ndarray, epoch: int, epochs: int) -> np.ndarray:
        balance = self.balance(epoch, epochs)
        return (1 - balance) * _power_probabilities(counts, 1.0) + balance * _power_probabilities(counts, 0.0)

    def balance(self, epoch: int, epochs: int) -> float:
        """Return t of an epoch (0-based) in [0, 1]: 0 is instance-balanced, 1 class-balanced."""
        if self.schedule in ("official", "paper"):
            last = epochs - 1 if self.schedule == "official" else epochs
            return min(epoch / max(last, 1), 1.0)
        length = max(epochs // _PERIODS, 1)
        period, within = divmod(min(epoch, _PERIODS * length - 1), length)
        if length == 1:
            return 0.0  # as in the published code
        share = within / (length - 1)
        return 1.0 - share if self.schedule == "mirrored" and period == 1 else share


def shard(sample: np.ndarray, rank: int, world_size: int, batch_size: int) -> np.ndarray:
    """Return the part of a global sample that belongs to process ``rank``.

    Step t of all processes is ``sample[t * batch_size:(t + 1) * batch_size]``, distributed with stride ``world_size``,
    so that the images of one visit to a class are spread over the processes. All processes have the same number of
    steps and of images: the last step may be short, and its last images are dropped (fewer than ``world_size``) if
    ``world_size`` does not divide it. To get positions in the global sample, shard ``np.arange(len(sample))``.

    Args:
        sample: [T].
        rank: 0 <= rank < world_size.
        world_size: number of processes.
        batch_size: batch size over all processes.

    Raises:
        ConfigError: ``batch_size`` is not a multiple of ``world_size``.
        DataError: the sample has fewer images than there are processes.
    """
    if batch_size < 1 or batch_size % world_size:
        raise ConfigError(
            f"batch_size={batch_size} (global) cannot be shared out evenly over {world_size} processes; use a multiple"
        )
    if len(sample) < world_size:
        raise DataError(f"an epoch of {len(sample)} images cannot be shared out over {world_size} processes")
    kept = len(sample) - len(sample) % batch_size % world_size
    return sample[rank:kept:world_size]


def _permutations(total: int, size: int, stream: Stream) -> np.ndarray:
    """Return concatenated permutations of 0 .. total-1, truncated to ``size``."""
    rng = stream("permutation")
    return np.concatenate([rng.permutation(total) for _ in range(math.ceil(size / total))])[:size]


def _independent(index: ClassIndex, probabilities: np.ndarray, size: int, stream: Stream) -> np.ndarray:
    """Sample classes with these probabilities [C], then an image of each, all independently; int64 [size]."""
    classes = sample_classes(probabilities, size, stream("classes"))
    within = stream("images").random(size)
    within *= index.counts[classes]
    return index.order[index.starts[classes] + within.astype(np.int64)]


def _power_probabilities(counts: np.ndarray, q: float) -> np.ndarray:
    """Return p_j proportional to n_j^q for classes with images, and 0 for empty classes."""
    present = counts > 0
    # relative to the largest class, so that no power overflows
    weights = np.where(present, np.where(present, counts, 1) / counts.max(), 0.0)
    weights[present] **= q
    return weights / weights.sum()
