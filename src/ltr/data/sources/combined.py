"""Two data sets in one Source, for open-set tests with unknown classes of another data set (CIFAR+10, CIFAR+50)."""

from __future__ import annotations

import numpy as np

from ltr.data.source import Source, fixed_content
from ltr.data.sources import cifar
from ltr.errors import DataError
from ltr.identity import named


def combine(name: str, first: Source, second: Source, *, part: str = "test") -> Source:
    """Append one part of ``second`` and all classes of ``second`` to ``first``.

    Class names get the data set as a prefix: ``cifar10/cat``, ``cifar100/apple``. The new part is named by data set and
    part, such as ``cifar100_test``.

    Raises:
        DataError: the images are not arrays of the same shape, or the names are equal.
    """
    if first.name == second.name:
        raise DataError(f"{name}: two data sets are needed, not {first.name} twice")
    added = second.part(part)
    images = [first.images, second.images]
    if not all(isinstance(array, np.ndarray) for array in images) or first.images.shape[1:] != second.images.shape[1:]:  # type: ignore[union-attr]
        raise DataError(f"{name}: the images of {first.name} and {second.name} must be arrays of one shape")
    return Source(
        name=name,
        images=np.concatenate([first.images, second.images[added.start : added.stop]]),  # type: ignore[index]
        labels=np.concatenate([first.labels, second.labels[added.start : added.stop] + first.num_classes]),
        class_names=tuple(f"{source.name}/{label}" for source in (first, second) for label in source.class_names),
        parts={**first.parts, f"{second.name}_{part}": range(len(first), len(first) + len(added))},
    )


@named("source/cifar10_and_cifar100")
@fixed_content
def cifar10_and_cifar100(*, root: str, download: bool = False) -> Source:
    """Read CIFAR-10 with the test images of CIFAR-100: 70,000 images, 110 classes.

    Args:
        root: folder that holds ``cifar-10-batches-py`` and ``cifar-100-python``.
        download: True downloads the official archives into ``root`` if the files are missing.

    Returns:
        Source with images [70000, 32, 32, 3] and parts ``train``, ``test`` (CIFAR-10's) and ``cifar100_test``.

    Raises:
        DataError: files are missing, damaged, or could not be downloaded.
    """
    first = cifar.cifar10(root=root, download=download)
    second = cifar.cifar100(root=root, download=download)
    return combine("cifar10_and_cifar100", first, second)
