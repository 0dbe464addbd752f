"""Mining: rank the images of a pool for each rare class, for labelling; a stopped run can be resumed.

The application of background splitting (Mullapudi et al., CVPR 2021): a classifier of rare classes against
everything else ranks a large pool of unlabelled images, and a person looks at the top of each ranking.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltr.apply.model import Model
from ltr.apply.pool import table_column
from ltr.apply.reading import Broken, PoolBatch, ReadPool, batches
from ltr.data.images.real_paths import find_named_images
from ltr.data.images.tally import Tally
from ltr.data.source import PLAIN, ImageFiles
from ltr.errors import ConfigError, DataError, TrainingError, nearest
from ltr.escaping import csv_text
from ltr.evaluation.groups import GROUPS, shot_groups
from ltr.evaluation.scores import log_normaliser, probabilities
from ltr.files import written_atomically
from ltr.names import canonical, list_first

STATE = ".mining.npz"  # state in the output folder
NOBODY = -1


@dataclass(frozen=True)
class Ranking:
    """Top images of a pool for each of K classes, best first; ties in order of the pool.

    Attributes:
        classes: int64 [K], labels.
        images: int64 [K, top], indices in the pool; -1 if there are fewer images.
        probability: float32 [K, top] of the class; -1 there.
        predicted: int64 [K, top], the class that the network predicts.
        confidence: float32 [K, top], its probability.
    """

    classes: np.ndarray
    images: np.ndarray
    probability: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @classmethod
    def empty(cls, classes: np.ndarray, top: int) -> Ranking:
        shape = (len(classes), top)
        none = np.full(shape, NOBODY, dtype=np.int64)
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
        # ties: the earlier image stays
        enters = probability > self.probability[:, -1]
        for row in np.flatnonzero(enters.any(axis=0)).tolist():
            chosen = np.flatnonzero(enters[:, row])
            scores = np.concatenate([self.probability[row], probability[chosen, row]])
            order = np.argsort(-scores, kind="stable")[: self.images.shape[1]]
            self.probability[row] = scores[order]
            for kept, added in (
                (self.images, indices),
                (self.predicted, predicted),
                (self.confidence, confidence),
            ):
                kept[row] = np.concatenate([kept[row], added[chosen]])[order]


@dataclass(frozen=True)
class Mined:
    """The ranking of a whole pool, and the images that could not be read."""

    ranking: Ranking
    broken: tuple[Broken, ...]
    looked_at: int  # images of the pool, without the excluded ones; unreadable ones are among them
    resumed_at: int  # number of images that an earlier, unfinished run had ranked
    remarks: tuple[str, ...] = ()  # remarks on the images that this run ranked

    @property
    def ranked(self) -> int:
        """Number of images that could be read and ranked."""
        return self.looked_at - len(self.broken)


def rare_classes(model: Model, names: Sequence[str], group: str, few_below: int | None = None) -> np.ndarray:
    """Return the labels to mine for: those named, or a shot group; never the background.

    Args:
        group: ``few``, ``medium``, ``many`` or ``all``.
        few_below: bound of few-shot classes, instead of the run's.

    Raises:
        ConfigError: a name is unknown to the network, or the group has no class.
    """
    names = [canonical(name) for name in names]
    known = {canonical(name): label for label, name in enumerate(model.class_names) if label != model.background}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"--classes: the network does not know {list_first(unknown)}{nearest(unknown[0], known)}; it knows "
            f"{list_first(list(known))}. A name with a comma is quoted, --classes '\"A, B\",C', or --classes "
            "is given once for each name"
        )
    if names:
        return np.array(sorted({known[name] for name in names}), dtype=np.int64)
    labels = np.array(list(known.values()), dtype=np.int64)
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
            "(--classes A,B), take another group, or another bound (--few-below N)"
        )
    return of_group


def without(files: ImageFiles, excluded: Path) -> np.ndarray:
    """Return the indices of the images that a table does not list, int64 [n].

    A path of the table (column ``path``) is relative to the pool's root or to the table's folder, or absolute; links
    and other spellings of a path match the same image.

    Raises:
        DataError: the table cannot be read, or lists no image of the pool.
    """
    if not excluded.is_file():
        raise DataError(f"--exclude {excluded}: there is no such table")
    named = [csv_text(path) for path in table_column(excluded, "path")]  # such as a filled-in candidates.csv
    is_named, _ = find_named_images(files, named, [str(excluded.absolute().parent)])
    keep = ~is_named
    if keep.all():
        raise DataError(
            f"--exclude {excluded}: none of its {len(named):,} paths is an image of the pool, such as "
            f"{files.relative(0)}. Paths are those below {files.root}, or whole ones"
        )
    return np.flatnonzero(keep)


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
    """Rank a pool for each of ``classes``; each chunk is saved, and a stopped run resumes after the last one.

    The result does not depend on interruptions, because chunks consist of whole batches.

    Args:
        folder: output folder with the state.
        top: images kept of each class.
        chunk: images between two saves, rounded up to whole batches.
        places: int64 [n], indices of the images to rank; None: all.
        identity: digest of the weights, in hex; a state of other weights, images or classes cannot be resumed.
        again: discard an earlier state.
        read: reads chunks, such as `ltr.apply.pool_features.PoolFeatures.batches`; None reads the images.
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
        _look(model, chunk_batches, ranking, broken, advance)
        done += len(part)
        _save(path, key, ranking, broken, done)
    if len(broken) == len(indices):
        raise DataError(f"not one of the {len(indices):,} images can be read; the first: {broken[0].reason}")
    return Mined(ranking, tuple(broken), len(indices), resumed_at, tuple(tally.lines()))


def _look(
    model: Model,
    chunk_batches: Iterable[PoolBatch],
    ranking: Ranking,
    broken: list[Broken],
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
        if not np.isfinite(confidence_host).all():
            raise TrainingError("the network's scores are not finite: its weights have diverged or are damaged")
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
    """Return the identity of a state: the weights, the images' paths, the classes, and how images are read.

    Scores of stored features are equal to those of images up to rounding, so that states of both are not mixed.
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


def _loaded(path: Path, key: str, classes: np.ndarray, top: int) -> tuple[Ranking, list[Broken], int]:
    if not path.is_file():
        return Ranking.empty(classes, top), [], 0
    try:
        with np.load(path, allow_pickle=False) as state:
            kept = {name: state[name] for name in state.files}
        same = str(kept["key"]) == key
        broken = [Broken(*row) for row in json.loads(str(kept["broken"]))]
        names = ("images", "probability", "predicted", "confidence")
        ranking = Ranking(classes, *(kept[name] for name in names)) if same else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is damaged ({error}). --again starts over") from error
    if ranking is None:
        raise ConfigError(
            f"{path.parent} holds the mining of other images, weights, classes or settings. Take another --out, or "
            "--again to start over there"
        )
    return ranking, broken, int(kept["done"])


def _save(path: Path, key: str, ranking: Ranking, broken: Sequence[Broken], done: int) -> None:
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
