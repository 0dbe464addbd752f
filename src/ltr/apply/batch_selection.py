"""Selection of a batch to label: predictions for a pool, saved chunk by chunk, and the input of a strategy."""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltr.apply.acquisition import PoolScores, Selection
from ltr.apply.mine import NO_IMAGE, Ranking, other_state, state_key
from ltr.apply.model import Model
from ltr.apply.reading import PoolBatch, ReadPool, UnreadableImage, batches, check_finite, check_readable
from ltr.configuration.reuse import with_overrides
from ltr.data.images.real_paths import real_paths
from ltr.data.images.tally import Tally
from ltr.data.packed_images.reading import PackedImages, read_source
from ltr.data.source import ImageFiles
from ltr.data.split import load_split_file
from ltr.errors import ConfigError, LtrError, first_line
from ltr.evaluation.scores import log_normaliser, probabilities
from ltr.files import write_text, written_atomically
from ltr.names import canonical

STATE = ".pool"  # folder in the output folder, with a file for each chunk
_ARRAYS = ("places", "probabilities", "features")  # of a chunk


@dataclass(frozen=True)
class PoolPredictions:
    """Predictions for the readable images of a pool.

    Attributes:
        places: int64 [n], indices in the pool.
        probabilities: float32 [n, C].
        features: float32 [n, D]; None if not requested.
        broken: unreadable images.
        resumed_at: number of images that an earlier, unfinished run had predicted.
        remarks: remarks on the images that this run predicted.
    """

    places: np.ndarray
    probabilities: np.ndarray
    features: np.ndarray | None
    broken: tuple[UnreadableImage, ...]
    resumed_at: int
    remarks: tuple[str, ...]


def predict_pool(
    model: Model,
    files: ImageFiles,
    places: np.ndarray,
    folder: Path,
    *,
    with_features: bool,
    chunk: int = 4096,
    identity: str = "",
    again: bool = False,
    read: ReadPool | None = None,
    started: Callable[[int], object] = lambda done: None,
    advance: Callable[[int], object] = lambda number: None,
) -> PoolPredictions:
    """Predict a pool; each chunk is saved, and a stopped run resumes after the last one.

    Args:
        places: int64 [n], indices of the images to predict.
        folder: output folder, which also holds the chunks.
        with_features: also store features.
        chunk, identity, again, read, started, advance: as in `ltr.apply.mine.mine`.

    Raises:
        ConfigError: the folder has chunks of another pool, network or other settings, or the network has no features.
        DataError: no image can be read.
        TrainingError: probabilities are not finite.
    """
    chunk = -(-chunk // model.batch_size) * model.batch_size
    key = state_key(model, files, places, np.array([int(with_features)]), chunk, identity, of_features=read is not None)
    state = folder / STATE
    if again:
        shutil.rmtree(state, ignore_errors=True)
    _begin(state, key)
    parts: list[dict[str, np.ndarray]] = []
    resumed_at, is_announced = 0, False
    tally = Tally(model.decoding)
    for number, start in enumerate(range(0, len(places), chunk)):
        part = places[start : start + chunk]
        path = state / f"{number:06d}.npz"
        if path.is_file():
            parts.append(_loaded(path))
            resumed_at += len(part)
            continue
        if resumed_at and not is_announced:
            started(resumed_at)
            is_announced = True
        chunk_batches = batches(files, model, part, tally) if read is None else read(part, tally)
        parts.append(_predicted(model, chunk_batches, with_features, advance))
        with written_atomically(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **parts[-1])  # type: ignore[arg-type]
    broken = tuple(UnreadableImage(*row) for part in parts for row in json.loads(str(part["broken"])))
    check_readable(broken, len(places))
    readable = [part for part in parts if len(part["places"])]  # the features of an empty part have width 0
    indices, values, features = (np.concatenate([part[name] for part in readable]) for name in _ARRAYS)
    return PoolPredictions(
        indices, values, features if with_features else None, broken, resumed_at, tuple(tally.lines())
    )


def _begin(state: Path, key: str) -> None:
    """Create the folder of chunks, or check that its chunks are of the same pool."""
    path = state / "key.json"
    if not path.is_file():
        write_text(path, json.dumps(key))
        return
    try:
        stored_key = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}). --again starts over") from error
    if stored_key != key:
        raise other_state(state.parent)


