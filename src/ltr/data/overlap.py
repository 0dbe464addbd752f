"""Which images of an evaluation a network was trained on, by what the images are."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from ltr.data.packed import PackedImages
from ltr.data.real_paths import real_paths
from ltr.data.source import ImageFiles, Source

_END = 4096  # bytes at each end of a file that tell it from others of its size


def trained_on(trained: Source, train: np.ndarray, evaluated: Source, indices: np.ndarray) -> np.ndarray | None:
    """Return which of ``indices`` into ``evaluated`` are also among ``train``, indices into ``trained``.

    In one source (or packed files of it) an image is its index. In two sources of image files it is its real path, or
    a copy of the file, byte for byte. In two of arrays it is its pixels.

    Returns:
        bool [len(indices)]; None where the two cannot be compared: an array with a file, a packed file with another.
    """
    if _origin(trained) == _origin(evaluated):
        return np.isin(indices, train)
    ours, theirs = trained.images, evaluated.images
    if isinstance(ours, PackedImages) or isinstance(theirs, PackedImages):
        return None
    if isinstance(ours, ImageFiles) and isinstance(theirs, ImageFiles):
        return _among_files(list(real_paths(ours, train.tolist())), list(real_paths(theirs, indices.tolist())))
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        if ours.shape[1:] != theirs.shape[1:]:
            return np.zeros(len(indices), dtype=bool)
        pixels = {pixel_digest(ours[index]) for index in train.tolist()}
        return np.array([pixel_digest(theirs[index]) in pixels for index in indices.tolist()], dtype=bool)
    return None


def _among_files(trained: list[bytes], evaluated: list[bytes]) -> np.ndarray:
    """Return which of the real paths ``evaluated`` are among ``trained``, or are copies of one of them.

    Only files of a size that a training image has too are opened, and only those whose two ends agree with one are
    read: hashing millions of photographs would take longer than their evaluation.
    """
    known = set(trained)
    sizes = [_size(path) for path in evaluated]
    wanted = {size for size, path in zip(sizes, evaluated) if path not in known} - {-1}
    candidates: dict[bytes, list[bytes]] = {}  # paths by their files' ends
    for path in trained:
        size = _size(path)
        if size in wanted:
            candidates.setdefault(_ends(path, size), []).append(path)
    digests: dict[bytes, set[bytes]] = {}  # of whole files, by their ends

    def is_copy(path: bytes, size: int) -> bool:
        ends = _ends(path, size)
        if ends not in candidates:
            return False
        if ends not in digests:
            digests[ends] = {_digest(other) for other in candidates[ends]}
        return _digest(path) in digests[ends]

    found = (path in known or (bool(candidates) and is_copy(path, size)) for path, size in zip(evaluated, sizes))
    return np.array(list(found), dtype=bool)


def _size(path: bytes) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _ends(path: bytes, size: int) -> bytes:
    """Return a digest of a file's size, beginning and ending; of a file that cannot be read, of its path."""
    digest = hashlib.blake2b(size.to_bytes(8, "little", signed=True), digest_size=16)
    try:
        with open(path, "rb") as file:
            digest.update(file.read(_END))
            file.seek(max(size - _END, 0))
            digest.update(file.read(_END))
    except OSError:
        digest.update(path)
    return digest.digest()


def _digest(path: bytes) -> bytes:
    """Return a digest of a file; of one that cannot be read, its path."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return path


def pixel_digest(image: np.ndarray) -> bytes:
    """Return a digest of an image's pixels; two images of one shape have the same pixels where it is the same."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _origin(source: Source) -> str:
    """Return the fingerprint of a source, or of what its packed file was made from."""
    images = source.images
    if isinstance(images, PackedImages) and images.store is not None:
        return str(images.store.about["source"])
    return source.fingerprint
