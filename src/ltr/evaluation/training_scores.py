"""Scores of a network's training images, to which some scorers are fitted."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ltr.evaluation.rows import Rows
from ltr.evaluation.scores import Scores


class TrainingScores(NamedTuple):
    """Outputs of a network for its training images: logits [N, C], features [N, D] or None, labels int64 [N]."""

    logits: Tensor
    features: Tensor | None
    labels: Tensor


class TrainingScoresTable:
    """Collector of `TrainingScores`, batch by batch and over processes."""

    def __init__(self) -> None:
        self._rows = Rows()

    def update(self, scores: Scores, labels: Tensor, indices: Tensor) -> None:
        """Add one batch; see `ltr.evaluation.protocol.Protocol.update`."""
        values = {"logits": scores.logits.float(), "labels": labels, "id": indices}
        if scores.features is not None:
            values["features"] = scores.features.float()
        self._rows.add(**values)

    def joined(self) -> TrainingScores:
        """Return the scores of all images of all processes on the CPU, sorted by source index."""
        self._rows.join()
        columns = {name: values.cpu() for name, values in self._rows.sorted_by_id().items()}
        return TrainingScores(columns["logits"], columns.get("features"), columns["labels"])
