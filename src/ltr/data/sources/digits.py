"""Handwritten digits of scikit-learn: 8x8 grey images of 10 classes, available without a download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ltr.data.source import Source, fixed_content
from ltr.identity import named
from ltr.randomness import generator

TEST_PER_CLASS = 40


@named("source/digits")
@fixed_content
def digits() -> Source:
    """Read the digits of scikit-learn: 1,797 images, the test half of UCI's Optical Recognition of Handwritten Digits.

    There is no official test part. A fixed rule samples 40 images of each class as the part ``test``; the remaining
    1,397 (134 to 143 per class) are ``train``. Pixels 0..16 are scaled to uint8 0..255.

    Returns:
        Source with images [1797, 8, 8, 1] and parts ``train``, ``test``; both keep scikit-learn's order.
    """
    table = _table()
    labels = table[:, -1].astype(np.int64)
    pixels = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)[..., None]
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        positions = np.flatnonzero(labels == label)
        is_test[generator("digits", "test part", label).permutation(positions)[:TEST_PER_CLASS]] = True
    order = np.concatenate([np.flatnonzero(~is_test), np.flatnonzero(is_test)])
    num_train = len(labels) - int(is_test.sum())
    return Source(
        name="digits",
        images=pixels[order],
        labels=labels[order],
        class_names=tuple(str(digit) for digit in range(10)),
        parts={"train": range(num_train), "test": range(num_train, len(labels))},
    )


def _table() -> np.ndarray:
    """Return the table of scikit-learn's package, float64 [1797, 65]: 64 pixels in 0..16 and the label of each image.

    The file is read without importing scikit-learn, which takes a second, a tenth of a whole run.
    """
    package = find_spec("sklearn")
    folders = package.submodule_search_locations if package is not None else None
    for folder in folders or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target])
