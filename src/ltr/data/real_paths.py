"""Paths of image files as the disk has them: absolute, without other spellings, with links followed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ltr.data.source import ImageFiles
from ltr.names import canonical


def real_paths(files: ImageFiles, indices: Iterable[int]) -> Iterator[bytes]:
    """Yield the real path of each of ``indices``; the links of a folder are followed once for all its files."""
    real_folders: dict[bytes, bytes] = {}
    root = os.fsencode(files.root)
    for index in indices:
        path = os.path.join(root, files.blob[files.offsets[index] : files.offsets[index + 1]])
        yield _real_path(path, real_folders)


def named_images(files: ImageFiles, names: Sequence[str], roots: Sequence[str] = ()) -> tuple[np.ndarray, list[str]]:
    """Return which images a list of paths names, in whatever spelling, and the paths that name none.

    A path that is no image's real path names the image whose path is the same in Unicode's composed form.

    Args:
        names: paths from the root of ``files``, whole ones, or from one of ``roots``.

    Returns:
        (bool [N], paths that name no image, in order).
    """
    listed = [ImageFiles.from_paths(root, names) for root in (files.root, *roots)]
    wanted: dict[bytes, list[int]] = {}
    for one in listed:
        for row, path in enumerate(real_paths(one, range(len(one)))):
            wanted.setdefault(path, []).append(row)
    is_named = np.zeros(len(files), dtype=bool)
    found = np.zeros(len(names), dtype=bool)
    for index, path in enumerate(real_paths(files, range(len(files)))):
        if path in wanted:
            is_named[index] = True
            found[wanted[path]] = True
    if not found.all():
        composed: dict[str, list[int]] = {}
        for path, rows in wanted.items():
            composed.setdefault(canonical(os.fsdecode(path)), []).extend(row for row in rows if not found[row])
        for index, path in enumerate(real_paths(files, range(len(files)))):
            rows = composed.get(canonical(os.fsdecode(path)), [])
            is_named[index] |= bool(rows)
            found[rows] = True
    return is_named, [names[row] for row in np.flatnonzero(~found).tolist()]


def first_of_each(files: ImageFiles) -> np.ndarray:
    """Return the places of the images that are no other spelling of an earlier one, int64 [n]."""
    seen: set[bytes] = set()
    paths = real_paths(files, range(len(files)))
    return np.array([n for n, path in enumerate(paths) if not (path in seen or seen.add(path))], dtype=np.int64)  # type: ignore[func-returns-value]


def _real_path(path: bytes, real_folders: dict[bytes, bytes]) -> bytes:
    if b"\0" in path:  # no file has such a name
        return path
    folder, name = os.path.split(path)
    if name in (b"", b".", b".."):
        return os.path.realpath(path)
    if folder not in real_folders:
        real_folders[folder] = os.path.realpath(folder)
    whole = os.path.join(real_folders[folder], name)
    return os.path.realpath(whole) if os.path.islink(whole) else whole
