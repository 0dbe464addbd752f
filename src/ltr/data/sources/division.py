"""Stratified division of images into training and test parts, by seed and path."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from ltr.configuration.ranges import ProperFraction, check_option
from ltr.errors import DataError
from ltr.names import list_first
from ltr.randomness import derive_seed


def hold_out_test_images(
    name: str, paths: Sequence[str], labels: np.ndarray, class_names: Sequence[str], *, fraction: float, seed: int
) -> np.ndarray:
    """Return a mask bool [N] of the test images: a share of each class with at least one image in each part.

    The choice follows from ``seed`` and the path of each image, so that adding images moves few of the existing ones to
    the other part. A class with a single image is only in the training part; a warning names it.

    Args:
        name: name of the data set, for messages.
        paths: paths of the N images, as the user wrote them.
        labels: int64 [N].
        fraction: share in (0, 1), rounded down.

    Raises:
        ConfigError: the fraction is outside (0, 1).
        DataError: no class has two images.
    """
    check_option("dataset.test_fraction", fraction, ProperFraction)
    # file names need not be UTF-8
    names = [path.encode("utf-8", "backslashreplace").decode() for path in paths]
    draws = np.array([derive_seed(seed, "test part", path) for path in names], dtype=np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    # sorted by class, then by draw
    order = np.lexsort((draws, labels))
    counts = np.bincount(labels, minlength=len(class_names))
    for start, count in zip(np.cumsum(counts) - counts, counts):
        if count > 1:
            # the small term rounds products such as 0.07 * 100 = 6.9999999999999991 to 7
            share = int(fraction * count + 1e-9)
            is_test[order[start : start + min(max(share, 1), count - 1)]] = True
    if len(labels) and not is_test.any():
        raise DataError(
            f"{name}: no class has two images, so none can be held out for testing: there are {len(labels):,} images "
            f"of {int((counts > 0).sum()):,} classes. Add images, or assign images to training and testing yourself "
            "(folders train and test, or a column split)"
        )
    single = [class_names[label] for label in np.flatnonzero(counts == 1).tolist()]
    if single:
        warnings.warn(
            f"{name}: classes with a single image are in training only: {list_first(single)}. Add images, or divide "
            "them yourself",
            stacklevel=3,
        )
    return is_test


def warn_of_untested(name: str, test_labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Warn of training classes without an image in the test part."""
    tested = set(test_labels.tolist())
    untested = [class_name for label, class_name in enumerate(class_names) if label not in tested]
    if untested and tested:
        warnings.warn(
            f"{name}: {len(untested):,} of {len(class_names):,} classes have no test image, so their accuracy is not "
            f"measured: {list_first(untested)}",
            stacklevel=3,
        )
