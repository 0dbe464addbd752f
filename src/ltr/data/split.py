"""The Split: index arrays into a Source with the labels of a run, and the file that it is kept in."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.source import Source, read_only, set_field
from ltr.errors import DataError
from ltr.names import canonical

INDEX_ARRAYS = ("train", "val", "test", "unknown")


@dataclass(frozen=True, eq=False)
class Split:
    """Index arrays into a Source, and the labels that the run uses.

    A network knows the C labels of ``class_names``, 0 .. C-1, and trains and validates on nothing else. Retrieval is
    evaluated on classes that no training image has: such a split gives them the labels C, C+1, ... in ``label_map``, so
    that `labels` tells them apart, while ``class_names`` and ``class_counts`` speak of the C trained ones alone. Every
    other split keeps its label map below C. In a background split label 0 is the background, of many source classes.

    Attributes:
        name: says the rule, such as ``cifar10-exp100-cao``, with ``-val_train_fraction0.1`` where validation is carved.
        train, val, test, unknown: int64 indices into the source (read-only); no index is in two of them.
        label_map: int64 [source classes], the split's label of each source class, -1 where it has none (unknown
            classes, and those left out); C and more only for the test classes of retrieval.
        class_names: of the split's C labels.
        class_counts: int64 [C], train images per label.
        protocols: what the split is evaluated by, the first one is the headline: ``closed_set``,
            ``background``, ``open_set``, ``retrieval`` or ``few_shot``.
        seed: the split's own seed (not the run's).
        val_rule: ``none``, ``train_fraction``, ``official`` or ``test_fraction``.

    Raises:
        DataError: fields that contradict each other. What needs the source to be seen is checked by `check_indices`.
    """

    name: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    unknown: np.ndarray
    label_map: np.ndarray
    class_names: tuple[str, ...]
    class_counts: np.ndarray
    protocols: tuple[str, ...] = ("closed_set",)
    seed: int = 0
    val_rule: str = "none"

    def __post_init__(self) -> None:
        for field in (*INDEX_ARRAYS, "label_map", "class_counts"):
            set_field(self, field, read_only(np.array(getattr(self, field), dtype=np.int64)))
        if not self.protocols:
            raise DataError(f"split '{self.name}': it names no protocol that it is evaluated by")
        if len(self.class_counts) != self.num_classes:
            raise DataError(
                f"split '{self.name}': {len(self.class_counts)} class counts for {self.num_classes} class names"
            )
        _check_label_map(f"split '{self.name}'", self.label_map, self.num_classes, self.protocols)

    @property
    def num_classes(self) -> int:
        """C, the number of the split's labels."""
        return len(self.class_names)

    def labels(self, source: Source) -> np.ndarray:
        """int64 [N]: the split's label of every sample of ``source``, -1 for samples of a class without a label."""
        return self.label_map[source.labels]

    def digest(self) -> str:
        """sha256 (hex) of the index arrays and the label map."""
        digest = hashlib.sha256(b"split-1")
        for field in (*INDEX_ARRAYS, "label_map"):
            array = getattr(self, field)
            digest.update(len(array).to_bytes(8, "little"))
            digest.update(array.data)
        return digest.hexdigest()


def count_labels(source: Source, train: np.ndarray, label_map: np.ndarray, num_classes: int) -> np.ndarray:
    """Train images per label, int64 [C]. ``train`` must hold labelled samples only."""
    return np.bincount(label_map[source.labels[train]], minlength=num_classes)


