"""Loader of small images: batches are indexed from one uint8 tensor on the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ltr.data.augmentation.augment import Augmentation, Parameters, cut_windows, window_constants
from ltr.data.batch import Batch, Mix, PendingBatch, to_device, with_device_index
from ltr.errors import DataError
from ltr.randomness import derive_seed


class ResidentImages:
    """All images of a source on one device.

    On a CPU the tensor shares the read-only memory of the array; a GPU gets one copy.

    Args:
        images: uint8 [N, H, W, C].
        device: device of the batches and their augmentation.
        max_bytes: size limit in bytes. None: no limit on a CPU, 80 % of the free memory on a GPU.
        side: height and width in pixels to which `take` resizes images; None: no resizing.
        interpolation: interpolation of this resizing, see `resize_images`; None: bilinear.

    Raises:
        DataError: the images exceed the limit.
    """

    def __init__(
        self,
        images: np.ndarray,
        device: torch.device | str = "cpu",
        *,
        max_bytes: int | None = None,
        side: int | None = None,
        interpolation: str | None = None,
    ) -> None:
        self.interpolation = interpolation or "bilinear"
        self.device = with_device_index(device)
        self.side = None if side is None or images.shape[1:3] == (side, side) else side
        if max_bytes is None and self.device.type == "cuda":
            max_bytes = int(0.8 * torch.cuda.mem_get_info(self.device)[0])
        if max_bytes is not None and images.nbytes > max_bytes:
            raise DataError(
                f"{len(images)} images of {list(images.shape[1:])} take {images.nbytes / 2**20:,.0f} MiB on "
                f"{self.device}, and {max_bytes / 2**20:,.0f} MiB is the limit. Use a device with more memory, smaller "
                "images, or a source that reads image files through worker processes"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # a Source's pixels are read-only
            shared = torch.from_numpy(np.ascontiguousarray(images))
        self.pixels = shared.to(self.device)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the images that `take` returns."""
        height, width, channels = self.pixels.shape[1:]
        return channels, self.side or height, self.side or width

    def take(self, indices: Tensor) -> Tensor:
        """Return a new tensor uint8 [B, C, H, W] in channels_last memory, for int64 [B] indices on the same device."""
        images = self.pixels.index_select(0, indices).permute(0, 3, 1, 2)
        return images if self.side is None else resize_images(images, (self.side, self.side), self.interpolation)


