"""Checks of a packed store when it is opened, so that damage neither crashes the process nor changes a label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_KIND, KIND = "ltr-packed-1", "ltr-packed-2"  # the first kind has no digests of its table and description
_TYPES: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "page": dict,
    "source": str,
    "size": int,
    "format": str,
    "quality": (int, type(None)),
    "decoder": str,
    "chunk": int,
    "parts": dict,
    "class_names": list,
    "class_ids": (list, type(None)),
    "taxonomy": dict,
    "boxes": bool,
    "digests": list,
    "content": str,
}
_NUMBERS = ("width", "height", "label")


def schema() -> pa.Schema:
    """Return the columns of a packed store."""
    import pyarrow as pa

    return pa.schema(
        [
            ("image", pa.large_binary()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("label", pa.int64()),
            ("path", pa.large_binary()),
            ("box", pa.list_(pa.float32(), 4)),
        ]
    )


def table_digest(batch: pa.RecordBatch) -> str:
    """Return the sha256 (hex) of a chunk without its images: sizes, labels, paths and boxes."""
    digest = hashlib.sha256()
    for name in _NUMBERS:
        digest.update(np.ascontiguousarray(batch.column(name).to_numpy(), dtype="<i8").data)
    blob, offsets = paths_of(batch)
    digest.update(np.ascontiguousarray(offsets, dtype="<i8").data)
    digest.update(blob)
    boxes = batch.column("box")
    if not boxes.null_count:
        digest.update(np.ascontiguousarray(boxes.flatten().to_numpy(), dtype="<f4").data)
    return digest.hexdigest()


def paths_of(batch: pa.RecordBatch) -> tuple[bytes, np.ndarray]:
    """Return the concatenated paths of a chunk and their offsets int64 [n + 1]."""
    column = batch.column("path")
    buffers = column.buffers()
    ends = np.frombuffer(buffers[1], dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    return bytes(memoryview(buffers[2])[ends[0] : ends[-1]]) if buffers[2] else b"", ends - ends[0]


def metadata_digest(metadata: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of a store's description without this digest."""
    plain = {key: value for key, value in metadata.items() if key != "about"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raise ValueError if a store's description was changed."""
    kind = metadata.get("kind")
    if kind not in (FIRST_KIND, KIND):
        raise ValueError("it was not made by ltr-data pack, or was made by another version of it")
    if metadata.get("about") != (metadata_digest(metadata) if kind == KIND else None):
        raise ValueError("its description is not the one that was written")
    invalid_keys = [key for key, of in _TYPES.items() if not isinstance(metadata.get(key), of)]
    if invalid_keys:
        raise ValueError(f"its description has no proper {invalid_keys[0]}")
    if metadata["size"] < 1 or metadata["chunk"] < 1 or metadata["format"] not in ("jpeg", "raw"):
        raise ValueError("its description has a size, chunk or format that cannot be")
    if kind == KIND and not isinstance(metadata.get("tables"), list):
        raise ValueError("its description has no valid tables")
    files = metadata.get("files", {})
    if not isinstance(files, dict) or not all(isinstance(digests, list) for digests in files.values()):
        raise ValueError("its description has no valid files")


def check_batches(metadata: Mapping[str, Any], actual: pa.Schema, batches: Sequence[pa.RecordBatch]) -> None:
    """Raise ValueError (or an error of pyarrow) if columns, offsets, sizes or digests are damaged.

    It reads all offsets and all columns except the images, about a hundred bytes per image.
    """
    if not actual.equals(schema(), check_metadata=False):
        raise ValueError("it has other columns")
    if len(batches) != len(metadata["digests"]):
        raise ValueError(f"it has {len(batches)} chunks, and digests of {len(metadata['digests'])}")
    for number, batch in enumerate(batches):
        batch.validate(full=True)
        last = number == len(batches) - 1
        if not 0 < batch.num_rows <= metadata["chunk"] or (batch.num_rows < metadata["chunk"] and not last):
            raise ValueError(f"chunk {number} has {batch.num_rows} images, not {metadata['chunk']}")
        empty = [name for name in schema().names if batch.column(name).null_count and name != "box"]
        if empty:
            raise ValueError(f"chunk {number} lacks values of {empty[0]}")
        if batch.column("box").null_count != (0 if metadata["boxes"] else batch.num_rows):
            raise ValueError(f"chunk {number} lacks boxes, or has some that it should not have")
        if metadata["format"] == "raw":
            _check_raw(batch, number)
        if metadata["kind"] == KIND and table_digest(batch) != metadata["tables"][number]:
            raise ValueError(f"the sizes, labels, paths or boxes of chunk {number} are not those that were written")


def _check_raw(batch: pa.RecordBatch, number: int) -> None:
    """Raise ValueError if the number of pixels contradicts width and height."""
    column = batch.column("image")
    ends = np.frombuffer(column.buffers()[1], dtype=np.int64)[column.offset : column.offset + len(column) + 1]
    sides = [batch.column(name).to_numpy().astype(np.int64) for name in ("width", "height")]
    if (np.diff(ends) != 3 * sides[0] * sides[1]).any() or min(side.min() for side in sides) < 1:
        raise ValueError(f"images of chunk {number} have other sizes than their pixels")
