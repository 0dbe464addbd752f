"""Atomic writes: files are written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ltr.errors import CheckpointError, LtrError
from ltr.escaping import csv_cell

PARQUET_SUFFIXES = (".parquet", ".pq")
TABLE_SUFFIXES = (".csv", ".tsv", *PARQUET_SUFFIXES)
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".bin", ".th", ".t7")
WEIGHTS_SUFFIXES = (".safetensors", *TORCH_SUFFIXES)


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; if the block succeeds, it is fsynced and renamed to ``path``.

    If the block fails, the temporary file is removed and ``path`` stays unchanged.
    """
    if os.path.lexists(path) and not os.path.isfile(path) and not os.path.islink(path):
        raise LtrError(f"{path} is not a regular file, and would be replaced. Give the name of a new file")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, atomically. NaN and infinities become null: JSON has neither."""
    write_text(path, json.dumps(_finite(value), indent=2, sort_keys=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def read_json(path: Path) -> Any:
    """Return the content of a JSON file that a user or another program wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError, RecursionError: it is not JSON in UTF-8, or an object has a key twice, of which one would be lost.
    """
    return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return content


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], first: Iterable[str] = ()) -> None:
    """Write rows as CSV, atomically: columns ``first``, then the others in order of appearance; missing cells blank."""
    rows = list(rows)
    columns = list(dict.fromkeys([*first, *(key for row in rows for key in row)]))
    with written_atomically(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([csv_cell(column) for column in columns])
        writer.writerows([csv_cell(row.get(column, "")) for column in columns] for row in rows)


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is a regular file, or a link to one; reading a pipe or a device could block."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):  # no such file, a loop of links, a null byte
        return False


def is_folder(entry: os.DirEntry[Any]) -> bool:
    """Return whether a listed entry is a folder, or a link to one; False for a loop of links."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[Any]) -> bool:
    """Return whether a listed entry is a regular file, or a link to one; False for a loop of links."""
    try:
        return entry.is_file()
    except OSError:
        return False


def file_digest(path: Path) -> str:
    """Return the SHA-256 in hex of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, destination: Path) -> None:
    """Make ``destination`` a hard link to ``source``, or a copy if the file system has no hard links."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)


# evaluation uses the first of these weights that exists in the run's folder checkpoints/
EVALUATED = ("best.ckpt", "final.ckpt")


def checkpoint_file(path: Path) -> Path:
    """Return the weights file of a path: the evaluated one of a run directory, or the file itself.

    Raises:
        CheckpointError: there is no weights file.
    """
    candidates = [path / "checkpoints" / name for name in EVALUATED] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise CheckpointError(
        f"{path} is neither a run directory with checkpoints/final.ckpt nor a checkpoint file. Give a finished run"
    )
