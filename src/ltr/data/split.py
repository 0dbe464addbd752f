"""`Split`: index arrays into a `Source` with the labels of a run, and its file format."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.source import ImageFiles, Source, as_read_only, set_field
from ltr.errors import DataError
from ltr.names import canonical, list_first

SPLIT_PARTS = ("train", "val", "test", "unknown")


@dataclass(frozen=True, eq=False)
class Split:
    """Index arrays into a `Source`, with the labels of a run.

    Training and validation images have labels 0 .. C-1, named by ``class_names``. Retrieval is evaluated on classes
    without training images, whose labels in ``label_map`` are C, C+1, ...; ``class_names`` and ``class_counts`` cover
    the C training classes. In all other splits the labels of ``label_map`` are below C. In a background split, label 0
    is the background and covers many source classes.

    Attributes:
        name: description of the rule, such as ``cifar10-exp100-cao``; ``-val_train_fraction0.1`` or the like is
            appended if validation images are held out.
        train, val, test, unknown: disjoint int64 indices into the source (read-only).
        label_map: int64 [source classes], the split's label of each source class; -1 for unknown and excluded classes;
            C and more only for the test classes of retrieval.
        class_names: names of the C labels.
        class_counts: int64 [C], training images per label.
        protocols: evaluation protocols, the headline first: ``closed_set``, ``background``, ``open_set``,
            ``retrieval`` or ``few_shot``.
        seed: seed of the split (not of the run).
        val_rule: ``none``, ``train_fraction``, ``official`` or ``test_fraction``.
        listing: `listing_digest` of the source that the indices refer to; '' if unknown.

    Raises:
        DataError: fields contradict each other. `check_indices` checks the split against its source.
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
    listing: str = ""

    def __post_init__(self) -> None:
        for field in (*SPLIT_PARTS, "label_map", "class_counts"):
            set_field(self, field, as_read_only(np.array(getattr(self, field), dtype=np.int64)))
        if not self.protocols:
            raise DataError(f"split '{self.name}': it names no protocol that it is evaluated by")
        if len(self.class_counts) != self.num_classes:
            raise DataError(
                f"split '{self.name}': {len(self.class_counts)} class counts for {self.num_classes} class names"
            )
        _check_label_map(f"split '{self.name}'", self.label_map, self.num_classes, self.protocols)

    @property
    def num_classes(self) -> int:
        """Number of labels C."""
        return len(self.class_names)

    def labels(self, source: Source) -> np.ndarray:
        """Return the split's label of every image of ``source``, int64 [N]; -1 for classes without a label."""
        return self.label_map[source.labels]

    def digest(self) -> str:
        """Return the sha256 (hex) of the index arrays and the label map."""
        digest = hashlib.sha256(b"split-1")
        for field in (*SPLIT_PARTS, "label_map"):
            array = getattr(self, field)
            digest.update(len(array).to_bytes(8, "little"))
            digest.update(array.data)
        return digest.hexdigest()


def listing_digest(source: Source) -> str:
    """Return the sha256 (hex) of the paths and crops of image files, in order; '' for arrays and packed files.

    The root, the labels and the contents of the files take no part, so data may be moved and relabelled.
    """
    images = source.images
    if type(images) is not ImageFiles:
        return ""
    digest = hashlib.sha256(b"listing-1")
    digest.update(np.ascontiguousarray(images.offsets).data)
    digest.update(images.blob)
    if images.crops is not None:
        digest.update(images.crops.identity())
    return digest.hexdigest()


def count_labels(source: Source, train: np.ndarray, label_map: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the training images per label, int64 [C]; all of ``train`` must have a label."""
    return np.bincount(label_map[source.labels[train]], minlength=num_classes)


def save_split(split: Split, path: str | os.PathLike[str]) -> None:
    """Write ``split`` as npz without pickles: arrays, class names, name, protocols, seed and validation rule.

    The file is written under a temporary name and renamed, so that no reader sees a partial file. Equal splits give
    equal bytes.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    arrays: dict[str, Any] = {field: getattr(split, field) for field in (*SPLIT_PARTS, "label_map", "class_counts")}
    arrays |= {
        "class_names": np.array(split.class_names, dtype=np.str_),
        "protocols": np.array(split.protocols, dtype=np.str_),
        "name": np.array(split.name),
        "seed": np.array(split.seed, dtype=np.int64),
        "val_rule": np.array(split.val_rule),
        **({"listing": np.array(split.listing)} if split.listing else {}),
    }
    try:
        with temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def load_split_file(path: str | os.PathLike[str], source: Source) -> Split:
    """Load a split from a file and check it against ``source``.

    A file from another program needs only ``train`` and ``test``. By default ``val`` and ``unknown`` are empty, the
    label map is the identity and the class names are the source's.

    Raises:
        DataError: the file is missing, is damaged, or does not match ``source``.
    """
    file = Path(path)
    stored = _read_npz(file)
    missing = [field for field in ("train", "test") if field not in stored]
    if missing:
        raise DataError(
            f"split file {file} lacks the arrays {', '.join(missing)}; it holds {', '.join(stored) or 'none'}"
        )
    listing = listing_digest(source)
    if listing and str(stored.get("listing", listing)) != listing:
        raise DataError(
            f"split file {file} was made for other data: it numbers another list of image files than {source.name} has "
            "(some were added, removed or renamed). Use the data set that it was saved with"
        )
    nothing = np.empty(0, dtype=np.int64)
    indices = {field: stored.get(field, nothing) for field in SPLIT_PARTS}
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
        listing=listing,
    )


def _refuse_other_names(what: str, source: Source, label_map: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Raise DataError if a label of a single class of ``source`` has the name of another class."""
    labels, counts = np.unique(label_map, return_counts=True)
    single = {label for label, count in zip(labels.tolist(), counts.tolist()) if count == 1}
    known = set(source.class_names)
    contradictions = [
        f"label {label} is {class_names[label]!r} in the file and {source.class_names[number]!r} in {source.name}"
        for number, label in enumerate(label_map.tolist())
        # a name such as background belongs to no class of the source
        if label in single and 0 <= label < len(class_names)
        if class_names[label] in known and class_names[label] != source.class_names[number]
    ]
    if contradictions:
        raise DataError(
            f"{what} was made for other data: its class names and its label map contradict each other: "
            f"{list_first(contradictions)}. Use the data set that it was saved with"
        )


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise DataError(f"there is no split file {file}")
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {field: stored[field] for field in stored.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        # AttributeError: numpy returns an array without `files` for an .npy
        raise DataError(f"split file {file} cannot be read as npz without pickles: {error}") from error


def _check_label_map(what: str, label_map: np.ndarray, num_classes: int, protocols: tuple[str, ...]) -> None:
    unseen = {"retrieval", "few_shot"} & set(protocols)  # test classes have labels beyond the training classes
    highest = len(label_map) if unseen else num_classes
    if label_map.size and not (label_map.min() >= -1 and label_map.max() < highest):
        raise DataError(f"{what}: its label map must hold numbers from -1 to {highest - 1}")


def check_indices(
    what: str, source: Source, indices: Mapping[str, np.ndarray], label_map: np.ndarray, num_classes: int
) -> None:
    """Check index arrays against their source: in range, without repeats, and with allowed labels.

    Args:
        what: beginning of a message, such as ``split file x.npz``.
        indices: arrays by name, some of ``train``, ``val``, ``test`` and ``unknown``.
        label_map: int64 [source classes].
        num_classes: C. Training and validation images must have labels in 0..C-1, test images any label but -1.

    Raises:
        DataError: an index is out of range or repeated, or an image has no allowed label.
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
