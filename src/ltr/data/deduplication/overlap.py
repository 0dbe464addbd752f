"""Overlap of evaluation images with a network's training images, by content."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from ltr.data.images.real_paths import real_paths
from ltr.data.packed_images.reading import PackedImages
from ltr.data.source import ImageFiles, Source

_END = 4096  # bytes at each end of a file that are compared before whole files


def find_trained_images(
    trained: Source, train: np.ndarray, evaluated: Source, indices: np.ndarray
) -> np.ndarray | None:
    """Return a mask of the images ``indices`` of ``evaluated`` that are among the images ``train`` of ``trained``.

    Within one source (or its packed files) images are compared by index. Image files of two sources are equal if they
    have the same real path or the same bytes. Arrays of two sources are compared by their pixels.

    Returns:
        bool [len(indices)]; None if the sources cannot be compared: arrays with files, or packed files of two sources.
    """
    if _origin(trained) == _origin(evaluated):
        return np.isin(indices, train)
    trained_images, evaluated_images = trained.images, evaluated.images
    if isinstance(trained_images, PackedImages) or isinstance(evaluated_images, PackedImages):
        return None
    if isinstance(trained_images, ImageFiles) and isinstance(evaluated_images, ImageFiles):
        return _among_files(
            list(real_paths(trained_images, train.tolist())), list(real_paths(evaluated_images, indices.tolist()))
        )
    if isinstance(trained_images, np.ndarray) and isinstance(evaluated_images, np.ndarray):
        if trained_images.shape[1:] != evaluated_images.shape[1:]:
            return np.zeros(len(indices), dtype=bool)
        pixels = {pixel_digest(trained_images[index]) for index in train.tolist()}
        return np.array([pixel_digest(evaluated_images[index]) in pixels for index in indices.tolist()], dtype=bool)
    return None


def _among_files(trained: list[bytes], evaluated: list[bytes]) -> np.ndarray:
    """Return a mask of the real paths ``evaluated`` that are among ``trained`` or copies of one of them.

    Only files with the size of a training image are opened, and only those with equal ends are read as a whole: hashing
    millions of photographs would take longer than their evaluation.
    """
    known = set(trained)
    sizes = [file_size(path) for path in evaluated]
    sizes_to_check = {size for size, path in zip(sizes, evaluated) if path not in known} - {-1}
    candidates: dict[bytes, list[bytes]] = {}  # paths by their files' ends
    for path in trained:
        size = file_size(path)
        if size in sizes_to_check:
            candidates.setdefault(_ends(path, size), []).append(path)
    digests: dict[bytes, set[bytes | None]] = {}  # digests of whole files, by their ends

    def is_copy(path: bytes, size: int) -> bool:
        ends = _ends(path, size)
        if ends not in candidates:
            return False
        if ends not in digests:
            digests[ends] = {file_digest(other) for other in candidates[ends]} - {None}
        return file_digest(path) in digests[ends]

    is_known = (path in known or (bool(candidates) and is_copy(path, size)) for path, size in zip(evaluated, sizes))
    return np.array(list(is_known), dtype=bool)


def file_size(path: str | bytes) -> int:
    """Return a file's size in bytes; -1 if it cannot be read."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _ends(path: bytes, size: int) -> bytes:
    """Return a digest of a file's size, beginning and ending, or of its path if the file cannot be read."""
    digest = hashlib.blake2b(size.to_bytes(8, "little", signed=True), digest_size=16)
    try:
        with open(path, "rb") as file:
            digest.update(file.read(_END))
            file.seek(max(size - _END, 0))
            digest.update(file.read(_END))
    except OSError:
        digest.update(path)
    return digest.digest()


def file_digest(path: str | bytes) -> bytes | None:
    """Return a digest of a file's content; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def pixel_digest(image: np.ndarray) -> bytes:
    """Return a digest of an image's pixels, to compare images of one shape."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _origin(source: Source) -> str:
    """Return the fingerprint of a source; for a packed file, that of the source it was packed from."""
    images = source.images
    if isinstance(images, PackedImages) and images.store is not None:
        return str(images.store.metadata["source"])
    return source.fingerprint
