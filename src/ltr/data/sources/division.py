"""Dividing images that come without a test part: stratified, by seed and path."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from ltr.data.sources.checks import shown
from ltr.errors import ConfigError, DataError
from ltr.randomness import derive_seed


def held_for_test(
    name: str, paths: Sequence[str], labels: np.ndarray, class_names: Sequence[str], *, fraction: float, seed: int
) -> np.ndarray:
    """Which images are for testing, bool [N]: a share of each class, at least one, and one at least is left to train.

    Which ones follows from ``seed`` and each image's own path, so images that are added later move few of the others
    from one part to the other. A class of one image is trained on and not tested; a warning names it.

    Args:
        paths: [N], as the user gave them.
        labels: int64 [N].
        fraction: in (0, 1); the share is rounded down.

    Raises:
        ConfigError: a fraction outside (0, 1).
        DataError: no class has two images.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"dataset.test_fraction={fraction}: it must be greater than 0 and less than 1")
    # file names need not be UTF-8
    names = [path.encode("utf-8", "backslashreplace").decode() for path in paths]
    draws = np.array([derive_seed(seed, "test part", path) for path in names], dtype=np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    # by class, and in a class by draw
    order = np.lexsort((draws, labels))
    counts = np.bincount(labels, minlength=len(class_names))
    for start, count in zip(np.cumsum(counts) - counts, counts):
        if count > 1:
            # the small term keeps a share such as 0.07 * 100 = 7.0000000000000001 or 6.9999999999999991 at 7
            share = int(fraction * count + 1e-9)
            is_test[order[start : start + min(max(share, 1), count - 1)]] = True
    if len(labels) and not is_test.any():
        raise DataError(
            f"{name}: no class has two images, so none can be held for testing: there are {len(labels):,} images of "
            f"{int((counts > 0).sum()):,} classes. Add images, or say yourself which are for training and which for "
            "testing (folders train and test, or a column split)"
        )
    single = [class_names[label] for label in np.flatnonzero(counts == 1).tolist()]
    if single:
        warnings.warn(
            f"{name}: classes of one image are trained on and not tested: {shown(single)}. Add images, or divide them "
            "yourself",
            stacklevel=3,
        )
    return is_test


def warn_of_untested(name: str, test_labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Warn of classes that are trained on and have no image in the given test part."""
    tested = set(test_labels.tolist())
    untested = [class_name for label, class_name in enumerate(class_names) if label not in tested]
    if untested and tested:
        warnings.warn(
            f"{name}: {len(untested):,} of {len(class_names):,} classes have no test image, so no number says how well "
            f"they are recognised: {shown(untested)}",
            stacklevel=3,
        )


def divided_name(name: str, fraction: float, seed: int) -> str:
    """The source's name with the rule in it, so that it shows in the split's name."""
    return f"{name}-test{fraction:g}-seed{seed}"
