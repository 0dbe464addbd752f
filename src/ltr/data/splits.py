"""Splits: which samples of a Source are trained on and which are judged, as pure functions of labels and parameters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ltr.data.source import Source, read_only, set_field


@dataclass(frozen=True, eq=False)
class Split:
    """Index arrays into a Source, and the labels that the run uses.

    Attributes:
        name: says the rule, such as ``cifar10-exp100-cao``, with ``-val_train_fraction0.1`` where validation is carved.
        train, val, test, unknown: int64 indices into the source (read-only); no index is in two of them.
        label_map: int64 [source classes], the split's label of each source class, -1 where it has none.
        class_names: of the split's C labels.
        class_counts: int64 [C], train images per label.
        protocols: what the split is judged by, the first one is the headline.
        seed: the split's own seed (not the run's).
        val_rule: ``none``, ``train_fraction``, ``official`` or ``test_fraction``.
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
        for field in ("train", "val", "test", "unknown", "label_map", "class_counts"):
            set_field(self, field, read_only(np.ascontiguousarray(getattr(self, field), dtype=np.int64)))

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
        for array in (self.train, self.val, self.test, self.unknown, self.label_map):
            digest.update(len(array).to_bytes(8, "little"))
            digest.update(array)
        return digest.hexdigest()
