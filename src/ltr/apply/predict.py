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
from ltr.apply.reading import Broken, batches
from ltr.apply.tables import Columns, table, write_broken
from ltr.data.images.tally import Tally
from ltr.data.source import ImageFiles
from ltr.errors import ConfigError, DataError, TrainingError, nearest
from ltr.evaluation.scorers import known_scores, scorer_names
from ltr.evaluation.scores import Scores, log_normaliser, probabilities, top_classes

_AHEAD = 2  # batches whose predictions are still on the device while the next ones are computed


class Answers(NamedTuple):
    """Predictions for a batch, on the host.

    Attributes:
        indices: int64 [B], indices in the pool.
        classes: int64 [B, k], best first.
        probabilities: float32 [B, k].
        knownness: [B], higher is more known.
        background: float32 [B], or None without a background class.
        every: float32 [B, C], probabilities of all classes; None unless requested.
    """

    indices: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    knownness: np.ndarray
    background: np.ndarray | None
    every: np.ndarray | None = None


@dataclass(frozen=True)
class Summary:
    """Counts of a prediction: images answered, images that could not be read, seconds, remarks."""

    images: int
    broken: tuple[Broken, ...]
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

    Columns: ``path, class, probability, known``, ``background`` where the network knows one, ``decision`` and ``set``
    where ``decider`` has thresholds of them, then ``class_2, probability_2`` and so on to ``top``.
    Images that cannot be read are listed in ``<out's stem>.broken.csv``.

    Args:
        scorer: scorer of the knownness, see `knownness`; msp is the log-odds of the probability, in the same order.
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
    broken: list[Broken] = []
    images = 0
    tally = Tally(model.decoding)
    with table(out) as writer:
        has_sets = decider is not None and decider.set_thresholds is not None
        for answers in answered(
            model, files, scorer=scorer, top=top, broken=broken, tally=tally, advance=advance, every=has_sets
        ):
            writer.write(_columns(answers, model, files, pool, decider))
            images += len(answers.indices)
        if not images:
            raise DataError(
                f"not one of the {len(files):,} images can be read; the first: {broken[0].path}: {broken[0].reason}"
            )
    listed = out.with_name(f"{out.stem}.broken.csv")
    has_broken = write_broken(listed, broken)
    return Summary(
        images, tuple(broken), time.perf_counter() - started, listed if has_broken else None, tuple(tally.lines())
    )


def answered(
    model: Model,
    files: ImageFiles,
    *,
    scorer: str = "msp",
    top: int = 5,
    broken: list[Broken],
    tally: Tally | None = None,
    advance: Callable[[int], object] = lambda number: None,
    every: bool = False,
) -> Iterator[Answers]:
    """Yield the answers of a pool, a batch at a time and in order.

    Args:
        broken: list to which unreadable images are added.
        tally: counts peculiarities of the images.
        every: True also returns the probabilities of all classes.
    """
    waiting: deque[tuple[np.ndarray, dict[str, Tensor], int]] = deque()
    with model.predicting():
        for indices, images, unread in batches(files, model, tally=tally):
            broken += unread
            answers = answers_of(model, model.scores(images), scorer, top, every) if len(indices) else {}
            waiting.append((indices, answers, len(indices) + len(unread)))
            if len(waiting) > _AHEAD:
                yield from _fetched(*waiting.popleft(), files, advance)
        while waiting:
            yield from _fetched(*waiting.popleft(), files, advance)


def answers_of(model: Model, scores: Scores, scorer: str, top: int, every: bool = False) -> dict[str, Tensor]:
    """Return the predictions for a batch on the device, without synchronising with it."""
    logits = scores.logits
    normaliser = log_normaliser(logits, model.link)
    values, classes = top_classes(logits, min(top, logits.shape[1]))
    answers = {
        "classes": classes,
        "probabilities": probabilities(values, normaliser, model.link),
        "knownness": knownness(scorer, scores, model.link),
        "finite": normaliser.isfinite(),
    }
    if model.background is not None:
        column = logits[:, model.background, None]
        answers["background"] = probabilities(column, normaliser, model.link)[:, 0]
    if every:
        answers["every"] = probabilities(logits, normaliser, model.link)
    return answers


