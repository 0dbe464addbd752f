"""Base classes of protocols: a general one, and one for metrics that follow from a few numbers per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ltr.configuration.unwritten import left_to_subclasses
from ltr.evaluation.metrics import Metric
from ltr.evaluation.rows import Rows
from ltr.evaluation.scores import Scores


@dataclass(frozen=True, eq=False)
class Measurements:
    """Result of a protocol.

    Attributes:
        metrics: metrics by name; NaN if there is nothing to average.
        per_class: arrays [C] for ``per_class.parquet``, including ``class_id``, ``train_count``, ``group``, ``n`` and
            ``accuracy``; empty without per-class metrics.
        predictions: arrays [N], one row per image, for ``predictions.parquet``.
        curves: arrays for figures.
    """

    metrics: dict[str, float]
    per_class: dict[str, np.ndarray] = field(default_factory=dict)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    curves: dict[str, np.ndarray] = field(default_factory=dict)


class Protocol:
    """Base class of protocols: `update` with every batch, `reduce` over processes, `compute`.

    A config names a protocol by its ``_target_``. The constructor may declare any of these arguments and gets their
    values: ``class_counts`` (int64 [C], training images), ``class_names``, ``link`` (``softmax`` or ``sigmoid``),
    ``device``, ``keep_predictions``, ``scorer`` (one object for each scorer), and the keys of ``evaluation``, such as
    ``many_above``. The keys of the protocol's config override them.

    Attributes:
        name: name in rows of results.
        headline: metric that selects weights and that a sweep maximises, if the protocol is the split's first.
        needs: parts of `Scores` that it reads.
        parts: further parts of the split that it evaluates, such as ``unknown``.
        metrics: declarations of its metrics for tables; a metric without one is shown under its name, without
            conversion.
        own_scorers: names of the scorers of this protocol, instead of ``evaluation.scorers``.
        scorer: name of the scorer in rows of results.
        reads_images: True to get the images of each batch before their scores; for protocols of one network.
    """

    name: ClassVar[str]
    headline: ClassVar[str]
    needs: tuple[str, ...] = ("logits",)
    parts: tuple[str, ...] = ()
    metrics: ClassVar[tuple[Metric, ...]] = ()
    own_scorers: ClassVar[tuple[str, ...]] = ()
    scorer: str | None = None
    reads_images: bool = False

    def check_labels(self, labels: np.ndarray) -> None:
        """Raise LtrError if images with these labels cannot be evaluated; called before any training.

        Args:
            labels: int64 [N], the labels of the images that `update` will get, without those of ``parts``.
        """

    def update_images(self, images: Tensor, indices: Tensor | None) -> None:
        """Receive the images of a batch, uint8 [B, C, H, W], and their indices into the source, before `update`."""

    @left_to_subclasses()
    def update(self, scores: Scores, labels: Tensor, indices: Tensor | None = None) -> None:
        """Add one batch.

        Args:
            scores: scores of the images.
            labels: integers [B]; -1 for images of unknown classes.
            indices: int64 [B], source indices of the images.
        """
        raise NotImplementedError

    @left_to_subclasses()
    def reduce(self) -> None:
        """Join the images of all processes; all processes must call it. It is a no-op with a single process."""
        raise NotImplementedError

    @left_to_subclasses()
    def compute(self) -> Any:
        """Return the result over all images so far: `Measurements`, or an object with the same attributes."""
        raise NotImplementedError


class PerImageProtocol(Protocol):
    """Base class of protocols that compute their metrics from a few numbers per image.

    A subclass implements `numbers_of` and `metrics_of`; this class joins batches and processes.
    """

    def __init__(self) -> None:
        self._rows = Rows()

    @left_to_subclasses("update")
    def numbers_of(self, scores: Scores, labels: Tensor) -> Mapping[str, Tensor]:
        """Return the numbers to keep for each image of a batch, by name, [B] or [B, K]."""
        raise NotImplementedError

    @left_to_subclasses("compute")
    def metrics_of(self, numbers: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """Return the metrics.

        Args:
            numbers: numbers of all images by name, [N] or [N, K], sorted by source index; {} without images.
        """
        raise NotImplementedError

    @torch.no_grad()
    def update(self, scores: Scores, labels: Tensor, indices: Tensor | None = None) -> None:
        """Keep the numbers of one batch; see `Protocol.update`."""
        self._rows.add(**self.numbers_of(scores, labels), id=indices)

    def reduce(self) -> None:
        """Join the numbers of all processes, including processes without images."""
        self._rows.join()

    def compute(self) -> Measurements:
        """Return the metrics over all images so far."""
        numbers = {name: values.cpu().numpy() for name, values in self._rows.sorted_by_id().items() if name != "id"}
        return Measurements({name: float(value) for name, value in self.metrics_of(numbers).items()})
