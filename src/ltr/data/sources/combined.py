"""Two data sets in one Source, for tests whose unknown classes come from elsewhere (CIFAR+10, CIFAR+50)."""

from __future__ import annotations

import numpy as np

from ltr.data.source import Source, fixed_content
from ltr.data.sources import cifar
from ltr.errors import DataError
from ltr.identity import named


def combine(name: str, first: Source, second: Source, *, part: str = "test") -> Source:
    """All of ``first``, and one part of ``second`` behind it; the classes of both, the first one's before.

    Class names are prefixed: ``cifar10/cat``, ``cifar100/apple``. The second's part is named after both, such as
    ``cifar100_test``.

    Raises:
        DataError: images that are not arrays of the same shape, or names that would collide.
    """
    if first.name == second.name:
        raise DataError(f"{name}: two data sets are needed, not {first.name} twice")
    added = second.part(part)
    images = [first.images, second.images]
    if not all(isinstance(one, np.ndarray) for one in images) or first.images.shape[1:] != second.images.shape[1:]:  # type: ignore[union-attr]
        raise DataError(f"{name}: the images of {first.name} and {second.name} must be arrays of one shape")
    return Source(
        name=name,
        images=np.concatenate([first.images, second.images[added.start : added.stop]]),  # type: ignore[index]
        labels=np.concatenate([first.labels, second.labels[added.start : added.stop] + first.num_classes]),
        class_names=tuple(f"{one.name}/{label}" for one in (first, second) for label in one.class_names),
        parts={**first.parts, f"{second.name}_{part}": range(len(first), len(first) + len(added))},
    )


@named("source/cifar10_and_cifar100")
@fixed_content
def cifar10_and_cifar100(*, root: str, download: bool = False) -> Source:
    """CIFAR-10 with CIFAR-100's test images behind it: 70,000 images, 110 classes.

    Args:
        root: folder that holds ``cifar-10-batches-py`` and ``cifar-100-python``.
        download: fetch the official archives into ``root`` if the files are not there.

    Returns:
        Source with images [70000, 32, 32, 3] and parts ``train``, ``test`` (CIFAR-10's) and ``cifar100_test``.

    Raises:
        DataError: files are missing, damaged, or could not be downloaded.
    """
    first = cifar.cifar10(root=root, download=download)
    second = cifar.cifar100(root=root, download=download)
    return combine("cifar10_and_cifar100", first, second)
