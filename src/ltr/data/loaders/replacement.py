"""Replacement of unreadable training images by others of their class."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ltr.errors import DataError
from ltr.names import list_first
from ltr.randomness import derive_seed, uniforms

TRIES = 10


class Failure(NamedTuple):
    """Unreadable image; workers send it as a value, because an exception would arrive as text."""

    image: int
    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Replacements:
    """Training images by class, for ``trainer.on_error=skip``.

    Attributes:
        labels: int64 [N], labels of the whole source.
        members: int64 [T], source indices of the training images, class by class.
        starts, counts: int64 [C], start of each class in ``members`` and number of images of each class.
        most: largest share of an epoch's images that may be replaced, in [0, 1].
    """

    labels: np.ndarray
    members: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    most: float

    def candidates(self, image: int, seed: int, position: int) -> np.ndarray:
        """Return source indices int64 [10] of replacements for ``image``, a function of (seed, position)."""
        label = self.labels[image]
        draws = uniforms(derive_seed(seed, "replace"), np.array([position]), TRIES)[0]
        return self.members[self.starts[label] + (draws * self.counts[label]).astype(np.int64)]


@dataclass
class Skipped:
    """Replaced images of an epoch, with a limit on their number.

    Args:
        images: images per epoch.
        most: largest share of them that may be replaced, in [0, 1].
    """

    images: int
    most: float
    failures: list[Failure] = field(default_factory=list)

    def add(self, new_failures: list[Failure]) -> None:
        """Record failures; raise DataError that names the first ten if there are more than allowed."""
        self.failures += new_failures
        if len(self.failures) > self.most * self.images:
            raise DataError(
                f"{len(self.failures)} of the epoch's {self.images} images cannot be read, more than the share "
                f"trainer.max_skipped={self.most:g} that may be replaced: {self._shown()}. Fetch the files again, or "
                "leave them out with dataset.exclude=FILE, which ltr-data check --exclude-to FILE writes"
            )

    def warn(self) -> None:
        """Warn of the replaced images at the end of an epoch."""
        if self.failures:
            warnings.warn(
                f"{len(self.failures)} of the epoch's {self.images} images cannot be read; others of their classes "
                f"replace them: {self._shown()}",
                stacklevel=1,  # a trainer higher in the stack silences its own warnings
            )

    def _shown(self) -> str:
        first = {failure.path: failure.reason for failure in self.failures}
        return list_first([f"{path} ({reason})" for path, reason in first.items()])
