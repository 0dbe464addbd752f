"""Checks, before the work starts, that a command can write its outputs."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.errors import ConfigError, LtrError, TrainingError
from ltr.files import is_regular

_LONGEST = 255  # bytes of one name, on every usual file system
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)

# in the HTML files and figures of ltr, by which a later command knows that it may replace them
HTML_MARK = '<meta name="generator" content="ltr">'
PNG_SOFTWARE = "ltr"
_MARKS = (
    HTML_MARK.encode(),
    b"Software\0" + PNG_SOFTWARE.encode(),
    b"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src",  # reports of earlier versions
)
_HEAD = 4096  # bytes of a file that hold its mark, or the columns of a table


def check_file(path: Path, typed: str) -> Path:
    """Return ``path`` if a file can be written there; nothing is created.

    Args:
        typed: the argument as typed, such as ``--out table.csv``.

    Raises:
        ConfigError: the path is a folder, or another file that is not regular, such as a device.
        LtrError: the folder is not writable.
    """
    if os.path.isdir(path):
        raise ConfigError(f"{typed}: that is a folder; the name of a file is needed")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ConfigError(f"{typed} is not a regular file, and would be replaced. Give the name of a new file")
    _probe(path.parent, path, typed)
    return path


def check_folder(path: Path, typed: str) -> Path:
    """Return ``path`` if files can be written in this folder, which need not exist; nothing is created.

    Raises:
        ConfigError: the path or one of its parents is a file.
        LtrError: the folder is not writable.
    """
    _probe(path, path, typed)
    return path


def check_named_files(folder: Path, files: Mapping[str, Sequence[str]], typed: str) -> None:
    """Refuse to replace files that ltr did not write, where a command and not its user names the files of a folder.

    Args:
        folder: the folder, which need not exist.
        files: names of the files to write or to remove, and the columns of CSV tables; other files carry a mark.
        typed: the argument that names the folder, such as ``--out FOLDER``.

    Raises:
        ConfigError: names the file.
    """
    for name, columns in files.items():
        path = folder / name
        if os.path.lexists(path) and not _is_own(path, columns):
            raise ConfigError(
                f"{typed}: {path} was not written by this command, or was changed since, and would be replaced. Name "
                "another folder, or move the file"
            )


def _is_own(path: Path, columns: Sequence[str]) -> bool:
    if not is_regular(path):  # reading a pipe could block
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    if columns:
        return head.splitlines()[:1] == [",".join(columns).encode()]
    return any(mark in head for mark in _MARKS)


def _probe(folder: Path, path: Path, typed: str) -> None:
    existing = Path(os.path.abspath(folder))
    if any(len(os.fsencode(part)) > _LONGEST for part in path.parts):
        raise ConfigError(f"{typed}: a name in it is longer than {_LONGEST} bytes. Give a shorter one")
    if path.parts[:1] and path.parts[0].startswith("~") and not os.path.lexists(path.parts[0]):
        # as in --out=~/tables: a shell expands it only at the beginning of a word
        raise ConfigError(
            f"{typed}: the shell did not expand '{path.parts[0]}', and there is no folder of this name. Write "
            f"{os.path.expanduser(path)}, or use $HOME"
        )
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not os.path.isdir(existing):
        kind = "a file" if os.path.isfile(existing) else "a broken link" if os.path.islink(existing) else "not a folder"
        raise ConfigError(f"{typed}: a folder is needed, and {existing} is {kind}")
    try:
        opened, name = tempfile.mkstemp(prefix=".ltr-", dir=existing)
        os.close(opened)
        os.unlink(name)
    except OSError as error:
        key = typed.partition("=")[0] if "=" in typed else typed.partition(" ")[0]
        raise LtrError(
            f"{typed}: nothing can be written in {existing} ({error.strerror}). Set {key} to a writable folder"
        ) from error


def check_outputs(paths: Mapping[str, Any], directory: Path) -> None:
    """Raise unless a run can write its directory and its stages (see `check_folder`).

    Args:
        paths: the config ``paths``.
        directory: the run directory, below ``paths.outputs``.
    """
    check_folder(directory, f"paths.outputs={paths['outputs']}")
    check_folder(Path(paths["stages"]), f"paths.stages={paths['stages']}")


def disk_trouble(error: OSError, what: str, paths: Mapping[str, Any]) -> TrainingError | None:
    """Return the error for a file of a run that cannot be written or has disappeared; None for other files.

    Args:
        what: the interrupted work, for the message.
        paths: the config ``paths``.
    """
    name = error.filename if isinstance(error.filename, (str, os.PathLike)) else None
    keys = [key for key in ("stages", "outputs") if name is not None and _lies_in(Path(name), Path(paths[key]))]
    if not keys and (name is not None or error.errno not in (*_FULL, *_FORBIDDEN, errno.EIO)):
        return None
    key = f"paths.{keys[0]}" if keys else "paths.outputs (and paths.stages)"
    reason = f"{error.strerror or error}" + (f": {name}" if name is not None else "")
    if error.errno in _GONE:
        advice = "Another process removed or renamed it"
    elif error.errno in _FULL:
        advice = f"Free some space, or set {key} elsewhere"
    else:
        advice = f"Check that disk, or set {key} to a writable folder"
    return TrainingError(
        f"{what}: a file could not be written: {reason}. {advice}; the same command resumes from the saved state"
    )


def _lies_in(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
