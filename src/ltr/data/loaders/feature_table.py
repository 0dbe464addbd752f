"""Features of a source's images on disk: memory-mapped shards, filled block by block, looked up by source index.

A row is the features of one image: a vector, a feature map or tokens, all of the same shape.

A table grows: `fill` adds the requested images that are missing, so that all splits of a source share one table. Each
block is flushed to disk before its record is written, and only blocks with a record count. A kill or a full disk loses
at most the block that is being written; the next block overwrites its rows.

A process checks the digest of each block when it first opens the table. Afterwards it trusts the block as long as the
inode, size and modification time of its shard do not change, so that the runs of a sweep hash a table once. A shard
modified within two seconds before a check is checked again, because clocks of file systems are coarse. A damaged block
and all blocks after it are dropped and computed again, with a message.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ltr.errors import DataError
from ltr.files import written_atomically

SHARD_ROWS = 65_536  # number of rows from which the next block begins a new shard,
SHARD_BYTES = 1 << 30  # or of bytes, which vectors of up to 4,096 numbers do not reach
BLOCK_BYTES = 16 << 20  # approximate size of a block, which an extraction keeps in memory
_RECORD = "block-{:06}.npz"
_SETTLED = 2.0  # seconds after which the modification time of a file reveals any change

_Signature = tuple[int, int, int]  # inode, size and modification time of a shard
_checked: dict[str, tuple[_Signature, set[tuple[int, bytes, str]]]] = {}  # shard -> blocks that this process checked


class FeatureTable:
    """Features float32 [n, *shape] of the images of one source.

    It takes 12 bytes of memory per image of the source, and the memory pages of the shards that are in use.

    Attributes:
        width: numbers of a row.

    Args:
        folder: folder of the table; created with the first block.
        images: number of images of the source.
        shape: shape of a row: D, or (D,), (C, H, W) or (N, D).
        print_line: prints a message if blocks are damaged and computed again.
    """

    def __init__(
        self,
        folder: Path,
        images: int,
        shape: int | tuple[int, ...],
        print_line: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder = folder
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.width = math.prod(self.shape)
        self._shard_of = np.full(images, -1, dtype=np.int32)
        self._row_of = np.zeros(images, dtype=np.int64)
        self._rows_in: list[int] = []  # rows of each shard
        self._mapped: dict[int, np.ndarray] = {}
        self._blocks = 0
        self._open(print_line)

    @property
    def block_rows(self) -> int:
        """Rows of a block, at least one."""
        return max(1, BLOCK_BYTES // self.row_bytes)

    @property
    def row_bytes(self) -> int:
        """Bytes of the features of one image."""
        return 4 * self.width

    @property
    def _shard_rows(self) -> int:
        return min(SHARD_ROWS, max(1, SHARD_BYTES // self.row_bytes))

    def __len__(self) -> int:
        """Return the number of images whose features are stored."""
        return sum(self._rows_in)

    def has(self, indices: np.ndarray) -> np.ndarray:
        """Return whether features of the source indices are stored, bool of their shape."""
        return self._shard_of[indices] >= 0

    def missing(self, indices: np.ndarray) -> np.ndarray:
        """Return the source indices without stored features, int64 [m], ascending."""
        wanted = np.unique(indices)
        return wanted[self._shard_of[wanted] < 0]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Return the features float32 [B, *shape] of source indices int64 [B].

        Raises:
            DataError: some of them are not stored.
        """
        shards, rows = self._shard_of[indices], self._row_of[indices]
        if len(shards) and shards.min() < 0:
            raise DataError(f"{self.folder}: no features of image {int(indices[shards.argmin()])} are stored")
        if len(self._rows_in) == 1:
            return np.asarray(np.take(self._shard(0), rows, axis=0)).reshape(len(indices), *self.shape)
        features = np.empty((len(indices), self.width), dtype=np.float32)
        for shard in np.unique(shards):
            chosen = shards == shard
            features[chosen] = self._shard(int(shard))[rows[chosen]]
        return features.reshape(len(indices), *self.shape)

    def append(self, indices: np.ndarray, features: np.ndarray) -> None:
        """Add a block: features float32 [n, *shape] of source indices int64 [n] that are not stored yet.

        Raises:
            OSError: the disk is full; earlier blocks are kept.
        """
        features = np.ascontiguousarray(features, dtype="<f4")
        if features.shape != (len(indices), *self.shape):
            raise ValueError(f"features of shape {features.shape} for {len(indices)} images and rows of {self.shape}")
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._rows_in or self._rows_in[-1] >= self._shard_rows:
            self._rows_in.append(0)
        shard = len(self._rows_in) - 1
        first = self._rows_in[shard]
        file = os.open(self._shard_path(shard), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _write_at(file, features.data.cast("B"), 4 * self.width * first)
            os.ftruncate(file, 4 * self.width * (first + len(indices)))  # removes rows of an unfinished block
            os.fsync(file)
        finally:
            os.close(file)
        with written_atomically(self._record_path(self._blocks)) as temporary, open(temporary, "wb") as record:
            np.savez(
                record,
                indices=np.asarray(indices, dtype=np.int64),
                place=np.array([shard, first], dtype=np.int64),
                digest=np.array(_digest(indices, features)),
            )
        self._blocks += 1
        self._add(indices, shard, first)

    # -- files ----------------------------------------------------------------------------------------------------

    def _open(self, print_line: Callable[[str], None]) -> None:
        """Read the records; drop the first damaged block and all blocks after it."""
        while self._record_path(self._blocks).is_file():
            path = self._record_path(self._blocks)
            try:
                self._read(path)
            except Exception as error:  # NumPy and zip raise many kinds
                print_line(
                    f"{path}: the block is damaged ({error or type(error).__name__}): its features and all later "
                    "ones are computed again"
                )
                for later in self.folder.glob(_RECORD.replace("{:06}", "*")):
                    if later.name >= path.name:
                        later.unlink()
                return
            self._blocks += 1

    def _read(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as record:
            indices, (shard, first), digest = record["indices"], record["place"].tolist(), str(record["digest"])
        if not 0 <= shard <= len(self._rows_in) or first != (self._rows_in[shard] if shard < len(self._rows_in) else 0):
            raise ValueError("its rows do not follow those of the previous block")
        if indices.ndim != 1 or len(indices) == 0 or indices.min() < 0 or indices.max() >= len(self._shard_of):
            raise ValueError("it names images that the source does not have")
        rows = np.memmap(
            self._shard_path(shard), dtype="<f4", mode="r", offset=4 * self.width * first,
            shape=(len(indices), self.width),
        )  # fmt: skip
        _check(self._shard_path(shard), first, indices, rows, digest)
        if shard == len(self._rows_in):
            self._rows_in.append(0)
        self._add(indices, shard, first)

    def _add(self, indices: np.ndarray, shard: int, first: int) -> None:
        self._shard_of[indices] = shard
        self._row_of[indices] = np.arange(first, first + len(indices))
        self._rows_in[shard] = first + len(indices)
        self._mapped.pop(shard, None)  # it has grown

    def _shard(self, shard: int) -> np.ndarray:
        if shard not in self._mapped:
            shape = (self._rows_in[shard], self.width)
            self._mapped[shard] = np.memmap(self._shard_path(shard), dtype="<f4", mode="r", shape=shape)
        return self._mapped[shard]

    def _shard_path(self, shard: int) -> Path:
        return self.folder / f"features-{shard:05}.f32"

    def _record_path(self, block: int) -> Path:
        return self.folder / _RECORD.format(block)


def fill(
    table: FeatureTable,
    indices: np.ndarray,
    batches: Callable[[np.ndarray], Iterable[np.ndarray]],
    batch_size: int,
    advance: Callable[[int], object] = lambda number: None,
) -> int:
    """Compute and store the features that are missing, block by block; return their number.

    Args:
        table: table to which features are added.
        indices: int64 [n], images whose features are required.
        batches: source indices -> their features in order, float32 [b, *shape] each.
        batch_size: batch size of ``batches``. A block is a whole number of batches, so that a resumed extraction forms
            the same batches as an uninterrupted one.
        advance: called with the number of images after each block.
    """
    missing = table.missing(indices)
    size = max(1, table.block_rows // batch_size) * batch_size
    for first in range(0, len(missing), size):
        block = missing[first : first + size]
        table.append(block, np.concatenate(list(batches(block))))
        advance(len(block))
    return len(missing)


def _check(shard: Path, first: int, indices: np.ndarray, rows: np.ndarray, digest: str) -> None:
    """Check the digest of a block, unless this process has checked it and the shard has not changed since.

    Raises:
        ValueError: the digest differs.
    """
    status, path = os.stat(shard), os.path.abspath(shard)
    signature = (status.st_ino, status.st_size, status.st_mtime_ns)
    if _checked.get(path, (None,))[0] != signature:
        _checked[path] = (signature, set())
    block = (first, hashlib.sha256(indices.tobytes()).digest(), digest)
    blocks = _checked[path][1]
    if block in blocks:
        return
    if _digest(indices, rows) != digest:
        raise ValueError("its digest differs")
    if time.time() - status.st_mtime > _SETTLED:
        blocks.add(block)


def _digest(indices: np.ndarray, features: np.ndarray) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(indices, dtype="<i8").tobytes())
    digest.update(np.ascontiguousarray(features).data.cast("B"))
    return digest.hexdigest()


def _write_at(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
