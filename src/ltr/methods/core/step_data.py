"""Data of a training step beside its batch: labels and positions on the host, and further training images.

Everything follows by arithmetic from the stage's DataModule, so that no step asks its device for a label.
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
    """Seed the generator that a step on ``device`` draws from, such as for dropout.

    On a CPU this is the default generator alone: `torch.manual_seed` also queues the seeding of GPUs, which takes 70
    times as long.

    Args:
        seed: in [0, 2**63).
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@dataclass(frozen=True, eq=False)
class Step:
    """One step's images over all processes, in the order of the epoch's draw.

    Attributes:
        labels: int64 [B].
        positions: int64 [B], places in the epoch's draw: what random numbers are keyed by.
        rank, world_size: place b belongs to process ``b % world_size`` and is row ``b // world_size`` of its batch.
    """

    labels: np.ndarray
    positions: np.ndarray
    rank: int = 0
    world_size: int = 1

    def own(self, places: np.ndarray) -> np.ndarray:
        """Return whether each of these places of the step is this process's: bool."""
        return places % self.world_size == self.rank

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Return the rows of this process's batch for places that are its own."""
        return places // self.world_size


def step_of(data: Any, epoch: int, number: int, batch: Batch) -> Step:
    """Return the step that ``batch`` is this process's share of.

    Args:
        data: the stage's DataModule; None outside a Trainer, where the batch counts as a whole draw.
        number: of the step in its epoch.
    """
    if data is None:
        labels = batch.labels.cpu().numpy()
        return Step(labels, np.arange(len(labels)))
    places = data.positions_of_step(number)
    draw = data.draw(epoch)[places]
    labels = data.split.label_map[data.source.labels[draw]]
    return Step(labels, np.arange(places.start, places.stop), data.rank, data.world_size)


def of_all_processes(images: Tensor, world_size: int) -> Tensor:
    """Gather the images of all processes in the order of the draw: [b, ...] of each to [b * world_size, ...]."""
    if world_size == 1:
        return images
    flat = images.permute(0, 2, 3, 1).contiguous()
    parts = [torch.empty_like(flat) for _ in range(world_size)]
    distributed.all_gather(parts, flat)
    return torch.stack(parts, 1).flatten(0, 1).permute(0, 3, 1, 2)


def augmented(
    augment: Augmentation | None, images: Tensor, labels: np.ndarray, *, seed: int, positions: np.ndarray
) -> Tensor:
    """Return images uint8 [K, C, H, W] as the stage's augmentation leaves them; its configs that mix images are not for
    this."""
    if augment is None:
        return images
    return augment(images, to_device(labels, images.device), seed=seed, positions=positions)[0]