def resize_images(images: Tensor, size: tuple[int, int], interpolation: str = "bilinear") -> Tensor:
    """Return images uint8 [B, C, H, W] resized to ``size`` (height, width), antialiased, in channels_last.

    Args:
        interpolation: ``bilinear`` or ``bicubic``, as Pillow defines them.
    """
    with torch.autocast(images.device.type, enabled=False):
        wide = functional.interpolate(images.float(), size, mode=interpolation, antialias=True)
    return wide.round_().clamp_(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def batch_bounds(images: int, batch_size: int, join_single: bool = False) -> np.ndarray:
    """Return the bounds of the batches of an epoch, int64 [number of batches + 1].

    Args:
        images: images per epoch of this process.
        batch_size: batch size of this process; the last batch may be smaller.
        join_single: True appends a last batch of a single image to the batch before it.
    """
    bounds = np.append(np.arange(0, images, batch_size), images)
    if join_single and len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        bounds = np.delete(bounds, -2)
    return bounds


class EpochCounter:
    """Epoch of the next iteration; Lightning sets it by ``loader.sampler.set_epoch``."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class EpochLoader:
    """Base class of the loaders: order of the images, bounds of the batches, and start of an iteration.

    Order and positions follow from the epoch number, so that the state of a loader is two integers.

    Args:
        labels: int64 [N], the split's labels of the whole source, on the device of the batches.
        order: epoch -> source indices int64 [n] of this process, in order.
        batch_size: batch size of this process; the last batch of an epoch may be smaller.
        positions: epoch -> int64 [n], position of each index in the epoch's global sample, which determines the random
            numbers of the image. None counts from 0.
        length: n, if it is known without calling ``order``.
        join_single: see `batch_bounds`.
        seed_of_epoch: epoch -> seed of its random numbers.
    """

    batch_sampler = None  # Lightning reads it if there is a sampler

    def __init__(
        self,
        labels: Tensor,
        *,
        order: Callable[[int], np.ndarray],
        batch_size: int,
        positions: Callable[[int], np.ndarray] | None = None,
        length: int | None = None,
        join_single: bool = False,
        seed_of_epoch: Callable[[int], int] = lambda epoch: epoch,
    ) -> None:
        self.labels = labels
        self.seed_of_epoch = seed_of_epoch
        self.order = order
        self.positions = positions
        self.batch_size = batch_size
        self.sampler = EpochCounter()
        self._length = len(order(0)) if length is None else length
        self.bounds = batch_bounds(self._length, batch_size, join_single)
        self._start: tuple[int, int] | None = None
        self._next_batch = 0

    def __len__(self) -> int:
        """Return the batches per epoch, independent of `start_at`."""
        return len(self.bounds) - 1

    def start_at(self, epoch: int, batch: int) -> None:
        """Start the next iteration at ``batch``, without computing earlier batches, if it iterates over ``epoch``."""
        self._start = (epoch, batch)

    def rows(self, batch: int) -> slice:
        """Return the slice of the epoch's order that forms a batch."""
        return slice(int(self.bounds[batch]), int(self.bounds[batch + 1]))

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the number of batches yielded in it."""
        return {"epoch": self.sampler.epoch, "batch": self._next_batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after a `state_dict`, unless `start_at` was called."""
        if self._start is None:
            self.start_at(int(state["epoch"]), int(state["batch"]))

    def _begin(self) -> tuple[int, int, np.ndarray, np.ndarray]:
        """Return epoch, first batch, source indices and positions of a new iteration."""
        epoch = self.sampler.epoch
        start, self._start = self._start, None
        first = start[1] if start is not None and start[0] == epoch else 0
        self._next_batch = first
        indices = np.asarray(self.order(epoch), dtype=np.int64)
        positions = np.arange(len(indices)) if self.positions is None else self.positions(epoch)
        if len(indices) != self._length or len(positions) != len(indices):
            raise DataError(
                f"epoch {epoch} has {len(indices)} images at {len(positions)} positions, but {self._length} were "
                "expected. A sampler must return the same number in every epoch"
            )
        return epoch, first, indices, positions


class DeviceLoader(EpochLoader):
    """Loader of `ResidentImages` that augments batches on their device.

    Args:
        images: all images of the source.
        augment: augmentation of every batch, or None.
        views: augmentations of further views of each image, see `Batch.views`.
        labels, options: see `EpochLoader`.
    """

    def __init__(
        self,
        images: ResidentImages,
        labels: Tensor,
        *,
        augment: Augmentation | None = None,
        views: Sequence[Augmentation] = (),
        **options: Any,
    ) -> None:
        super().__init__(labels, **options)
        self.images = images
        self.augment = augment
        self.views = tuple(views)
        self.defers_images = False  # yield `PendingBatch`, whose images a recorded training step takes and augments
        self._window_constants: dict[int, tuple[Tensor, ...]] = {}  # by batch size, kept alive for recorded steps

    @property
    def can_defer_images(self) -> bool:
        """True if the device can augment a batch without the host."""
        if self.views:
            return False
        if self.augment is None:
            return True
        return type(self.augment) is Augmentation and (self.augment.only_cuts or self.augment.identity)

    def take(self, pending: PendingBatch) -> Batch:
        """Return a batch with its images, taken and augmented by the device alone."""
        images = self.images.take(pending.indices)
        if pending.windows is not None:
            assert isinstance(self.augment, Augmentation)
            count = len(pending.indices)
            self._window_constants[count] = window_constants(
                self.images.image_shape, self.augment.pad, images.device, count
            )
            pixels = cut_windows(images.permute(0, 2, 3, 1).contiguous(), pending.windows, self.augment.pad)
            images = pixels.permute(0, 3, 1, 2)
        return Batch(images, pending.labels, pending.indices)

    def __iter__(self) -> Iterator[Batch]:
        # a generator reads the epoch at the first batch: Lightning creates the iterator before it calls set_epoch
        epoch, first, indices, positions = self._begin()
        seed, on_device = self.seed_of_epoch(epoch), to_device(indices, self.images.device)
        if self.defers_images:
            yield from self._pending(first, on_device, seed, positions)  # type: ignore[misc]
            return
        augmented = self._augmenter(self.augment, seed, positions)
        further = [
            self._augmenter(view, view_seed(seed, number), positions) for number, view in enumerate(self.views, 1)
        ]
        for number in range(first, len(self)):
            part = self.rows(number)
            chosen = on_device[part]
            taken, labels = self.images.take(chosen), self.labels.index_select(0, chosen)
            views = tuple(view(taken, labels, part)[0] for view in further)
            images, mix = augmented(taken, labels, part)
            self._next_batch = number + 1
            yield Batch(images, labels, chosen, mix, views)

    def _pending(self, first: int, indices: Tensor, seed: int, positions: np.ndarray) -> Iterator[PendingBatch]:
        """Yield the batches of an epoch from batch ``first``, without their images."""
        windows = None
        if isinstance(self.augment, Augmentation) and not self.augment.identity:
            windows = self.augment.sample(seed, positions, self.images.device).windows  # those of the whole epoch
        labels = self.labels.index_select(0, indices)
        for number in range(first, len(self)):
            part = self.rows(number)
            self._next_batch = number + 1
            yield PendingBatch(labels[part], indices[part], None if windows is None else windows[:, part])

    def _augmenter(
        self, augment: Augmentation | None, seed: int, positions: np.ndarray
    ) -> Callable[[Tensor, Tensor, slice], tuple[Tensor, Mix | None]]:
        """Return a function that augments the images of a slice of the epoch."""
        if augment is None:
            return lambda images, labels, part: (images, None)
        if not isinstance(augment, Augmentation) or type(augment).__call__ is not Augmentation.__call__:  # the user's
            return lambda images, labels, part: augment(images, labels, seed=seed, positions=positions[part])
        numbers = BlockOfNumbers(augment, seed, positions, self.images.device)
        return lambda images, labels, part: augment.apply(images, labels, numbers.of(part))


def view_seed(seed: int, number: int) -> int:
    """Return the seed of the augmentation of a further view, counted from 1, from that of the epoch."""
    return derive_seed(seed, "view", number)


class BlockOfNumbers:
    """Random numbers of an epoch's augmentation, sampled in blocks because a block takes hardly longer than a batch.

    Args:
        augment: augmentation of the batches.
        seed: seed of the epoch.
        positions: int64 [n], see `EpochLoader`.
        device: device of the batches.
    """

    images = 2**15  # smallest number of images in a block

    def __init__(self, augment: Augmentation, seed: int, positions: np.ndarray, device: torch.device) -> None:
        self.augment, self.seed, self.positions, self.device = augment, seed, positions, device
        self._first = self._end = 0
        self._block: Parameters | None = None

    def of(self, part: slice) -> Parameters:
        """Return the numbers of a slice of the epoch."""
        if self._block is None or part.start < self._first or part.stop > self._end:
            self._first, self._end = part.start, max(part.stop, part.start + self.images)
            self._block = self.augment.sample(self.seed, self.positions[self._first : self._end], self.device)
        return self._block.part(slice(part.start - self._first, part.stop - self._first))
