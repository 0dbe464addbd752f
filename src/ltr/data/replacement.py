"""What takes the place of a training image that cannot be read: another one of its class."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ltr.errors import DataError
from ltr.randomness import derive_seed, uniforms

TRIES = 10


class Failure(NamedTuple):
    """An image that cannot be read; workers send it as a value, because an exception would come out as text."""

    image: int
    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Replacements:
    """The training images by class, for ``trainer.on_error=skip``.

    Attributes:
        labels: int64 [N] of the whole source.
        members: int64 [T], the training images' places in the source, class by class.
        starts, counts: int64 [C], where each class begins in ``members`` and how many it has.
        most: the share of an epoch's images that may be replaced, in [0, 1].
    """

    labels: np.ndarray
    members: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    most: float

    def candidates(self, image: int, seed: int, position: int) -> np.ndarray:
        """Places int64 [10] of images to try instead of ``image``, a function of (seed, position)."""
        label = self.labels[image]
        draws = uniforms(derive_seed(seed, "replace"), np.array([position]), TRIES)[0]
        return self.members[self.starts[label] + (draws * self.counts[label]).astype(np.int64)]


@dataclass
class Skipped:
    """Counts the images of an epoch that were replaced, and stops where they are too many.

    Args:
        images: of the epoch.
        most: share of them.
    """

    images: int
    most: float
    found: list[Failure] = field(default_factory=list)

    def add(self, failures: list[Failure]) -> None:
        """Raise DataError, with the first ten, once there are more than allowed."""
        self.found += failures
        if len(self.found) > self.most * self.images:
            raise DataError(
                f"{len(self.found)} of the epoch's {self.images} images cannot be read, more than the share "
                f"trainer.max_skipped={self.most:g} that may be replaced: {self._shown()}. Fetch the files again, or "
                "leave them out with dataset.exclude=FILE, which ltr-data check --exclude-to FILE writes"
            )

    def tell(self) -> None:
        """Warn of what was replaced, at the epoch's end."""
        if self.found:
            warnings.warn(
                f"{len(self.found)} of the epoch's {self.images} images cannot be read; others of their classes took "
                f"their place: {self._shown()}",
                stacklevel=1,  # a trainer further up silences its own warnings
            )

    def _shown(self) -> str:
        first = {failure.path: failure.reason for failure in self.found}
        lines = [f"{path} ({reason})" for path, reason in list(first.items())[:10]]
        return ", ".join(lines) + (", ..." if len(first) > 10 else "")
