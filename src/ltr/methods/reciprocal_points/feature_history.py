"""Features of width two, kept for the picture of the open-set papers: over training, and of the evaluated images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ltr.methods.core.stage import Computation

WIDTH = 2  # of features that a picture can show
SHOWN = 2000  # images of a snapshot, and of each evaluated part
SNAPSHOTS = 4


class FeatureHistory(nn.Module):
    """Training features, points and radii in some epochs, the first and the last among them.

    All of it is in buffers, so that a training that is resumed has it too; nothing waits for the device.

    Args:
        points: [C, M, D], as in the head.
        images: training images of an epoch; the first `SHOWN` of a snapshot are kept.
        epochs: of the stage.
        batch_size: of this process.
    """

    features: Tensor  # float32 [S, K, D]
    labels: Tensor  # int64 [S, K], -1 where there is none
    points: Tensor  # float32 [S, C, M, D]
    radius: Tensor  # float32 [S, C], NaN where the method has none
    epochs: Tensor  # int64 [S], from 1

    def __init__(self, points: Tensor, images: int, epochs: int, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.when = sorted({round(step * (epochs - 1) / (SNAPSHOTS - 1)) for step in range(SNAPSHOTS)})
        snapshots, kept = len(self.when), min(images, SHOWN)
        self.register_buffer("features", torch.zeros(snapshots, kept, points.shape[2]))
        self.register_buffer("labels", torch.full((snapshots, kept), -1))
        self.register_buffer("points", torch.zeros(snapshots, *points.shape))
        self.register_buffer("radius", torch.full((snapshots, points.shape[0]), float("nan")))
        self.register_buffer("epochs", torch.tensor(self.when) + 1)

    @torch.no_grad()
    def record(
        self, epoch: int, batch_index: int, features: Tensor, labels: Tensor, points: Tensor, radius: Tensor | None
    ) -> None:
        """Keep what a training step saw, where its epoch is one of the snapshots."""
        if epoch not in self.when:
            return
        snapshot = self.when.index(epoch)
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


def embed(computation: Computation, *, parts: list[str]) -> dict[str, np.ndarray]:
    """Compute the features of the evaluated images for figures; the work of the stage ``embedding``.

    Args:
        parts: of the split, ``test`` and perhaps ``unknown``; of each at most `SHOWN` images, evenly spaced.

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
        together, of_them = torch.cat(features).cpu().numpy(), torch.cat(labels).cpu().numpy()
        shown = np.linspace(0, len(of_them) - 1, min(len(of_them), SHOWN)).round().astype(np.int64)
        arrays |= {f"{part}_features": together[shown], f"{part}_labels": of_them[shown]}
    return arrays
