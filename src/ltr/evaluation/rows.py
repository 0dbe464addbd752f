"""Tables of a few numbers per image, kept on the device, for metrics that need all images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from ltr.errors import DataError, TrainingError
from ltr.evaluation.gather import gather_uneven_rows, is_distributed
from ltr.evaluation.scores import Scores, log_normaliser, probabilities, require_part, top_classes

KEPT_CLASSES = 5

Columns = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


class Rows:
    """Table with a row for each image, to which batches are added without synchronising with the device.

    Args:
        columns: dtype and shape of one image's entry, by name; None: those of the first batch.
        device: device of the columns; None: that of the first batch.
    """

    def __init__(self, columns: Columns | None = None, device: torch.device | str | None = None) -> None:
        self.columns = dict(columns or {})
        self._are_columns_declared = columns is not None
        self._device = None if device is None else torch.device(device)
        self._batches: dict[str, list[Tensor]] = {name: [] for name in self.columns}
        self._images = 0
        self._is_joined = False

    @property
    def bytes_per_image(self) -> int:
        """Device memory that one image takes."""
        return sum(dtype.itemsize * int(np.prod(shape, dtype=int)) for dtype, shape in self.columns.values())

    def add(self, **values: Tensor | None) -> None:
        """Add a copy of one batch [B, ...] of every column; other values are ignored.

        A column ``id`` whose value is None numbers the images in order of arrival.

        Raises:
            RuntimeError: the images have been joined over processes.
        """
        if self._is_joined:
            raise RuntimeError("The images are already joined over processes: a new object is needed.")
        some = next(value for value in values.values() if value is not None)
        if values.get("id", some) is None:
            values["id"] = torch.arange(self._images, self._images + len(some), device=some.device)
        if not self.columns:
            self.columns = {name: (value.dtype, tuple(value.shape[1:])) for name, value in values.items()}  # type: ignore[union-attr]
            self._device = self._device or some.device
        for name, (dtype, _) in self.columns.items():
            # a copy, because a loader may reuse its memory
            self._batches.setdefault(name, []).append(values[name].to(dtype, copy=True))  # type: ignore[union-attr]
        self._images += len(some)

    def join(self) -> None:
        """Join the images of all processes; all processes must call it, and all hold the whole afterwards.

        It is a no-op with a single process and when called again.
        """
        if self._is_joined or not is_distributed():
            return
        if not self._are_columns_declared:
            self._exchange_columns()
        for name in self.columns:
            self._batches[name] = [gather_uneven_rows(self.column(name))]
        self._is_joined = True

    def _exchange_columns(self) -> None:
        """Let processes without images know the columns of the others."""
        layouts: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(layouts, self.columns)
        self.columns = next((layout for layout in layouts if layout), {})
        self._device = self._device or _device_of_the_group()

    def check_joined(self) -> None:
        """Raise RuntimeError if there are several processes whose images are not joined."""
        if is_distributed() and not self._is_joined:
            raise RuntimeError("Several processes evaluate: call reduce() in each of them before compute().")

    def column(self, name: str) -> Tensor:
        """Return a column, [N, ...]."""
        if self._batches.get(name):
            return torch.cat(self._batches[name])
        dtype, shape = self.columns[name]
        return torch.zeros((0, *shape), dtype=dtype, device=self._device)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column on the host, [N, ...]."""
        return self.column(name).cpu().numpy()

    def batches(self, name: str) -> list[Tensor]:
        """Return the batches of a column, for columns that are too large to be copied."""
        return self._batches[name] or [self.column(name)]

    def sorted_by_id(self) -> dict[str, Tensor]:
        """Return all columns in the order of the column ``id``; {} without images and declared columns.

        Raises:
            RuntimeError: there are several processes whose images are not joined.
        """
        self.check_joined()
        if not self.columns:
            return {}
        order = torch.argsort(self.column("id"), stable=True)
        return {name: self.column(name)[order] for name in self.columns}


