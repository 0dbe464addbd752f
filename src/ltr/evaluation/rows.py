"""Tables of a few numbers per image, kept on the device, for metrics that need all images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ltr.errors import TrainingError
from ltr.evaluation.gather import gather_uneven_rows, several_processes
from ltr.evaluation.scores import Scores, log_normaliser, needed, probabilities, top_classes

KEPT_CLASSES = 5


class Rows:
    """Table of columns to which batches are added without synchronising with the device.

    Args:
        columns: dtype and shape of one image's entry, by name.
        device: device of the columns.
    """

    def __init__(self, columns: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], device: torch.device) -> None:
        self.columns = dict(columns)
        self.device = device
        self._batches: dict[str, list[Tensor]] = {name: [] for name in self.columns}
        self._joined = False

    @property
    def bytes_per_image(self) -> int:
        return sum(dtype.itemsize * int(np.prod(shape, dtype=int)) for dtype, shape in self.columns.values())

    def add(self, **values: Tensor) -> None:
        """Add one batch [B, ...] of every column; other values are ignored."""
        for name, (dtype, _) in self.columns.items():
            self._batches[name].append(values[name].to(dtype))

    def extend(self, other: Rows) -> None:
        """Add the images of another object with the same columns."""
        for name, batches in other._batches.items():
            self._batches[name].extend(batches)

    def gather(self) -> None:
        """Join the images of all processes; all processes must call it, and all hold the whole afterwards."""
        for name in self.columns:
            self._batches[name] = [gather_uneven_rows(self._concatenated(name))]

    def join(self) -> bool:
        """Gather once and return True; a no-op that returns False with a single process or when called again."""
        if self._joined or not several_processes():
            return False
        self.gather()
        self._joined = True
        return True

    def _concatenated(self, name: str) -> Tensor:
        if self._batches[name]:
            return torch.cat(self._batches[name])
        dtype, shape = self.columns[name]
        return torch.zeros((0, *shape), dtype=dtype, device=self.device)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column on the host, [N, ...]."""
        return self._concatenated(name).cpu().numpy()

    def batches(self, name: str) -> list[Tensor]:
        """Return the batches of a column, for columns that are too large to be copied."""
        return self._batches[name] or [self._concatenated(name)]


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
        device: torch.device,
    ) -> None:
        columns = {"score": score, "label": (torch.int32, ()), "prediction": (torch.int32, ())}
        self.best = min(KEPT_CLASSES, classes)
        if keep_predictions:
            columns |= {"id": (torch.int64, ()), "top": (torch.int32, (self.best,))}
            columns |= {"scores": (torch.float32, (self.best,))}
        super().__init__(columns, device)
        self.classes = classes
        self.link = link
        self.keep_predictions = keep_predictions
        self._seen = 0

    def logits_of(self, scores: Scores, labels: Tensor) -> Tensor:
        """Check the logits of a batch and return them as float32 [B, C].

        Raises:
            RuntimeError: the images have been joined over processes.
            ValueError: logits of another shape.
        """
        if self._joined:
            raise RuntimeError("The images are already joined over processes: call reset() before another update().")
        logits = needed(scores.logits, "logits").float()
        if logits.shape != (len(labels), self.classes):
            raise ValueError(f"Scores of shape {tuple(logits.shape)} for {len(labels)} labels, {self.classes} classes.")
        return logits

    def add_batch(
        self,
        score: Tensor,
        logits: Tensor,
        labels: Tensor,
        indices: Tensor | None = None,
    ) -> None:
        """Add one batch.

        Args:
            score: [B, ...]; stored as NaN for images with non-finite logits.
            logits: float32 [B, C].
            labels: int64 [B].
            indices: int64 [B], source indices of the images; None numbers images in order of arrival.
        """
        if indices is None:
            indices = torch.arange(self._seen, self._seen + len(labels), device=self.device)
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
        self._seen += len(labels)

    def extend(self, other: PerImageTable) -> None:  # type: ignore[override]
        super().extend(other)
        self._seen += other._seen

    def check_joined(self) -> None:
        """Raise RuntimeError if there are several processes whose images are not joined."""
        if several_processes() and not self._joined:
            raise RuntimeError("Several processes evaluate: call reduce() in each of them before compute().")

    def integers(self, name: str) -> np.ndarray:
        """Return a column as int64 [N, ...] on the host."""
        return self[name].astype(np.int64)

    def predictions(self, **more: np.ndarray) -> dict[str, np.ndarray]:
        """Return one row per image, sorted by id: ``id label prediction``, ``more``, ``top5 scores``; or {}."""
        if not self.keep_predictions:
            return {}
        order = np.argsort(self["id"], kind="stable")
        kept = {
            "id": self["id"],
            "label": self.integers("label"),
            "prediction": self.integers("prediction"),
            **more,
            f"top{KEPT_CLASSES}": self.integers("top"),
            "scores": self["scores"],
        }
        return {name: values[order] for name, values in kept.items()}


def refuse_bad_scores(bad: int, images: int) -> None:
    """Raise TrainingError if ``bad``, the number of images with non-finite scores, is above 0."""
    if bad:
        raise TrainingError(
            f"The model gave scores that are not finite (NaN or infinite) for {bad} of {images} images: its "
            "weights have diverged or are damaged. Use an earlier checkpoint, or train with a smaller learning "
            "rate or gradient clipping."
        )