def save_split(split: Split, path: str | os.PathLike[str]) -> None:
    """Write ``split`` as npz (no pickles in it): its arrays, class names, name, protocols, seed and validation rule.

    The file is written beside ``path`` and renamed, so a reader never meets half of one. The same split gives the
    same bytes.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    arrays: dict[str, Any] = {field: getattr(split, field) for field in (*INDEX_ARRAYS, "label_map", "class_counts")}
    arrays |= {
        "class_names": np.array(split.class_names, dtype=np.str_),
        "protocols": np.array(split.protocols, dtype=np.str_),
        "name": np.array(split.name),
        "seed": np.array(split.seed, dtype=np.int64),
        "val_rule": np.array(split.val_rule),
    }
    try:
        with beside.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def load_split_file(path: str | os.PathLike[str], source: Source) -> Split:
    """The exact split that a file holds, checked against ``source``.

    A file made elsewhere needs ``train`` and ``test`` only; ``val`` and ``unknown`` are then empty, the label map is
    the identity and the class names are the source's.

    Raises:
        DataError: no such file, a damaged one, or one that does not fit ``source``.
    """
    file = Path(path)
    stored = _read_npz(file)
    missing = [field for field in ("train", "test") if field not in stored]
    if missing:
        raise DataError(
            f"split file {file} lacks the arrays {', '.join(missing)}; it holds {', '.join(stored) or 'none'}"
        )
    nothing = np.empty(0, dtype=np.int64)
    indices = {field: stored.get(field, nothing) for field in INDEX_ARRAYS}
    label_map = stored.get("label_map", np.arange(source.num_classes))
    class_names = tuple(canonical(str(name)) for name in stored.get("class_names", np.array(source.class_names)))
    for field, array in {**indices, "label_map": label_map}.items():
        if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
            raise DataError(f"split file {file}: '{field}' must be integers in one dimension")
    protocols = tuple(str(name) for name in stored.get("protocols", np.array(["closed_set"])))
    _check_label_map(f"split file {file}", label_map, len(class_names), protocols)
    check_indices(f"split file {file}", source, indices, label_map, len(class_names))
    _refuse_other_names(f"split file {file}", source, label_map, class_names)
    class_counts = count_labels(source, indices["train"].astype(np.int64), label_map, len(class_names))
    if not np.array_equal(stored.get("class_counts", class_counts), class_counts):
        raise DataError(
            f"split file {file} was made for other data: its class counts are not those of its training indices in "
            f"{source.name}. Use the data set that it was saved with"
        )
    return Split(
        name=str(stored.get("name", f"{source.name}-file-{file.stem}")),
        **indices,
        label_map=label_map,
        class_names=class_names,
        class_counts=class_counts,
        protocols=protocols,
        seed=int(stored.get("seed", 0)),
        val_rule=str(stored.get("val_rule", "official" if indices["val"].size else "none")),
    )


def _refuse_other_names(what: str, source: Source, label_map: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Raise DataError where a label that stands for one class of ``source`` has the name of another one."""
    labels, counts = np.unique(label_map, return_counts=True)
    single = {label for label, count in zip(labels.tolist(), counts.tolist()) if count == 1}
    known = set(source.class_names)
    wrong = [
        f"label {label} is {class_names[label]!r} in the file and {source.class_names[number]!r} in {source.name}"
        for number, label in enumerate(label_map.tolist())
        # a name of its own, such as background, is the name of no class
        if label in single and 0 <= label < len(class_names)
        if class_names[label] in known and class_names[label] != source.class_names[number]
    ]
    if wrong:
        more = ", ..." if len(wrong) > 10 else ""
        raise DataError(
            f"{what} was made for other data: its class names and its label map contradict each other: "
            f"{', '.join(wrong[:10])}{more}. Use the data set that it was saved with"
        )


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise DataError(f"there is no split file {file}")
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {field: stored[field] for field in stored.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        # AttributeError: numpy gives a bare array, which has no `files`, for an .npy
        raise DataError(f"split file {file} cannot be read as npz without pickles: {error}") from error


def _check_label_map(what: str, label_map: np.ndarray, num_classes: int, protocols: tuple[str, ...]) -> None:
    unseen = {"retrieval", "few_shot"} & set(protocols)  # labels beyond the trained ones, for its test classes
    highest = len(label_map) if unseen else num_classes
    if label_map.size and not (label_map.min() >= -1 and label_map.max() < highest):
        raise DataError(f"{what}: its label map must hold numbers from -1 to {highest - 1}")


def check_indices(
    what: str, source: Source, indices: Mapping[str, np.ndarray], label_map: np.ndarray, num_classes: int
) -> None:
    """Whether index arrays fit their source: in range, no index twice, and every image under a label it may have.

    Args:
        what: the beginning of a message, such as ``split file x.npz``.
        indices: the arrays by name, some of ``train``, ``val``, ``test`` and ``unknown``.
        label_map: int64 [source classes].
        num_classes: C. Training and validation images have labels below it, test images any label but -1.

    Raises:
        DataError: they do not.
    """
    if len(label_map) != source.num_classes:
        raise DataError(f"{what} maps {len(label_map)} classes, but {source.name} has {source.num_classes}")
    used = np.zeros(len(source), dtype=bool)
    num_used = 0
    for field, array in indices.items():
        outside = array[(array < 0) | (array >= len(source))]
        if outside.size:
            raise DataError(
                f"{what}: {outside.size} indices of '{field}' (first {outside[0]}) are outside the "
                f"{len(source)} samples of {source.name}. Use the data set that it was saved with"
            )
        used[array] = True
        num_used += len(array)
        if np.count_nonzero(used) != num_used:
            raise DataError(f"{what}: '{field}' repeats an index, or shares one with another array")
        if field == "unknown" or not array.size:
            continue
        labels = label_map[source.labels[array]]
        if labels.min() < 0:
            raise DataError(f"{what}: '{field}' holds samples of classes that its label map gives no label")
        if field != "test" and labels.max() >= num_classes:
            raise DataError(f"{what}: '{field}' holds samples of classes that only the test set may have")
