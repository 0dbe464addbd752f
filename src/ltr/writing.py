"""Checks that a command can write its outputs, made before the work."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltr.errors import ConfigError, LtrError, TrainingError

_LONGEST = 255  # bytes of one name, on every usual file system
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


def check_file(path: Path, typed: str) -> Path:
    """Return ``path`` if a file can be written there; nothing is made.

    Args:
        typed: how the command names it, such as ``--out table.csv``.

    Raises:
        ConfigError: a folder, or something that is not a regular file (writing would replace a device).
        LtrError: nothing can be written there.
    """
    if os.path.isdir(path):
        raise ConfigError(f"{typed}: that is a folder; the name of a file is needed")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ConfigError(f"{typed}: that is not a regular file, and it would be replaced. Give the name of a new file")
    _probe(path.parent, path, typed)
    return path


def check_folder(path: Path, typed: str) -> Path:
    """Return ``path`` if files can be written in this folder, which need not exist yet; nothing is made.

    Raises:
        ConfigError: a file is in its place.
        LtrError: nothing can be written there.
    """
    _probe(path, path, typed)
    return path


def _probe(folder: Path, path: Path, typed: str) -> None:
    existing = Path(os.path.abspath(folder))
    if any(len(os.fsencode(part)) > _LONGEST for part in path.parts):
        raise ConfigError(f"{typed}: a name in it is longer than {_LONGEST} bytes. Give a shorter one")
    if path.parts[:1] and path.parts[0].startswith("~") and not os.path.lexists(path.parts[0]):
        # as in --out=~/tables: a shell replaces it only where a word begins with it
        raise ConfigError(
            f"{typed}: the shell left '{path.parts[0]}' as it is, and there is no folder of this name. Write "
            f"{os.path.expanduser(path)}, or with $HOME in its place"
        )
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not os.path.isdir(existing):
        what = (
            "a file"
            if os.path.isfile(existing)
            else "a link that leads nowhere"
            if os.path.islink(existing)
            else "none"
        )
        raise ConfigError(f"{typed}: a folder is needed, and {existing} is {what}")
    try:
        opened, name = tempfile.mkstemp(prefix=".ltr-", dir=existing)
        os.close(opened)
        os.unlink(name)
    except OSError as error:
        key = typed.partition("=")[0] if "=" in typed else typed.partition(" ")[0]
        raise LtrError(
            f"{typed}: nothing can be written in {existing} ({error.strerror}). "
            f"Set {key} to a place that can be written"
        ) from error


def check_outputs(paths: Mapping[str, Any], directory: Path) -> None:
    """Raise unless a run can write its directory and its stages (see `check_folder`).

    Args:
        paths: the config ``paths``.
        directory: the run's, below ``paths.outputs``.
    """
    check_folder(directory, f"paths.outputs={paths['outputs']}")
    check_folder(Path(paths["stages"]), f"paths.stages={paths['stages']}")


def disk_trouble(error: OSError, what: str, paths: Mapping[str, Any]) -> TrainingError | None:
    """Return the error for a run's file that could not be written, or is gone; None for other files.

    Args:
        what: the work at the time.
        paths: the config ``paths``.
    """
    name = error.filename if isinstance(error.filename, (str, os.PathLike)) else None
    keys = [key for key in ("stages", "outputs") if name is not None and _lies_in(Path(name), Path(paths[key]))]
    if not keys and (name is not None or error.errno not in (*_FULL, *_FORBIDDEN, errno.EIO)):
        return None
    key = f"paths.{keys[0]}" if keys else "paths.outputs (and paths.stages)"
    reason = f"{error.strerror or error}" + (f": {name}" if name is not None else "")
    if error.errno in _GONE:
        advice = "Something removed or renamed it while the run was running"
    elif error.errno in _FULL:
        advice = f"Free some space, or set {key} elsewhere"
    else:
        advice = f"Look at that disk, or set {key} to a place that can be written"
    return TrainingError(
        f"{what}: a file could not be written: {reason}. {advice}; the same command continues from what is saved"
    )


def _lies_in(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
