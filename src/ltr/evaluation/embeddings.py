"""Table of the features of all evaluated images, over batches and processes, for retrieval and few-shot protocols."""

from __future__ import annotations

import torch
from torch import Tensor

from ltr.evaluation.gather import gather_uneven_rows, several_processes
from ltr.evaluation.protocol import Protocol
from ltr.evaluation.scores import Scores, class_labels, needed


class Embeddings:
    """Table of features, labels and ids.

    Args:
        device: device of the table and of the scores.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self._seen = 0
        self._reduced = False

    @torch.no_grad()
    def update(self, scores: Scores, labels: Tensor, indices: Tensor | None = None) -> None:
        """Add one batch.

        Args:
            scores: scores with features [B, D].
            labels: integers [B].
            indices: int64 [B], source indices of the images; None numbers images in order of arrival.

        Raises:
            ValueError: the scores have no features, or the numbers of labels and rows differ.
            DataError: the labels are not integers.
        """
        features, labels = needed(scores.features, "features"), class_labels(labels)
        if features.ndim != 2 or len(features) != len(labels):
            raise ValueError(f"Features of shape {tuple(features.shape)} for {len(labels)} labels.")
        if indices is None:
            indices = torch.arange(self._seen, self._seen + len(labels), device=self.device)
        # a copy, because a loader may reuse its memory
        self._rows.append((features.float().clone(), labels.clone(), indices.clone()))
        self._seen += len(labels)

    def merge(self, other: Embeddings) -> None:
        """Add the rows of another table."""
        self._rows += other._rows
        self._seen += other._seen

    def reduce(self) -> None:
        """Join the rows of all processes; all processes must call it, and all hold the whole afterwards."""
        if self._reduced or not several_processes():
            return
        self._rows = [tuple(gather_uneven_rows(column) for column in self._columns())]  # type: ignore[list-item]
        self._reduced = True

    def all(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return features float32 [N, D], labels int64 [N] and ids int64 [N], sorted by id.

        Raises:
            RuntimeError: there are several processes and `reduce` has not been called.
        """
        if several_processes() and not self._reduced:
            raise RuntimeError("Several processes evaluate: call reduce() in each of them first.")
        features, labels, ids = self._columns()
        order = torch.argsort(ids, stable=True)
        return features[order], labels[order], ids[order]

    def _columns(self) -> tuple[Tensor, Tensor, Tensor]:
        if not self._rows:
            empty = torch.empty(0, dtype=torch.int64, device=self.device)
            return torch.empty(0, 0, device=self.device), empty, empty
        features, labels, ids = (torch.cat(column) for column in zip(*self._rows))
        return features, labels, ids


class EmbeddingProtocol(Protocol):
    """Base class of protocols that compute their metrics from the features of all images at once.

    Args:
        device: device of the features and of the scores.
    """

    needs = ("features",)

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.embeddings = Embeddings(device)

    def update(self, scores: Scores, labels: Tensor, indices: Tensor | None = None) -> None:
        """Keep the features of one batch; see `Embeddings.update`."""
        self.embeddings.update(scores, labels, indices)

    def merge(self, other: EmbeddingProtocol) -> None:
        """Add the images of another object."""
        self.embeddings.merge(other.embeddings)

    def reduce(self) -> None:
        """Join the images of all processes."""
        self.embeddings.reduce()
