"""Identities of the image files behind the rows of a feature table, for sharing rows between tables.

Two sources may list the same files under other labels, such as a pool of unlabelled images and the data set to which
they are added. Two files are the same if their real path, size, modification time and decoding options are equal.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.images.real_paths import real_paths
from ltr.data.loaders.feature_table import FeatureTable
from ltr.data.source import ImageFiles
from ltr.files import written_atomically
from ltr.runs.store import StageStore

FILES = "files.npy"  # file in the folder of a table
_UNKNOWN = 0  # value of both numbers if the file cannot be examined or has no stored features


def file_identities(images: Any) -> np.ndarray | None:
    """Return two numbers that identify each image's file, uint64 [N, 2]; None for arrays, packed files and crops."""
    if type(images) is not ImageFiles or images.crops is not None:
        return None
    decoding = repr(images.decoding).encode()
    identities = np.full((len(images), 2), _UNKNOWN, dtype=np.uint64)
    for index, path in enumerate(real_paths(images, range(len(images)))):
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        text = b"\0".join([path, decoding, b"%d %d" % (status.st_size, status.st_mtime_ns)])
        identities[index] = np.frombuffer(hashlib.sha256(text).digest()[:16], dtype="<u8")
    return identities


def write_files(table: FeatureTable, identities: np.ndarray) -> None:
    """Write the identities to a table's folder before rows are added; existing rows keep their identities."""
    path = table.folder / FILES
    earlier = _read_files(path)
    if earlier is not None and earlier.shape == identities.shape:
        stored = table.has(np.arange(len(identities)))
        identities = np.where(stored[:, None], earlier, identities)
    elif len(table):  # an earlier version stored rows without identities, and their files may have changed since
        stored = table.has(np.arange(len(identities)))
        identities = np.where(stored[:, None], np.uint64(_UNKNOWN), identities)
    with written_atomically(path) as temporary, open(temporary, "wb") as file:
        np.save(file, identities)


def copy_shared_rows(
    table: FeatureTable, identities: np.ndarray, missing: np.ndarray, spec: Mapping[str, Any], store: StageStore
) -> int:
    """Copy rows of the same files from tables of other sources; return their number.

    Tables that another process is filling are skipped.

    Args:
        table: table to which rows are added.
        identities: identities of all images, from `file_identities`.
        missing: int64 [n], images without stored features.
        spec: specification of the table; tables to copy from differ only in the source.
    """
    copied = 0
    wanted = _without_source(spec)
    for record in store.finished():
        folder = store.folder(record["key"])
        if folder == table.folder or _without_source(record["spec"]) != wanted:
            continue
        other_identities = _read_files(folder / FILES)
        if other_identities is None:
            continue
        with store.locked_if_free(record["key"]) as is_free:
            if not is_free:
                continue
            other = FeatureTable(folder, len(other_identities), table.shape)
            number = _copy(other, other_identities, table, identities, missing)
        copied += number
        missing = table.missing(missing)
        if not len(missing):
            break
    return copied


def _copy(
    other: FeatureTable, other_identities: np.ndarray, table: FeatureTable, identities: np.ndarray, missing: np.ndarray
) -> int:
    known = missing[identities[missing, 0] != _UNKNOWN]
    rows = np.flatnonzero((other_identities[:, 0] != _UNKNOWN) & other.has(np.arange(len(other_identities))))
    _, known_positions, row_positions = np.intersect1d(
        identities[known, 0], other_identities[rows, 0], return_indices=True
    )
    indices, sources = known[known_positions], rows[row_positions]
    is_same = identities[indices, 1] == other_identities[sources, 1]
    order = np.argsort(indices[is_same])
    indices, sources = indices[is_same][order], sources[is_same][order]
    for first in range(0, len(indices), table.block_rows):
        part = slice(first, first + table.block_rows)
        table.append(indices[part], other.take(sources[part]))
    return len(indices)


def _without_source(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "source"}


def _read_files(path: Path) -> np.ndarray | None:
    try:
        identities = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return identities if identities.ndim == 2 and identities.shape[1] == 2 and identities.dtype == np.uint64 else None
