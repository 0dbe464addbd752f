"""Which images of an evaluation a network was trained on, by what the images are."""

from __future__ import annotations

import hashlib

import numpy as np

from ltr.data.packed import PackedImages
from ltr.data.real_paths import real_paths
from ltr.data.source import ImageFiles, Source


def trained_on(trained: Source, train: np.ndarray, evaluated: Source, indices: np.ndarray) -> np.ndarray | None:
    """Return which of ``indices`` into ``evaluated`` are also among ``train``, indices into ``trained``.

    In one source (or packed files of it) an image is its index. In two sources of image files it is its real path, and
    in two of arrays its pixels. A copy of a file at another place is another file.

    Returns:
        bool [len(indices)]; None where the two cannot be compared: an array with a file, a packed file with another.
    """
    if _origin(trained) == _origin(evaluated):
        return np.isin(indices, train)
    ours, theirs = trained.images, evaluated.images
    if isinstance(ours, PackedImages) or isinstance(theirs, PackedImages):
        return None
    if isinstance(ours, ImageFiles) and isinstance(theirs, ImageFiles):
        known = set(real_paths(ours, train.tolist()))
        return np.array([path in known for path in real_paths(theirs, indices.tolist())], dtype=bool)
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        if ours.shape[1:] != theirs.shape[1:]:
            return np.zeros(len(indices), dtype=bool)
        pixels = {pixel_digest(ours[index]) for index in train.tolist()}
        return np.array([pixel_digest(theirs[index]) in pixels for index in indices.tolist()], dtype=bool)
    return None


def pixel_digest(image: np.ndarray) -> bytes:
    """Return a digest of an image's pixels; two images of one shape have the same pixels where it is the same."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _origin(source: Source) -> str:
    """Return the fingerprint of a source, or of what its packed file was made from."""
    images = source.images
    if isinstance(images, PackedImages) and images.store is not None:
        return str(images.store.about["source"])
    return source.fingerprint
