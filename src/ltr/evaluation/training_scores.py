"""Scores of a network's training images, to which some scorers are fitted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ltr.evaluation.gather import several_processes
from ltr.evaluation.rows import Rows
from ltr.evaluation.scores import Scores


class TrainingScores(NamedTuple):
    """Outputs of a network for its training images: logits [N, C], features [N, D] or None, labels int64 [N]."""

    logits: Tensor
    features: Tensor | None
    labels: Tensor


class Collected:
    """Collector of `TrainingScores`, batch by batch and over processes."""

    def __init__(self) -> None:
        self._rows: Rows | None = None

    def update(self, scores: Scores, labels: Tensor, indices: Tensor) -> None:
        """Keep one batch; see `ltr.evaluation.protocol.Protocol.update`."""
        values = {"logits": scores.logits.float(), "labels": labels, "indices": indices}
        if scores.features is not None:
            values["features"] = scores.features.float()
        if self._rows is None:
            columns = {name: (value.dtype, tuple(value.shape[1:])) for name, value in values.items()}
            self._rows = Rows(columns, labels.device)
        self._rows.add(**{name: value.clone() for name, value in values.items()})

    def all(self) -> TrainingScores:
        """Return the scores of all images of all processes on the CPU, sorted by source index."""
        assert self._rows is not None
        if several_processes():
            self._rows.gather()
        order = self._rows["indices"].argsort()
        columns = {name: torch.from_numpy(self._rows[name][order]) for name in self._rows.columns if name != "indices"}
        return TrainingScores(columns["logits"], columns.get("features"), columns["labels"])
