"""Real paths of image files: absolute, normalised, with links followed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ltr.data.source import ImageFiles
from ltr.names import canonical


def real_paths(files: ImageFiles, indices: Iterable[int]) -> Iterator[bytes]:
    """Yield the real path of each image; links in a folder's path are resolved once for all its files."""
    real_folders: dict[bytes, bytes] = {}
    root = os.fsencode(files.root)
    for index in indices:
        path = os.path.join(root, files.blob[files.offsets[index] : files.offsets[index + 1]])
        yield _real_path(path, real_folders)


def find_named_images(
    files: ImageFiles, names: Sequence[str], roots: Sequence[str] = ()
) -> tuple[np.ndarray, list[str]]:
    """Find the images that a list of paths names, in any spelling.

    If a path is not the real path of an image, it matches an image whose path has the same composed Unicode form.

    Args:
        names: absolute paths, or paths from the root of ``files`` or from one of ``roots``.

    Returns:
        (mask of the named images, bool [N]; paths that name no image, in order).
    """
    listed = [ImageFiles.from_paths(root, names) for root in (files.root, *roots)]
    rows_by_path: dict[bytes, list[int]] = {}
    for candidates in listed:
        for row, path in enumerate(real_paths(candidates, range(len(candidates)))):
            rows_by_path.setdefault(path, []).append(row)
    is_named = np.zeros(len(files), dtype=bool)
    is_matched = np.zeros(len(names), dtype=bool)
    for index, path in enumerate(real_paths(files, range(len(files)))):
        if path in rows_by_path:
            is_named[index] = True
            is_matched[rows_by_path[path]] = True
    if not is_matched.all():
        composed: dict[str, list[int]] = {}
        for path, rows in rows_by_path.items():
            composed.setdefault(canonical(os.fsdecode(path)), []).extend(row for row in rows if not is_matched[row])
        for index, path in enumerate(real_paths(files, range(len(files)))):
            rows = composed.get(canonical(os.fsdecode(path)), [])
            is_named[index] |= bool(rows)
            is_matched[rows] = True
    return is_named, [names[row] for row in np.flatnonzero(~is_matched).tolist()]


def first_of_each(files: ImageFiles) -> np.ndarray:
    """Return the indices int64 [n] of the first image of each real path."""
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
