"""Download and extraction of published archives, only with a known checksum and only inside the target folder."""

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
    """Published archive.

    Attributes:
        url: address of the download.
        md5: published checksum (hex); None if there is none, and the archive is then not downloaded.
        holds: top-level file or folder whose presence shows that the archive is unpacked.
        max_bytes: upper bound of the unpacked size in bytes.
        max_files: upper bound of the number of files.
    """

    url: str
    md5: str | None
    holds: str
    max_bytes: int = 64 * 2**30
    max_files: int = 1_000_000

    @property
    def file(self) -> str:
        """File name of the archive."""
        return self.url.partition("?")[0].rpartition("/")[2]


def fetch(name: str, archive: Archive, target: Path) -> None:
    """Download ``archive`` to the folder ``target`` and unpack it there, unless it is already unpacked.

    The archive is unpacked to a temporary folder that is then renamed, so that ``target / archive.holds`` is either
    complete or absent. The archive file is kept.

    Raises:
        DataError: no checksum is known, the download fails or has another checksum, or `unpack` refuses the archive.
    """
    from torchvision.datasets.utils import download_url

    if (target / archive.holds).exists():
        return
    if archive.md5 is None:
        raise DataError(
            f"{name}: no checksum of {archive.url} is known, so ltr does not download it. Download it yourself "
            f"and unpack it, so that there is {target / archive.holds}"
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        with FileLock(target / f".{archive.file}.lock"):
            if (target / archive.holds).exists():  # another process has unpacked it
                return
            download_by(
                f"{name}: {archive.file}",
                archive.url,
                target,
                lambda: download_url(archive.url, str(target), archive.file, archive.md5),
            )
            _unpack_beside(name, archive, target)
    except OSError as error:
        raise DataError(f"{name}: {archive.file} could not be unpacked in {target}: {error}") from error


def download_by(name: str, url: str, folder: Path, download: Callable[[], object]) -> None:
    """Call ``download``, which fills ``folder``; any error becomes a DataError with advice."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        download()
    except Exception as error:  # network, disk and archive errors have many types, but the advice is the same
        raise DataError(
            f"{name} could not be downloaded from {url} to {folder}: {error}. Try again, or put the official files "
            "there, unpacked, and leave dataset.download=false"
        ) from error


def _unpack_beside(name: str, archive: Archive, target: Path) -> None:
    unpacked = target / f".{archive.file}.unpacking"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        unpack(target / archive.file, unpacked, max_bytes=archive.max_bytes, max_files=archive.max_files)
        if not (unpacked / archive.holds).exists():
            raise DataError(f"{name}: {archive.file} does not hold {archive.holds}, so it is another archive")
        # `holds` comes last, because its presence marks the archive as unpacked
        for entry in sorted(unpacked.iterdir(), key=lambda path: path.name == archive.holds.split("/")[0]):
            if not (target / entry.name).exists():
                entry.rename(target / entry.name)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def unpack(file: Path, target: Path, *, max_bytes: int, max_files: int) -> None:
    """Unpack a tar or zip archive to the folder ``target``, which is created.

    Raises:
        DataError: the archive is damaged; an entry has an absolute path, leaves ``target``, or is a link or a device;
            or the archive holds more than ``max_files`` files or ``max_bytes`` bytes (files unpacked so far remain).
        OSError: writing fails.
    """
    target.mkdir(parents=True, exist_ok=True)
    files = written = 0
    try:
        for path, open_entry in _entries(file):
            entry_path = _inside(file, target, path)
            if open_entry is None:
                entry_path.mkdir(parents=True, exist_ok=True)
                continue
            files += 1
            if files > max_files:
                raise DataError(f"{file} is refused: it holds more than the {max_files:,} files that it may have")
            entry_path.parent.mkdir(parents=True, exist_ok=True)
            with open_entry() as content, entry_path.open("wb") as output:
                while block := content.read(BLOCK):
                    written += len(block)
                    if written > max_bytes:
                        raise DataError(f"{file} is refused: unpacked it has more than {max_bytes / 2**30:,.1f} GiB")
                    output.write(block)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{file} is damaged or only half downloaded: {error}. Delete it and fetch it again") from error


Entry = tuple[str, Callable[[], IO[bytes]] | None]  # path in the archive; function that opens it, or None for a folder


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
            tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps all of millions of entries


def _inside(file: Path, target: Path, path: str) -> Path:
    parts = path.replace("\\", "/").split("/")
    is_inside = not (path.startswith(("/", "\\")) or ".." in parts or "\0" in path or ":" in parts[0])
    if not is_inside or not Path(os.path.realpath(target / path)).is_relative_to(os.path.realpath(target)):
        raise DataError(f"{file} is refused: its entry {path!r} leaves the folder that it is unpacked in")
    return target / path
