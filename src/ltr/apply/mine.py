"""Mining: rank the images of a pool for each rare class, for labelling; a stopped run can be resumed.

This is the application of background splitting (Mullapudi et al., CVPR 2021): a classifier of rare classes against
everything else ranks a large pool of unlabelled images, and a person labels the top of each ranking.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltr.apply.model import Model
from ltr.apply.pool import table_column
from ltr.apply.reading import PoolBatch, ReadPool, UnreadableImage, batches, check_finite, check_readable
from ltr.data.images.real_paths import find_named_images
from ltr.data.images.tally import Tally
from ltr.data.source import PLAIN, ImageFiles
from ltr.errors import ConfigError, DataError, nearest
from ltr.evaluation.groups import GROUPS, shot_groups
from ltr.evaluation.scores import log_normaliser, probabilities
from ltr.files import written_atomically
from ltr.names import canonical, counted, list_first

STATE = ".mining.npz"  # state in the output folder
NO_IMAGE = -1  # index of an empty entry of a ranking


@dataclass(frozen=True)
class Ranking:
    """Top images of a pool for each of K classes, best first; ties are in order of the pool.

    Attributes:
        classes: int64 [K], labels.
        images: int64 [K, top], indices in the pool; -1 for empty entries, which come last.
        probability: float32 [K, top] of the class; -1 for empty entries.
        predicted: int64 [K, top], the class that the network predicts.
        confidence: float32 [K, top], probability of the predicted class.
    """

    classes: np.ndarray
    images: np.ndarray
    probability: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @classmethod
    def empty(cls, classes: np.ndarray, top: int) -> Ranking:
        shape = (len(classes), top)
        none = np.full(shape, NO_IMAGE, dtype=np.int64)
        low = np.full(shape, -1, dtype=np.float32)
        return cls(classes, none, low, none.copy(), low.copy())

    def add(self, indices: np.ndarray, probability: np.ndarray, predicted: np.ndarray, confidence: np.ndarray) -> None:
        """Add images that come after all earlier ones in the pool.

        Args:
            indices: int64 [n], ascending indices in the pool.
            probability: float32 [n, K] of the ranked classes.
            predicted: int64 [n].
            confidence: float32 [n].
        """
        is_better = probability > self.probability[:, -1]  # in a tie the earlier image stays
        for row in np.flatnonzero(is_better.any(axis=0)).tolist():
            chosen = np.flatnonzero(is_better[:, row])
            scores = np.concatenate([self.probability[row], probability[chosen, row]])
            order = np.argsort(-scores, kind="stable")[: self.images.shape[1]]
            self.probability[row] = scores[order]
            kept_arrays, added_arrays = (self.images, self.predicted, self.confidence), (indices, predicted, confidence)
            for kept, added in zip(kept_arrays, added_arrays):
                kept[row] = np.concatenate([kept[row], added[chosen]])[order]


@dataclass(frozen=True)
class Mined:
    """Result of mining.

    Attributes:
        ranking: the ranking of the pool.
        broken: unreadable images.
        images: number of images without the excluded ones, including unreadable ones.
        resumed_at: number of images that an earlier, unfinished run had ranked.
        remarks: remarks on the images that this run ranked.
    """

    ranking: Ranking
    broken: tuple[UnreadableImage, ...]
    images: int
    resumed_at: int
    remarks: tuple[str, ...] = ()

    @property
    def ranked(self) -> int:
        """Number of images in the ranking."""
        return self.images - len(self.broken)


def rare_classes(model: Model, names: Sequence[str], group: str, few_below: int | None = None) -> np.ndarray:
    """Return the labels to mine for: those of ``names``, or those of a shot group; never the background.

    Args:
        names: class names; empty: the group.
        group: ``few``, ``medium``, ``many`` or ``all``.
        few_below: bound of few-shot classes; None: the run's.

    Raises:
        ConfigError: a name is unknown to the network, or the group has no class.
    """
    names = [canonical(name) for name in names]
    known: dict[str, list[int]] = {}  # checkpoints of earlier versions may have several classes of one name
    for label, name in enumerate(model.class_names):
        if label != model.background:
            known.setdefault(canonical(name), []).append(label)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"--classes: the network does not know {list_first(unknown)}{nearest(unknown[0], known)}; it knows "
            f"{list_first(list(known))}. Quote names with a comma, --classes '\"A, B\",C', or give --classes once for "
            "each name"
        )
    if names:
        return np.array(sorted({label for name in names for label in known[name]}), dtype=np.int64)
    labels = np.array(sorted(label for of_name in known.values() for label in of_name), dtype=np.int64)
    if group == "all":
        return labels
    bound = model.few_below if few_below is None else few_below
    counts = np.asarray(model.class_counts)
    groups = shot_groups(counts[labels], max(model.many_above, bound - 1), bound)
    of_group = labels[groups[group]]
    if not len(of_group):
        sizes = ", ".join(f"{int(groups[name].sum())} {name}" for name in GROUPS)
        raise ConfigError(
            f"--group {group}: the run has no such class ({sizes}; few is below {bound} training images). Name classes "
            "(--classes A,B), or give another group or another bound (--few-below N)"
        )
    return of_group


def without(files: ImageFiles, excluded: Path) -> np.ndarray:
    """Return the indices of the images that a table does not list, int64 [n].

    Paths of the table (column ``path``) are absolute, or relative to the pool's root or to the table's folder; links
    and other spellings of a path match, too.

    A warning counts the paths that name no image of the pool.

    Raises:
        DataError: the table cannot be read, or lists no image of the pool.
    """
    if not excluded.is_file():
        raise DataError(f"--exclude {excluded}: there is no such table. Give a table with a column path")
    paths = table_column(excluded, "path")
    is_listed, unknown = find_named_images(files, paths, [str(excluded.absolute().parent)])
    if not is_listed.any():
        raise DataError(
            f"--exclude {excluded}: none of its {len(paths):,} paths is an image of the pool, such as "
            f"{files.relative(0)}. Give absolute paths, or paths relative to {files.root}"
        )
    if unknown:
        warnings.warn(
            f"--exclude {excluded}: {len(unknown):,} of {counted(len(paths), 'path')} are not in the pool: "
            f"{list_first(unknown, 3)}. Images that the table names by another path stay in the pool",
            stacklevel=2,
        )
    return np.flatnonzero(~is_listed)


def mine(
    model: Model,
    files: ImageFiles,
    classes: np.ndarray,
    folder: Path,
    *,
    top: int = 100,
    chunk: int = 4096,
    places: np.ndarray | None = None,
    identity: str = "",
    again: bool = False,
    read: ReadPool | None = None,
    started: Callable[[int], object] = lambda done: None,
    advance: Callable[[int], object] = lambda number: None,
) -> Mined:
    """Rank a pool for each of some classes; each chunk is saved, and a stopped run resumes after the last one.

    The result does not depend on interruptions, because chunks consist of whole batches.

    Args:
        classes: int64 [K], labels.
        folder: output folder, which also holds the state.
        top: number of images to keep for each class.
        chunk: number of images between two saves, rounded up to whole batches.
        places: int64 [n], indices of the images to rank; None: all.
        identity: digest of the weights, in hex; a state of other weights, images or classes cannot be resumed.
        again: discard an earlier state.
        read: function that reads chunks, such as `ltr.apply.pool_features.PoolFeatures.batches`; None: the image files.
        started: called with the number of images that were ranked before.
        advance: called with the number of newly ranked images.

    Raises:
        ConfigError: the folder has the state of another pool, network or other settings.
        DataError: no image can be read.
        TrainingError: scores are not finite.
    """
    indices = np.arange(len(files)) if places is None else places
    chunk = -(-chunk // model.batch_size) * model.batch_size
    key = state_key(model, files, indices, classes, top, identity, of_features=read is not None)
    path = folder / STATE
    if again:
        path.unlink(missing_ok=True)
    ranking, broken, done = _loaded(path, key, classes, top)
    resumed_at = done
    started(done)
    tally = Tally(model.decoding)
    while done < len(indices):
        part = indices[done : done + chunk]
        chunk_batches = batches(files, model, part, tally) if read is None else read(part, tally)
        _rank(model, chunk_batches, ranking, broken, advance)
        done += len(part)
        _save(path, key, ranking, broken, done)
    check_readable(broken, len(indices))
    return Mined(ranking, tuple(broken), len(indices), resumed_at, tuple(tally.lines()))


def _rank(
    model: Model,
    chunk_batches: Iterable[PoolBatch],
    ranking: Ranking,
    broken: list[UnreadableImage],
    advance: Callable[[int], object],
) -> None:
    """Predict one chunk and add it to the ranking."""
    import torch

    chosen = torch.as_tensor(ranking.classes, device=model.device)
    batches_of_scores: list[tuple[np.ndarray, torch.Tensor, torch.Tensor, torch.Tensor]] = []
    with model.predicting():
        for indices, images, unread in chunk_batches:
            broken += unread
            if len(indices):
                logits = model.scores(images).logits
                normaliser = log_normaliser(logits, model.link)
                best, predicted = logits.max(dim=1)
                confidence = probabilities(best[:, None], normaliser, model.link)[:, 0]
                rare = probabilities(logits.index_select(1, chosen), normaliser, model.link)
                batches_of_scores.append((indices, rare, predicted, confidence))
            advance(len(indices) + len(unread))
    for indices, *values in batches_of_scores:
        rare_host, predicted_host, confidence_host = (value.cpu().numpy() for value in values)
        check_finite(confidence_host)
        ranking.add(indices, rare_host, predicted_host, confidence_host)


def state_key(
    model: Model,
    files: ImageFiles,
    indices: np.ndarray,
    classes: np.ndarray,
    top: int,
    identity: str,
    *,
    of_features: bool = False,
) -> str:
    """Return the identity of a state: weights, paths of the images, classes, and how images are read.

    States of images and of stored features are not mixed, because their scores are equal only up to rounding.
    """
    crop = model.crop
    decoding = model.decoding
    plain = [identity, top, files.decoding.exif, crop.size, crop.resize, model.precision, model.batch_size, files.root]
    plain += [decoding.matte, decoding.white_level] if decoding != PLAIN else []
    plain += ["features"] if of_features else []
    digest = hashlib.sha256(json.dumps(plain).encode())
    for part in (files.blob, files.offsets.tobytes(), indices.tobytes(), classes.tobytes()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _loaded(path: Path, key: str, classes: np.ndarray, top: int) -> tuple[Ranking, list[UnreadableImage], int]:
    if not path.is_file():
        return Ranking.empty(classes, top), [], 0
    try:
        with np.load(path, allow_pickle=False) as file:
            state = {name: file[name] for name in file.files}
        broken = [UnreadableImage(*row) for row in json.loads(str(state["broken"]))]
        arrays = [state[name] for name in ("images", "probability", "predicted", "confidence")]
        is_same, done = str(state["key"]) == key, int(state["done"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is damaged ({error}). --again starts over") from error
    if not is_same:
        raise other_state(path.parent)
    return Ranking(classes, *arrays), broken, done


def other_state(folder: Path) -> ConfigError:
    """Return the error for an output folder with the state of another mining."""
    return ConfigError(
        f"--out {folder}: the folder has results for other images, weights, classes or settings. Give another folder, "
        "or start over in this one: --again"
    )


def _save(path: Path, key: str, ranking: Ranking, broken: Sequence[UnreadableImage], done: int) -> None:
    arrays = {
        "key": np.array(key),
        "done": np.array(done),
        "broken": np.array(json.dumps([tuple(row) for row in broken])),
        "images": ranking.images,
        "probability": ranking.probability,
        "predicted": ranking.predicted,
        "confidence": ranking.confidence,
    }
    with written_atomically(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