def check_scorer(scorer: str) -> None:
    """Raise ConfigError for a name that is not a scorer."""
    names = scorer_names()
    if scorer not in names:
        raise ConfigError(f"--scorer {scorer}: allowed are {', '.join(names)}{nearest(scorer, names)}")


def knownness(scorer: str, scores: Scores, link: str) -> Tensor:
    """Return the score of each image, [B]; higher is more known; see `ltr.evaluation.scorers.known_scores`.

    Raises:
        ConfigError: an unknown name, or ``distance`` of a network without one.
    """
    check_scorer(scorer)
    if scorer == "distance" and scores.knownness is None:
        available = ", ".join(name for name in scorer_names() if name != "distance")
        raise ConfigError(f"--scorer distance: this run's method gives no distance. Use {available}")
    return known_scores(scorer, scores, link)


def _fetched(
    indices: np.ndarray, answers: dict[str, Tensor], done: int, files: ImageFiles, advance: Callable[[int], object]
) -> Iterator[Answers]:
    if len(indices):
        host = {name: value.cpu().numpy() for name, value in answers.items()}
        if not host["finite"].all():
            first = files.relative(int(indices[int(np.argmin(host["finite"]))]))
            raise TrainingError(
                f"the network's scores are not finite for {int((~host['finite']).sum())} images, the first is {first}: "
                "its weights have diverged or are damaged"
            )
        yield Answers(
            indices,
            host["classes"],
            host["probabilities"],
            host["knownness"],
            host.get("background"),
            host.get("every"),
        )
    advance(done)


def predictions_of(
    model: Model,
    files: ImageFiles,
    *,
    classifier: str,
    top: int = 5,
    advance: Callable[[int], object] = lambda number: None,
) -> tuple[Predictions, list[Broken], list[str]]:
    """Return the predictions of a whole pool, its unreadable images, and remarks on the readable ones.

    Raises:
        DataError: not one image can be read.
        TrainingError: scores that are not finite.
    """
    k = min(top, len(model.class_names))
    classes = np.full((len(files), k), -1, dtype=np.int32)
    values = np.zeros((len(files), k), dtype=np.float32)
    background = None if model.background is None else np.zeros(len(files), dtype=np.float32)
    broken: list[Broken] = []
    tally = Tally(model.decoding)
    for answers in answered(model, files, top=k, broken=broken, tally=tally, advance=advance):
        classes[answers.indices] = answers.classes
        values[answers.indices] = answers.probabilities
        if background is not None and answers.background is not None:
            background[answers.indices] = answers.background
    if len(broken) == len(files):
        raise DataError(
            f"not one of the {len(files):,} images can be read; the first: {broken[0].path}: {broken[0].reason}"
        )
    reasons = {row.position: row.reason for row in broken}
    predictions = Predictions(classes, values, background, reasons, model.class_names, model.background, classifier)
    return predictions, broken, list(tally.lines())


def _columns(
    answers: Answers, model: Model, files: ImageFiles, pool: DetectionPool | None, decider: Decider | None
) -> Columns:
    names = model.class_names
    columns: dict[str, Any] = {
        "path": [files.relative(index) for index in answers.indices.tolist()],
        **({} if pool is None else detection_columns(pool, answers.indices)),
        "class": [names[label] for label in answers.classes[:, 0].tolist()],
        "probability": answers.probabilities[:, 0],
        "known": answers.knownness,
    }
    if answers.background is not None:
        columns["background"] = answers.background
    if decider is not None and decider.thresholds is not None:
        columns["decision"] = decider.decisions(answers.classes[:, 0], answers.probabilities[:, 0])
    if decider is not None and answers.every is not None:
        columns["set"] = decider.sets(answers.every)
    for rank in range(1, answers.classes.shape[1]):
        columns[f"class_{rank + 1}"] = [names[label] for label in answers.classes[:, rank].tolist()]
        columns[f"probability_{rank + 1}"] = answers.probabilities[:, rank]
    return columns
