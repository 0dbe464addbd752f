"""Base class of retrieval and few-shot protocols, which need the features of all evaluated images at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ltr.evaluation.protocol import Protocol
from ltr.evaluation.rows import Rows
from ltr.evaluation.scores import Scores, class_labels, require_part


class EmbeddingProtocol(Protocol):
    """Base class of protocols that compute their metrics from a table of features, labels and ids.

    Args:
        device: device of the features and of the scores.
    """

    needs = ("features",)

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._rows = Rows(device=device)
        self._device = torch.device(device)

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
        features, labels = require_part(scores.features, "features"), class_labels(labels)
        if features.ndim != 2 or len(features) != len(labels):
            raise ValueError(f"Features of shape {tuple(features.shape)} for {len(labels)} labels.")
        self._rows.add(features=features.float(), labels=labels, id=indices)

    def reduce(self) -> None:
        """Join the images of all processes; see `ltr.evaluation.rows.Rows.join`."""
        self._rows.join()

    def embeddings(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return features float32 [N, D], labels int64 [N] and ids int64 [N], sorted by id.

        Raises:
            RuntimeError: there are several processes and `reduce` has not been called.
        """
        rows = self._rows.sorted_by_id()
        if not rows:
            none = torch.empty(0, dtype=torch.int64, device=self._device)
            return torch.empty(0, 0, device=self._device), none, none
        return rows["features"], rows["labels"], rows["id"]
