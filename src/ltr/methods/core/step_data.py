"""Host-side data of a training step: labels and positions of all processes, and further training images.

Labels come from the stage's DataModule, so that no step waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from ltr.data.augmentation.augment import Augmentation
from ltr.data.batch import Batch, to_device


def seed_step(seed: int, device: torch.device) -> None:
    """Seed the default random generators of the CPU and of ``device``, which dropout uses.

    `torch.manual_seed` seeds those of all devices, and without a GPU takes 70 times as long.

    Args:
        seed: in [0, 2**63).
    """
    if device.type == "cuda":
        number = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[number].manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)
    torch.default_generator.manual_seed(seed)


@dataclass(frozen=True, eq=False)
class Step:
    """The global batch of one step: images of all processes, in the sampler's order.

    Attributes:
        labels: int64 [B].
        positions: int64 [B], positions in the epoch's sampled sequence; random numbers are keyed by them.
        rank, world_size: image b of the global batch belongs to rank ``b % world_size`` and is row ``b // world_size``
            of its batch.
    """

    labels: np.ndarray
    positions: np.ndarray
    rank: int = 0
    world_size: int = 1

    @property
    def local_labels(self) -> np.ndarray:
        """Labels of this process's batch, int64 [b]."""
        return self.labels[self.rank :: self.world_size]

    @property
    def local_positions(self) -> np.ndarray:
        """Positions of this process's batch, int64 [b]."""
        return self.positions[self.rank :: self.world_size]

    def is_local(self, indices: np.ndarray) -> np.ndarray:
        """Return a bool mask of the indices into the global batch that belong to this process."""
        return indices % self.world_size == self.rank

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Return the rows of this process's batch for local indices into the global batch."""
        return indices // self.world_size


def step_of(data: Any, epoch: int, number: int, batch: Batch) -> Step:
    """Return the global batch of a step.

    Args:
        data: the stage's DataModule; None outside a Trainer, where ``batch`` is the global batch.
        number: index of the step in its epoch.
        batch: this process's part.
    """
    if data is None:
        labels = batch.labels.cpu().numpy()
        return Step(labels, np.arange(len(labels)))
    positions = data.positions_of_step(number)
    indices = data.epoch_sample(epoch)[positions]
    labels = data.split.label_map[data.source.labels[indices]]
    return Step(labels, np.arange(positions.start, positions.stop), data.rank, data.world_size)


def gather_images(images: Tensor, world_size: int) -> Tensor:
    """All-gather images [b, ...] to [b * world_size, ...], in the order of the global batch."""
    if world_size == 1:
        return images
    flat = images.permute(0, 2, 3, 1).contiguous()
    parts = [torch.empty_like(flat) for _ in range(world_size)]
    distributed.all_gather(parts, flat)
    return torch.stack(parts, 1).flatten(0, 1).permute(0, 3, 1, 2)


def augment_images(
    augment: Augmentation | None, images: Tensor, labels: np.ndarray, *, seed: int, positions: np.ndarray
) -> Tensor:
    """Augment images uint8 [K, C, H, W] by the stage's augmentation, which must not mix images."""
    if augment is None:
        return images
    return augment(images, to_device(labels, images.device), seed=seed, positions=positions)[0]
