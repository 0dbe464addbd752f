"""Fetching and unpacking published archives: only with a known checksum, never outside the folder meant for them."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock

from ltr.errors import DataError

BLOCK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        url: where it is.
        md5: its published checksum; None where none is known, and then it is not fetched.
        holds: file or folder at its top by which it is recognised as unpacked.
        max_bytes: refuse more than this when unpacked.
        max_files: refuse more files than this.
    """

    url: str
    md5: str | None
    holds: str
    max_bytes: int = 64 * 2**30
    max_files: int = 1_000_000

    @property
    def file(self) -> str:
        """The archive's own name."""
        return self.url.partition("?")[0].rpartition("/")[2]


def fetch(name: str, archive: Archive, into: Path) -> None:
    """Download ``archive`` into the folder ``into`` and unpack it there, unless it has been unpacked already.

    It is unpacked beside its place and renamed, so that ``into / archive.holds`` is either whole or absent. The archive
    itself is kept.

    Raises:
        DataError: no checksum is known, the download failed or has another checksum, or the archive is refused by
            `unpack`.
    """
    if (into / archive.holds).exists():
        return
    if archive.md5 is None:
        raise DataError(
            f"{name}: no checksum of {archive.url} is known, so it is not downloaded unchecked. Download it yourself "
            f"and unpack it, so that there is {into / archive.holds}"
        )
    try:
        into.mkdir(parents=True, exist_ok=True)
        with FileLock(into / f".{archive.file}.lock"):
            if (into / archive.holds).exists():  # another process did it while we waited
                return
            _download(archive, into)
            _unpack_beside(name, archive, into)
    except OSError as error:
        raise DataError(f"{name}: {archive.file} could not be unpacked in {into}: {error}") from error


def _download(archive: Archive, into: Path) -> None:
    from torchvision.datasets.utils import download_url

    try:
        download_url(archive.url, str(into), archive.file, archive.md5)
    except Exception as error:  # network and disk errors come in many types; all mean the same to the user
        raise DataError(
            f"{archive.file} could not be downloaded from {archive.url} to {into}: {error}. Try again, or download it "
            "yourself and unpack it there"
        ) from error


def _unpack_beside(name: str, archive: Archive, into: Path) -> None:
    beside = into / f".{archive.file}.unpacking"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        unpack(into / archive.file, beside, max_bytes=archive.max_bytes, max_files=archive.max_files)
        if not (beside / archive.holds).exists():
            raise DataError(f"{name}: {archive.file} does not hold {archive.holds}, so it is another archive")
        # what it is recognised by comes last
        for entry in sorted(beside.iterdir(), key=lambda path: path.name == archive.holds.split("/")[0]):
            if not (into / entry.name).exists():
                entry.rename(into / entry.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def unpack(file: Path, into: Path, *, max_bytes: int, max_files: int) -> None:
    """Unpack a tar or zip archive into the folder ``into``, which is made.

    Raises:
        DataError: the archive is damaged; an entry has an absolute path, leaves ``into``, or is a link or a device; or
            it holds more than ``max_files`` files or ``max_bytes`` bytes (what was unpacked until then stays).
        OSError: from writing.
    """
    into.mkdir(parents=True, exist_ok=True)
    files = written = 0
    try:
        for path, open_entry in _entries(file):
            target = _inside(file, into, path)
            if open_entry is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            files += 1
            if files > max_files:
                raise DataError(f"{file} is refused: it holds more than the {max_files:,} files that it may have")
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_entry() as content, target.open("wb") as output:
                while block := content.read(BLOCK):
                    written += len(block)
                    if written > max_bytes:
                        raise DataError(f"{file} is refused: unpacked it has more than {max_bytes / 2**30:,.1f} GiB")
                    output.write(block)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{file} is damaged or only half downloaded: {error}. Delete it and fetch it again") from error


Entry = tuple[str, Callable[[], IO[bytes]] | None]  # the path inside, and how to open it (None for a folder)


def _entries(file: Path) -> Iterator[Entry]:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise DataError(f"{file} is refused: {info.filename} is a link")
                yield info.filename, None if info.is_dir() else lambda info=info: archive.open(info)  # type: ignore[misc]
        return
    with tarfile.open(file) as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()):
                raise DataError(f"{file} is refused: {member.name} is a link or a device")
            yield member.name, None if member.isdir() else lambda member=member: tar.extractfile(member)  # type: ignore[misc]
            tar.members = []  # type: ignore[attr-defined]  # else all of millions of entries are kept


def _inside(file: Path, into: Path, path: str) -> Path:
    parts = path.replace("\\", "/").split("/")
    target = into / path
    if path.startswith(("/", "\\")) or ".." in parts or "\0" in path or ":" in parts[0]:
        raise DataError(f"{file} is refused: its entry {path!r} leaves the folder that it is unpacked in")
    if not Path(os.path.realpath(target)).is_relative_to(os.path.realpath(into)):
        raise DataError(f"{file} is refused: its entry {path!r} leaves the folder that it is unpacked in")
    return target
