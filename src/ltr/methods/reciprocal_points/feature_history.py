"""Two-dimensional features over training and of the evaluated images, for the figure of the open-set papers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ltr.identity import named
from ltr.losses.gathering import gather_with_gradient
from ltr.methods.core.stage import Computation

WIDTH = 2  # feature width that a figure can show
MAX_IMAGES = 2000  # images per snapshot and per evaluated part
SNAPSHOTS = 4


class FeatureHistory(nn.Module):
    """Buffers of training features, points and radii after some epochs, including the first and the last.

    Buffers are part of checkpoints, so a resumed training keeps them; recording does not synchronise the device.

    Args:
        points: points of the head, [C, M, D].
        images: training images of an epoch; the first `MAX_IMAGES` of a snapshot are kept.
        epochs: number of epochs of the stage.
        batch_size: images per batch over all processes.
    """

    features: Tensor  # float32 [S, K, D]
    labels: Tensor  # int64 [S, K], -1 for rows without an image
    points: Tensor  # float32 [S, C, M, D]
    radius: Tensor  # float32 [S, C], NaN if the method has no radius
    epochs: Tensor  # int64 [S], from 1

    def __init__(self, points: Tensor, images: int, epochs: int, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.snapshot_epochs = sorted({round(step * (epochs - 1) / (SNAPSHOTS - 1)) for step in range(SNAPSHOTS)})
        snapshots, images_kept = len(self.snapshot_epochs), min(images, MAX_IMAGES)
        self.register_buffer("features", torch.zeros(snapshots, images_kept, points.shape[2]))
        self.register_buffer("labels", torch.full((snapshots, images_kept), -1))
        self.register_buffer("points", torch.zeros(snapshots, *points.shape))
        self.register_buffer("radius", torch.full((snapshots, points.shape[0]), float("nan")))
        self.register_buffer("epochs", torch.tensor(self.snapshot_epochs) + 1)

    @torch.no_grad()
    def record(
        self, epoch: int, batch_index: int, features: Tensor, labels: Tensor, points: Tensor, radius: Tensor | None
    ) -> None:
        """Store the features, labels, points and radius of a training step if its epoch is a snapshot.

        The batches of all processes are gathered, so that the checkpoint, which rank 0 writes, holds all images.
        """
        if epoch not in self.snapshot_epochs:
            return
        features, labels = gather_with_gradient(features.detach()), gather_with_gradient(labels)
        snapshot = self.snapshot_epochs.index(epoch)
        start = batch_index * self.batch_size
        rows = min(len(labels), self.features.shape[1] - start)
        if rows > 0:
            self.features[snapshot, start : start + rows] = features[:rows].float()
            self.labels[snapshot, start : start + rows] = labels[:rows]
        self.points[snapshot] = points
        if radius is not None:
            self.radius[snapshot] = radius

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the buffers under the names ``history_features``, ``history_labels``, ..."""
        return {f"history_{name}": buffer.cpu().numpy() for name, buffer in self.named_buffers()}


@named("computation/embedding_of_parts")
def embed(computation: Computation, *, parts: list[str]) -> dict[str, np.ndarray]:
    """Compute the features of the evaluated images for figures, as the stage ``embedding``.

    Args:
        parts: ``test`` and optionally ``unknown``; each gives at most `MAX_IMAGES` images, evenly spaced.

    Returns:
        For each part ``<part>_features`` float32 [n, D] and ``<part>_labels`` int64 [n], -1 for unknown classes.
    """
    network = computation.parents["representation"].load().to(computation.device)
    arrays: dict[str, np.ndarray] = {}
    for part in parts:
        features, labels = [], []
        with torch.inference_mode(), computation.autocast():
            for batch in computation.loader(part):
                features.append(network.features(network.to_unit(batch.images)).float())
                labels.append(batch.labels)
        all_features, all_labels = torch.cat(features).cpu().numpy(), torch.cat(labels).cpu().numpy()
        rows = np.linspace(0, len(all_labels) - 1, min(len(all_labels), MAX_IMAGES)).round().astype(np.int64)
        arrays |= {f"{part}_features": all_features[rows], f"{part}_labels": all_labels[rows]}
    return arrays
