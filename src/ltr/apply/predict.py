"""Predictions for image files: a table with class, probability, further classes and knownness of each image."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ltr.apply.camera_trap_formats import Predictions, detection_columns
from ltr.apply.decisions import Decider
from ltr.apply.detections import DetectionPool
from ltr.apply.model import Model
from ltr.apply.reading import UnreadableImage, batches, check_readable
from ltr.apply.tables import Columns, broken_table, open_table, write_broken
from ltr.data.images.tally import Tally
from ltr.data.source import ImageFiles
from ltr.errors import ConfigError, TrainingError, nearest
from ltr.evaluation.scorers import known_scores, scorer_names
from ltr.evaluation.scores import Scores, log_normaliser, probabilities, top_classes

_AHEAD = 2  # batches whose predictions are still on the device while the next ones are computed


class BatchPredictions(NamedTuple):
    """Predictions for a batch, on the host.

    Attributes:
        indices: int64 [B], indices in the pool.
        classes: int64 [B, k], best first.
        probabilities: float32 [B, k].
        knownness: [B], higher means more likely a known class.
        background: float32 [B], probability of the background; None without one.
        every: float32 [B, C], probabilities of all classes; None unless requested.
    """

    indices: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    knownness: np.ndarray
    background: np.ndarray | None = None
    every: np.ndarray | None = None


@dataclass(frozen=True)
class Summary:
    """Outcome of `predict_files`: number of predicted images, unreadable images and their file, seconds, remarks."""

    images: int
    broken: tuple[UnreadableImage, ...]
    seconds: float
    broken_file: Path | None = None
    remarks: tuple[str, ...] = ()


def predict_files(
    model: Model,
    files: ImageFiles,
    out: Path,
    *,
    scorer: str = "msp",
    top: int = 5,
    advance: Callable[[int], object] = lambda number: None,
    pool: DetectionPool | None = None,
    decider: Decider | None = None,
) -> Summary:
    """Write a row for each image of a pool, in its order.

    The columns are ``path, class, probability, known``, ``background`` if there is one, ``decision`` and ``set`` if
    ``decider`` has thresholds for them, then ``class_2, probability_2`` and so on up to ``top``. Unreadable images are
    listed in ``<out's stem>.broken.csv``.

    Args:
        scorer: name of the scorer, see `knownness`; ``msp`` gives the log-odds of the probability.
        top: number of classes per row; all if there are fewer.
        advance: called with the number of images predicted since the last call.
        pool: detections of which ``files`` are the crops; their columns follow the path.
        decider: thresholds chosen on validation images.

    Raises:
        ConfigError: the scorer is unknown, or the network lacks the scores that it needs.
        DataError: no image can be read.
        TrainingError: scores are not finite.
    """
    started = time.perf_counter()
    broken: list[UnreadableImage] = []
    images = 0
    tally = Tally(model.decoding)
    with open_table(out) as writer:
        has_sets = decider is not None and decider.set_thresholds is not None
        for batch in predict_batches(
            model, files, scorer=scorer, top=top, broken=broken, tally=tally, advance=advance, every=has_sets
        ):
            writer.write(_columns(batch, model, files, pool, decider))
            images += len(batch.indices)
        check_readable(broken, len(files))
    listed = broken_table(out)
    broken_file = listed if write_broken(listed, broken) else None
    return Summary(images, tuple(broken), time.perf_counter() - started, broken_file, tuple(tally.lines()))


def predict_batches(
    model: Model,
    files: ImageFiles,
    *,
    scorer: str = "msp",
    top: int = 5,
    broken: list[UnreadableImage],
    tally: Tally | None = None,
    advance: Callable[[int], object] = lambda number: None,
    every: bool = False,
) -> Iterator[BatchPredictions]:
    """Yield the predictions for a pool, batch by batch and in order.

    Args:
        broken: list to which unreadable images are added.
        tally: counter of remarks on the images.
        every: also yield the probabilities of all classes.
    """
    waiting: deque[tuple[np.ndarray, dict[str, Tensor], int]] = deque()
    with model.predicting():
        for indices, images, unread in batches(files, model, tally=tally):
            broken += unread
            arrays = batch_predictions(model, model.scores(images), scorer, top, every) if len(indices) else {}
            waiting.append((indices, arrays, len(indices) + len(unread)))
            if len(waiting) > _AHEAD:
                yield from _fetch(*waiting.popleft(), files, advance)
        while waiting:
            yield from _fetch(*waiting.popleft(), files, advance)


def batch_predictions(model: Model, scores: Scores, scorer: str, top: int, every: bool = False) -> dict[str, Tensor]:
    """Return the predictions for a batch, on the device and without waiting for it."""
    logits = scores.logits
    normaliser = log_normaliser(logits, model.link)
    values, classes = top_classes(logits, min(top, logits.shape[1]))
    arrays = {
        "classes": classes,
        "probabilities": probabilities(values, normaliser, model.link),
        "knownness": knownness(scorer, scores, model.link),
        "finite": normaliser.isfinite(),
    }
    if model.background is not None:
        column = logits[:, model.background, None]
        arrays["background"] = probabilities(column, normaliser, model.link)[:, 0]
    if every:
        arrays["every"] = probabilities(logits, normaliser, model.link)
    return arrays


def check_scorer(scorer: str) -> None:
    """Raise ConfigError for a name that is not a scorer."""
    names = scorer_names()
    if scorer not in names:
        raise ConfigError(f"--scorer {scorer}: allowed are {', '.join(names)}{nearest(scorer, names)}")


def knownness(scorer: str, scores: Scores, link: str) -> Tensor:
    """Return the score of each image, [B], see `ltr.evaluation.scorers.known_scores`.

    Raises:
        ConfigError: an unknown scorer, or ``distance`` of a network that gives none.
    """
    check_scorer(scorer)
    if scorer == "distance" and scores.knownness is None:
        available = ", ".join(name for name in scorer_names() if name != "distance")
        raise ConfigError(f"--scorer distance: this run's method gives no distance. Use {available}")
    return known_scores(scorer, scores, link)


def _fetch(
    indices: np.ndarray, arrays: dict[str, Tensor], done: int, files: ImageFiles, advance: Callable[[int], object]
) -> Iterator[BatchPredictions]:
    """Yield the predictions for a batch on the host; nothing for a batch without readable images."""
    if len(indices):
        host = {name: value.cpu().numpy() for name, value in arrays.items()}
        is_finite = host.pop("finite")
        if not is_finite.all():
            first = files.relative(int(indices[is_finite.argmin()]))
            raise TrainingError(
                f"the network's scores are not finite for {int((~is_finite).sum())} images, the first is {first}: its "
                "weights have diverged or are damaged. Use another checkpoint"
            )
        yield BatchPredictions(indices, **host)
    advance(done)


def predictions_of(
    model: Model,
    files: ImageFiles,
    *,
    classifier: str,
    top: int = 5,
    advance: Callable[[int], object] = lambda number: None,
) -> tuple[Predictions, list[UnreadableImage], list[str]]:
    """Return the predictions for a whole pool, its unreadable images, and remarks on the readable ones.

    Raises:
        DataError: no image can be read.
        TrainingError: scores are not finite.
    """
    k = min(top, len(model.class_names))
    classes = np.full((len(files), k), -1, dtype=np.int32)
    values = np.zeros((len(files), k), dtype=np.float32)
    background = None if model.background is None else np.zeros(len(files), dtype=np.float32)
    broken: list[UnreadableImage] = []
    tally = Tally(model.decoding)
    for batch in predict_batches(model, files, top=k, broken=broken, tally=tally, advance=advance):
        classes[batch.indices] = batch.classes
        values[batch.indices] = batch.probabilities
        if background is not None and batch.background is not None:
            background[batch.indices] = batch.background
    check_readable(broken, len(files))
    reasons = {row.position: row.reason for row in broken}
    predictions = Predictions(classes, values, background, reasons, model.class_names, model.background, classifier)
    return predictions, broken, list(tally.lines())


def _columns(
    batch: BatchPredictions, model: Model, files: ImageFiles, pool: DetectionPool | None, decider: Decider | None
) -> Columns:
    names = model.class_names
    columns: dict[str, Any] = {
        "path": [files.relative(index) for index in batch.indices.tolist()],
        **({} if pool is None else detection_columns(pool, batch.indices)),
        "class": [names[label] for label in batch.classes[:, 0].tolist()],
        "probability": batch.probabilities[:, 0],
        "known": batch.knownness,
    }
    if batch.background is not None:
        columns["background"] = batch.background
    if decider is not None and decider.thresholds is not None:
        columns["decision"] = decider.decisions(batch.classes[:, 0], batch.probabilities[:, 0])
    if decider is not None and batch.every is not None:
        columns["set"] = decider.sets(batch.every)
    for rank in range(1, batch.classes.shape[1]):
        columns[f"class_{rank + 1}"] = [names[label] for label in batch.classes[:, rank].tolist()]
        columns[f"probability_{rank + 1}"] = batch.probabilities[:, rank]
    return columns
