"""Selection of a batch to label from a pool: predictions, saved chunk by chunk, and a selection strategy."""

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
from ltr.apply.mine import NOBODY, Ranking, state_key
from ltr.apply.model import Model
from ltr.apply.reading import Broken, PoolBatch, ReadPool, batches
from ltr.configuration.reuse import with_overrides
from ltr.data.images.real_paths import real_paths
from ltr.data.images.tally import Tally
from ltr.data.packed_images.reading import PackedImages, read_source
from ltr.data.source import ImageFiles
from ltr.data.split import load_split_file
from ltr.errors import ConfigError, DataError, LtrError, TrainingError
from ltr.evaluation.scores import log_normaliser, probabilities
from ltr.files import written_atomically
from ltr.names import canonical

STATE = ".pool"  # in the output folder: one file for each chunk


@dataclass(frozen=True)
class PoolPredictions:
    """Predictions of the readable images of a pool.

    Attributes:
        places: int64 [n], their indices in the pool.
        probabilities: float32 [n, C].
        features: float32 [n, D]; None if not requested.
        broken: images that could not be read.
        resumed_at: number of images that an earlier, unfinished run had predicted.
        remarks: remarks on the images that this run predicted.
    """

    places: np.ndarray
    probabilities: np.ndarray
    features: np.ndarray | None
    broken: tuple[Broken, ...]
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
        places: int64 [n], the images to predict.
        folder: folder of the chunks.
        with_features: also keep features.
        chunk, identity, again, read, started, advance: as in `ltr.apply.mine.mine`.

    Raises:
        ConfigError: the folder has chunks of another pool, network or settings, or the network has no features.
        DataError: no image can be read.
        TrainingError: probabilities are not finite.
    """
    chunk = -(-chunk // model.batch_size) * model.batch_size
    what = np.array([int(with_features)])
    key = state_key(model, files, places, what, chunk, identity, of_features=read is not None)
    state = folder / STATE
    if again:
        shutil.rmtree(state, ignore_errors=True)
    _begin(state, key)
    parts: list[dict[str, np.ndarray]] = []
    resumed_at = 0
    tally = Tally(model.decoding)
    for number, start in enumerate(range(0, len(places), chunk)):
        part = places[start : start + chunk]
        path = state / f"{number:06d}.npz"
        if path.is_file():
            parts.append(_loaded(path))
            resumed_at += len(part)
            continue
        if resumed_at:
            started(resumed_at)
            started = _ignore
        chunk_batches = batches(files, model, part, tally) if read is None else read(part, tally)
        parts.append(_predicted(model, chunk_batches, with_features, advance))
        with written_atomically(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **parts[-1])  # type: ignore[arg-type]
    broken = tuple(Broken(*row) for part in parts for row in json.loads(str(part["broken"])))
    readable = [part for part in parts if len(part["places"])]  # a part without any has features of width 0
    if not readable:
        raise DataError(f"not one of the {len(places):,} images can be read; the first: {broken[0].reason}")
    joined = {
        name: np.concatenate([part[name] for part in readable]) for name in ("places", "probabilities", "features")
    }
    return PoolPredictions(
        joined["places"],
        joined["probabilities"],
        joined["features"] if with_features else None,
        broken,
        resumed_at,
        tuple(tally.lines()),
    )


def _ignore(done: int) -> None:
    """Do nothing: the start is announced only once."""


def _begin(state: Path, key: str) -> None:
    """Create the folder of chunks, or check that it holds those of the same pool."""
    named = state / "key.json"
    if named.is_file():
        try:
            known = json.loads(named.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{named} is damaged ({error}). --again starts over") from error
        if known != key:
            raise ConfigError(
                f"{state.parent} holds the mining of other images, weights or settings. Take another --out, or --again "
                "to start over there"
            )
        return
    state.mkdir(parents=True, exist_ok=True)
    with written_atomically(named) as temporary:
        temporary.write_text(json.dumps(key), encoding="utf-8")


def _loaded(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in ("places", "probabilities", "features", "broken")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is damaged ({error}). --again starts over") from error


def _predicted(
    model: Model,
    chunk_batches: Iterable[PoolBatch],
    with_features: bool,
    advance: Callable[[int], object],
) -> dict[str, np.ndarray]:
    """Return the arrays of one chunk."""
    places: list[np.ndarray] = []
    values: list[np.ndarray] = []
    features: list[np.ndarray] = []
    broken: list[Broken] = []
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
    if not np.isfinite(probability).all():
        raise TrainingError("the network's scores are not finite: its weights have diverged or are damaged")
    width = features[0].shape[1] if features else 0
    return {
        "places": np.concatenate(places) if places else np.empty(0, dtype=np.int64),
        "probabilities": probability,
        "features": np.concatenate(features) if features else np.empty((len(probability), width), dtype=np.float32),
        "broken": np.array(json.dumps([tuple(row) for row in broken])),
    }


def pool_scores(model: Model, predictions: PoolPredictions, is_candidate: np.ndarray) -> PoolScores:
    """Return the scores of the candidates; all other images count as labelled.

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
    """Return a selection as a ranking per class, for sheets and candidates.

    Images that were not selected for a class are listed under their predicted class.

    Args:
        rows: int64 [candidates], the row of the predictions of each candidate.
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
    assert (ranking.images != NOBODY).sum() == len(chosen)
    return ranking


def class_budgets(model: Model, classes: np.ndarray, top: int, assignments: Sequence[str]) -> dict[int, int]:
    """Return the number of images to select for each class: ``top``, unless ``assignments`` has another one.

    Args:
        assignments: texts ``NAME=N``.

    Raises:
        ConfigError: a text has another form, or names a class that is not mined.
    """
    budgets = dict.fromkeys(classes.tolist(), top)
    label_of = {canonical(model.class_names[label]): label for label in budgets}
    for text in assignments:
        name, _, number = text.rpartition("=")
        if canonical(name) not in label_of or not number.isdecimal():
            raise ConfigError(
                f"--class-budget {text}: NAME=N is needed, with a class that is mined for ({', '.join(label_of)}) and "
                "a whole number"
            )
        budgets[label_of[canonical(name)]] = int(number)
    if not sum(budgets.values()):
        raise ConfigError("--class-budget: no image is left to select. Give one class at least one")
    return budgets


def trained_on(description: Mapping[str, Any], run: Path | None, files: ImageFiles, places: np.ndarray) -> np.ndarray:
    """Return a mask of the images ``places`` of a pool that a run was trained on, by their real paths.

    All False if the training images cannot be determined (with a warning) or are arrays.
    """
    none = np.zeros(len(places), dtype=bool)
    if run is None or not (run / "split.npz").is_file() or "dataset" not in description:
        return none
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # training has printed warnings about its data already
            dataset = with_overrides({"dataset": description["dataset"]}, ())["dataset"]
            source = read_source({**dataset, "image_size": None})
            train = load_split_file(run / "split.npz", source).train
    except LtrError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(f"whether the pool holds training images cannot be found out: {reason}", stacklevel=2)
        return none
    if not isinstance(source.images, ImageFiles) or isinstance(source.images, PackedImages):
        return none
    trained = set(real_paths(source.images, train.tolist()))
    return np.array([path in trained for path in real_paths(files, places.tolist())], dtype=bool)
