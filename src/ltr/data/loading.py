"""The loader of small images: all of them as one uint8 tensor on the device, batches cut from it by index."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.data.augment import Augmentation
from ltr.data.batch import Batch, to_device, with_device_index
from ltr.errors import DataError


class ResidentImages:
    """All images of a source on one device.

    On a CPU the tensor shares the array's memory (nobody may write to it); on a GPU it is one transfer.

    Args:
        images: uint8 [N, H, W, C].
        device: where batches are cut and augmented.
        max_bytes: refuse larger sources. None means no limit on a CPU and 80 % of what is free on a GPU.

    Raises:
        DataError: the images are larger than that.
    """

    def __init__(self, images: np.ndarray, device: torch.device | str = "cpu", *, max_bytes: int | None = None) -> None:
        self.device = with_device_index(device)
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
        """(C, H, W)."""
        height, width, channels = self.pixels.shape[1:]
        return channels, height, width

    def take(self, indices: Tensor) -> Tensor:
        """A fresh uint8 [B, C, H, W] in channels_last memory, for int64 [B] indices on the same device."""
        return self.pixels.index_select(0, indices).permute(0, 3, 1, 2)


def batch_bounds(images: int, batch_size: int, join_single: bool = False) -> np.ndarray:
    """Where the batches of an epoch begin and end, int64 [number of batches + 1].

    Args:
        images: of the epoch, in this process.
        batch_size: of this process; the last batch may be smaller.
        join_single: a last batch of a single image becomes part of the batch before it.
    """
    bounds = np.append(np.arange(0, images, batch_size), images)
    if join_single and len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        bounds = np.delete(bounds, -2)
    return bounds


class EpochCounter:
    """The epoch that the next iteration is of. Lightning calls ``loader.sampler.set_epoch`` and nothing else."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class EpochLoader:
    """What both loaders share: which images come in which batch of which epoch, and where an iteration starts.

    Everything follows from the epoch's number, so that a loader has no state but two integers.

    Args:
        order: epoch -> source indices int64 [n] of this process, in order.
        batch_size: of this process; the last batch of an epoch may be shorter.
        positions: epoch -> int64 [n], each index's place in the global draw of the epoch (what an image's random
            numbers are keyed by). None counts from 0.
        length: n, if it is known without asking for an order.
        join_single: see `batch_bounds`.
    """

    batch_sampler = None  # Lightning asks for it where there is a sampler

    def __init__(
        self,
        *,
        order: Callable[[int], np.ndarray],
        batch_size: int,
        positions: Callable[[int], np.ndarray] | None = None,
        length: int | None = None,
        join_single: bool = False,
    ) -> None:
        self.order = order
        self.positions = positions
        self.batch_size = batch_size
        self.sampler = EpochCounter()
        self._length = len(order(0)) if length is None else length
        self.bounds = batch_bounds(self._length, batch_size, join_single)
        self._start: tuple[int, int] | None = None
        self._next_batch = 0

    def __len__(self) -> int:
        """Batches per epoch, wherever an iteration starts."""
        return len(self.bounds) - 1

    def start_at(self, epoch: int, batch: int) -> None:
        """Let the next iteration, if it is of ``epoch``, begin with batch number ``batch``; no batch before is made."""
        self._start = (epoch, batch)

    def rows(self, batch: int) -> slice:
        """The places in the epoch's order that make up a batch."""
        return slice(int(self.bounds[batch]), int(self.bounds[batch + 1]))

    def state_dict(self) -> dict[str, Any]:
        """The epoch and how many of its batches were handed out."""
        return {"epoch": self.sampler.epoch, "batch": self._next_batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after a `state_dict`, unless `start_at` has said where."""
        if self._start is None:
            self.start_at(int(state["epoch"]), int(state["batch"]))

    def _begin(self) -> tuple[int, int, np.ndarray, np.ndarray]:
        """Epoch, first batch, source indices and positions of the iteration that begins now."""
        epoch = self.sampler.epoch
        start, self._start = self._start, None
        first = start[1] if start is not None and start[0] == epoch else 0
        self._next_batch = first
        indices = np.asarray(self.order(epoch), dtype=np.int64)
        positions = np.arange(len(indices)) if self.positions is None else self.positions(epoch)
        if len(indices) != self._length or len(positions) != len(indices):
            raise DataError(
                f"epoch {epoch} has {len(indices)} images at {len(positions)} positions, but {self._length} were "
                "announced. A sampler must draw the same number in every epoch"
            )
        return epoch, first, indices, positions


class DeviceLoader(EpochLoader):
    """Batches of `ResidentImages`, augmented on their device.

    Args:
        images: the whole source.
        labels: int64 [N], the split's labels of the whole source, on the same device.
        order, batch_size, positions, length, join_single: see `EpochLoader`.
        augment: applied to every batch, or None.
        seed_of_epoch: epoch -> the seed of its augmentation. Needed with ``augment``.
    """

    def __init__(
        self,
        images: ResidentImages,
        labels: Tensor,
        *,
        order: Callable[[int], np.ndarray],
        batch_size: int,
        positions: Callable[[int], np.ndarray] | None = None,
        length: int | None = None,
        join_single: bool = False,
        augment: Augmentation | None = None,
        seed_of_epoch: Callable[[int], int] = lambda epoch: epoch,
    ) -> None:
        super().__init__(
            order=order, batch_size=batch_size, positions=positions, length=length, join_single=join_single
        )
        self.images = images
        self.labels = labels
        self.augment = augment
        self.seed_of_epoch = seed_of_epoch

    def __iter__(self) -> Iterator[Batch]:
        # a generator: Lightning makes the iterator before it calls set_epoch, so the epoch is read at the first next
        epoch, first, indices, positions = self._begin()
        seed = self.seed_of_epoch(epoch)
        on_device = to_device(indices, self.images.device)
        for number in range(first, len(self)):
            part = self.rows(number)
            chosen = on_device[part]
            images, labels = self.images.take(chosen), self.labels.index_select(0, chosen)
            mix = None
            if self.augment is not None:
                images, mix = self.augment(images, labels, seed=seed, positions=positions[part])
            self._next_batch = number + 1
            yield Batch(images, labels, chosen, mix)
