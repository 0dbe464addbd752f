"""Loader of stored features: batches whose ``images`` are features, in the order of the same samplers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.data.batch import Batch, to_device
from ltr.data.loaders.device import EpochLoader
from ltr.data.loaders.feature_table import FeatureTable
from ltr.randomness import derive_seed, uniforms


@dataclass(frozen=True)
class StoredFeatures:
    """Stored features of a run.

    Attributes:
        plain: features of the images without augmentation.
        views: features of the augmented training images, one table per view; () if training uses the plain features.
    """

    plain: FeatureTable
    views: Sequence[FeatureTable] = ()


class FeatureLoader(EpochLoader):
    """Loader of stored features, with the interface of `ltr.data.loaders.device.DeviceLoader`.

    ``batch.images`` is float32 [B, D], or [B, N, D] of maps [B, D, H, W] with N = H W and of tokens:
    `ltr.methods.core.network.ImageClassifier.features` passes it on.

    Args:
        tables: the views; (seed of the epoch, position) determines the view of each image of a batch.
        device: device of the batches.
        labels, options: see `EpochLoader`.
    """

    def __init__(self, tables: Sequence[FeatureTable], labels: Tensor, *, device: torch.device, **options: Any) -> None:
        super().__init__(labels, **options)
        self.tables = tables
        self.device = device

    def __iter__(self) -> Iterator[Batch]:
        epoch, first, indices, positions = self._begin()
        seed = derive_seed(self.seed_of_epoch(epoch), "views")
        on_device = to_device(indices.copy(), self.device)  # torch warns of the read-only arrays of a split
        for number in range(first, len(self)):
            part = self.rows(number)
            features = to_device(self._take(indices[part], positions[part], seed), self.device)
            if features.ndim == 4:
                features = features.flatten(2).transpose(1, 2)
            chosen = on_device[part]
            self._next_batch = number + 1
            yield Batch(features, self.labels.index_select(0, chosen), chosen)

    def _take(self, indices: np.ndarray, positions: np.ndarray, seed: int) -> np.ndarray:
        if len(self.tables) == 1:
            return self.tables[0].take(indices)
        views = (uniforms(seed, positions, 1)[:, 0] * len(self.tables)).astype(np.int64)
        features = np.empty((len(indices), *self.tables[0].shape), dtype=np.float32)
        for view, table in enumerate(self.tables):
            chosen = views == view
            features[chosen] = table.take(indices[chosen])
        return features