def _device_of_the_group() -> torch.device:
    """Return the device whose tensors the processes can exchange."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


class PerImageTable(Rows):
    """Table of score, label and predicted class of every evaluated image, over all processes after `join`.

    Args:
        score: dtype and shape of an image's score.
        classes: number C of the logits.
        link: ``softmax`` or ``sigmoid``, the function from logits to probabilities.
        keep_predictions: True also keeps an image's source index and its five best classes with their probabilities.
        device: device of the scores.
    """

    def __init__(
        self,
        score: tuple[torch.dtype, tuple[int, ...]],
        classes: int,
        link: str,
        keep_predictions: bool,
        device: torch.device | str,
    ) -> None:
        columns: dict[str, tuple[torch.dtype, tuple[int, ...]]]
        columns = {"score": score, "label": (torch.int32, ()), "prediction": (torch.int32, ())}
        self.best = min(KEPT_CLASSES, classes)
        if keep_predictions:
            columns |= {"id": (torch.int64, ()), "top": (torch.int32, (self.best,))}
            columns |= {"scores": (torch.float32, (self.best,))}
        super().__init__(columns, device)
        self.classes = classes
        self.link = link
        self.keep_predictions = keep_predictions

    def logits_of(self, scores: Scores, labels: Tensor) -> Tensor:
        """Check the logits of a batch and return them as float32 [B, C].

        Raises:
            ValueError: logits of another shape.
        """
        logits = require_part(scores.logits, "logits").float()
        if logits.shape != (len(labels), self.classes):
            raise ValueError(f"Scores of shape {tuple(logits.shape)} for {len(labels)} labels, {self.classes} classes.")
        return logits

    def add_batch(self, score: Tensor, logits: Tensor, labels: Tensor, indices: Tensor | None = None) -> None:
        """Add one batch.

        Args:
            score: [B, ...]; stored as NaN for images with non-finite logits.
            logits: float32 [B, C].
            labels: int64 [B].
            indices: int64 [B], source indices of the images; None numbers images in order of arrival.
        """
        top_values, top = top_classes(logits, self.best)
        normaliser = log_normaliser(logits, self.link)
        # a NaN or +inf among the logits makes the normaliser non-finite
        fine = normaliser.isfinite().view(-1, *[1] * (score.ndim - 1))
        self.add(
            score=torch.where(fine, score, torch.nan),
            label=labels,
            prediction=top[:, 0],
            id=indices,
            top=top,
            scores=probabilities(top_values, normaliser, self.link),
        )

    def integers(self, name: str) -> np.ndarray:
        """Return a column as int64 [N, ...] on the host."""
        return self[name].astype(np.int64)

    def predictions(self, **more: np.ndarray) -> dict[str, np.ndarray]:
        """Return one row per image, sorted by id: ``id label prediction``, ``more``, ``top5 scores``; or {}."""
        if not self.keep_predictions:
            return {}
        order = np.argsort(self["id"], kind="stable")
        predictions = {
            "id": self["id"],
            "label": self.integers("label"),
            "prediction": self.integers("prediction"),
            **more,
            f"top{KEPT_CLASSES}": self.integers("top"),
            "scores": self["scores"],
        }
        return {name: values[order] for name, values in predictions.items()}


def refuse_bad_labels(wrong: int, images: int, allowed: str) -> None:
    """Raise DataError if ``wrong``, the number of images with other labels than ``allowed``, is above 0."""
    if wrong:
        raise DataError(
            f"{wrong} of {images} evaluated images have a label outside {allowed}. Evaluate the split that the model "
            "was trained for."
        )


def refuse_bad_scores(bad: int, images: int) -> None:
    """Raise TrainingError if ``bad``, the number of images with non-finite scores, is above 0."""
    if bad:
        raise TrainingError(
            f"The model gave scores that are not finite (NaN or infinite) for {bad} of {images} images: its "
            "weights have diverged or are damaged. Use an earlier checkpoint, or train with a smaller learning "
            "rate or gradient clipping."
        )