def _loaded(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in (*_ARRAYS, "broken")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is damaged ({error}). --again starts over") from error


def _predicted(
    model: Model, chunk_batches: Iterable[PoolBatch], with_features: bool, advance: Callable[[int], object]
) -> dict[str, np.ndarray]:
    """Return the arrays of one chunk."""
    places: list[np.ndarray] = []
    values: list[np.ndarray] = []
    features: list[np.ndarray] = []
    broken: list[UnreadableImage] = []
    with model.predicting():
        for indices, images, unread in chunk_batches:
            broken += unread
            if len(indices):
                scores = model.scores(images)
                normaliser = log_normaliser(scores.logits, model.link)
                places.append(indices)
                values.append(probabilities(scores.logits, normaliser, model.link).float().cpu().numpy())
                if with_features:
                    if scores.features is None:
                        raise ConfigError("the run's network gives no features. Use --strategy margin or entropy")
                    features.append(scores.features.float().cpu().numpy())
            advance(len(indices) + len(unread))
    classes = len(model.class_names)
    probability = np.concatenate(values) if values else np.empty((0, classes), dtype=np.float32)
    check_finite(probability)
    width = features[0].shape[1] if features else 0
    return {
        "places": np.concatenate(places) if places else np.empty(0, dtype=np.int64),
        "probabilities": probability,
        "features": np.concatenate(features) if features else np.empty((len(probability), width), dtype=np.float32),
        "broken": np.array(json.dumps([tuple(row) for row in broken])),
    }


def pool_scores(model: Model, predictions: PoolPredictions, is_candidate: np.ndarray) -> PoolScores:
    """Return the scores of the candidates, and the features of the other images as labelled ones.

    Args:
        is_candidate: bool [n], False for images that are labelled already.
    """
    features = predictions.features
    return PoolScores(
        predictions.probabilities[is_candidate],
        model.background,
        None if features is None else features[is_candidate],
        None if features is None or is_candidate.all() else features[~is_candidate],
    )


def as_ranking(selection: Selection, predictions: PoolPredictions, rows: np.ndarray) -> Ranking:
    """Return a selection as a ranking for each class, for sheets and the table of candidates.

    Images that were not selected for a class are listed under their predicted class.

    Args:
        rows: int64 [candidates], rows of the candidates in the predictions.
    """
    chosen = rows[selection.images]
    values = predictions.probabilities[chosen]
    predicted = values.argmax(axis=1)
    listed_under = np.where(selection.classes >= 0, selection.classes, predicted)
    classes = np.unique(listed_under)
    longest = int(np.bincount(listed_under).max(initial=1))
    ranking = Ranking.empty(classes, longest)
    for row, label in enumerate(classes.tolist()):
        members = np.flatnonzero(listed_under == label)
        count = len(members)
        ranking.images[row, :count] = predictions.places[chosen[members]]
        ranking.probability[row, :count] = values[members, label]
        ranking.predicted[row, :count] = predicted[members]
        ranking.confidence[row, :count] = values[members, predicted[members]]
    assert (ranking.images != NO_IMAGE).sum() == len(chosen)
    return ranking


def class_budgets(model: Model, classes: np.ndarray, top: int, assignments: Sequence[str]) -> dict[int, int]:
    """Return the number of images to select for each class.

    Args:
        top: number for classes without an assignment.
        assignments: texts ``NAME=N``.

    Raises:
        ConfigError: an assignment has another form or another class, or no image is left to select.
    """
    budgets = dict.fromkeys(classes.tolist(), top)
    label_of = {canonical(model.class_names[label]): label for label in budgets}
    for text in assignments:
        name, _, number = text.rpartition("=")
        if canonical(name) not in label_of or not number.isdecimal():
            raise ConfigError(
                f"--class-budget {text}: give NAME=N with a mined class ({', '.join(label_of)}) and a whole number"
            )
        budgets[label_of[canonical(name)]] = int(number)
    if not sum(budgets.values()):
        raise ConfigError("--class-budget: all budgets are 0. Give at least one class 1 or more")
    return budgets


def trained_on(description: Mapping[str, Any], run: Path | None, files: ImageFiles, places: np.ndarray) -> np.ndarray:
    """Return a mask of the images of a pool on which a run was trained, by their real paths.

    It is all False if the training images are unknown (with a warning) or are not files.

    Args:
        places: int64 [n], indices in the pool.
    """
    none = np.zeros(len(places), dtype=bool)
    if run is None or not (run / "split.npz").is_file() or "dataset" not in description:
        return none
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # training printed the warnings about its data
            dataset = with_overrides({"dataset": description["dataset"]}, ())["dataset"]
            source = read_source({**dataset, "image_size": None})
            train = load_split_file(run / "split.npz", source).train
    except LtrError as error:
        reason = first_line(error)
        warnings.warn(f"training images in the pool are not recognised, because {reason}", stacklevel=2)
        return none
    if not isinstance(source.images, ImageFiles) or isinstance(source.images, PackedImages):
        return none
    trained = set(real_paths(source.images, train.tolist()))
    return np.array([path in trained for path in real_paths(files, places.tolist())], dtype=bool)
