"""Base classes of protocols, one of them for metrics that follow from a few numbers of each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, distributed

from ltr.evaluation.gather import several_processes
from ltr.evaluation.metrics import Metric
from ltr.evaluation.rows import Rows
from ltr.evaluation.scores import Scores


@dataclass(frozen=True, eq=False)
class Measurements:
    """The result of a protocol.

    Attributes:
        metrics: by name; NaN where there is nothing to average.
        per_class: arrays [C] for ``per_class.parquet``, with ``class_id``, ``train_count``, ``group``, ``n`` and
            ``accuracy`` among them; empty where nothing is measured class by class.
        predictions: arrays [N], one row an image, for ``predictions.parquet``.
        curves: arrays that figures are drawn from.
    """

    metrics: dict[str, float]
    per_class: dict[str, np.ndarray] = field(default_factory=dict)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    curves: dict[str, np.ndarray] = field(default_factory=dict)


class Protocol:
    """Base class of protocols: `update` with every batch, `reduce` over processes, `compute`.

    A config names a protocol by its ``_target_``. The constructor gets those of these values that it has an argument
    for: ``class_counts`` (int64 [C], training images), ``class_names``, ``link`` (``softmax`` or ``sigmoid``),
    ``device``, ``keep_predictions``, ``scorer`` (one object for each scorer), and the keys of ``evaluation``, such as
    ``many_above``. The keys of the protocol's config override them.

    Attributes:
        name: of its rows of results.
        headline: the metric that selects and that a sweep maximises, where the protocol is a split's first.
        needs: the parts of `Scores` that it reads.
        parts: further parts of the split whose images it sees, such as ``unknown``.
        metrics: declarations of its metrics, which tables follow; one without is shown under its name, as it is.
        own_scorers: names of scorers of its own kind, in place of those of ``evaluation.scorers``.
        scorer: the name of its scorer, in its rows of results.
        reads_images: it gets the images of each batch, too, before their scores; for protocols of one network.
    """

    name: ClassVar[str]
    headline: ClassVar[str]
    needs: tuple[str, ...] = ("logits",)
    parts: tuple[str, ...] = ()
    metrics: ClassVar[tuple[Metric, ...]] = ()
    own_scorers: ClassVar[tuple[str, ...]] = ()
    scorer: str | None = None
    reads_images: bool = False

    def update_images(self, images: Tensor, indices: Tensor | None) -> None:
        """Receive the images of a batch, uint8 [B, C, H, W], and their places in the source, before `update`."""

    def update(self, scores: Scores, labels: Tensor, indices: Tensor | None = None) -> None:
        """Add one batch.

        Args:
            scores: of the images.
            labels: integers [B]; -1 for images of unknown classes.
            indices: int64 [B], the images' places in the source.
        """
        raise NotImplementedError

    def reduce(self) -> None:
        """Join the images of all processes; each of them calls it. With a single process it is a no-op."""
        raise NotImplementedError

    def compute(self) -> Any:
        """Return the result over all images so far: `Measurements`, or an object with the same attributes."""
        raise NotImplementedError


class PerImageProtocol(Protocol):
    """Base class of protocols that keep a few numbers of each image and compute their metrics from them.

    A subclass implements `numbers_of` and `metrics_of`; this class joins batches and processes.
    """

    def __init__(self) -> None:
        self._rows: Rows | None = None
        self._seen = 0
        self._is_reduced = False

    def numbers_of(self, scores: Scores, labels: Tensor) -> Mapping[str, Tensor]:
        """Return the numbers that are kept of each image of a batch, by name, [B] or [B, K]."""
        raise NotImplementedError

    def metrics_of(self, numbers: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """Return the metrics.

        Args:
            numbers: those of all images, [N] or [N, K], in the images' order; {} where there were none.
        """
        raise NotImplementedError

    @torch.no_grad()
    def update(self, scores: Scores, labels: Tensor, indices: Tensor | None = None) -> None:
        """Keep the numbers of one batch; arguments as of `Protocol.update`."""
        if indices is None:
            indices = torch.arange(self._seen, self._seen + len(labels), device=labels.device)
        numbers = {**self.numbers_of(scores, labels), "_index": indices}
        if self._rows is None:
            columns = {name: (values.dtype, tuple(values.shape[1:])) for name, values in numbers.items()}
            self._rows = Rows(columns, labels.device)
        # a loader may use its memory again
        self._rows.add(**{name: values.clone() for name, values in numbers.items()})
        self._seen += len(labels)

    def reduce(self) -> None:
        """Join the numbers of all processes, also of those that had no image."""
        if self._is_reduced or not several_processes():
            return
        layouts: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(layouts, None if self._rows is None else self._rows.columns)
        layout = next((columns for columns in layouts if columns is not None), None)
        if layout is None:
            return
        if self._rows is None:
            self._rows = Rows(layout, _device_of_the_group())
        self._rows.gather()
        self._is_reduced = True

    def compute(self) -> Measurements:
        """Return the metrics over all images so far."""
        if self._rows is None:
            return Measurements(dict(self.metrics_of({})))
        order = np.argsort(self._rows["_index"], kind="stable")
        numbers = {name: self._rows[name][order] for name in self._rows.columns if name != "_index"}
        return Measurements({name: float(value) for name, value in self.metrics_of(numbers).items()})


def _device_of_the_group() -> torch.device:
    """Return the device whose tensors the processes can exchange."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
