"""Digests of the files that decide labels and parts, so that a packed file is not used with other ones."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.errors import ConfigError, DataError
from ltr.files import file_digest, is_regular

KEYS = ("file", "labels", "annotations", "detections", "split_list", "lists")
_LISTS = ("train", "val", "test", "open")  # keys of the files in the folder ``lists``
_SHOWN = 3


def label_digests(config: Mapping[str, Any]) -> dict[str, list[str | None]]:
    """Return the SHA-256 in hex of the files that a source's config names, by key; None for a file that is absent.

    A key that is null has no files. ``labels`` replaces ``file``, and both are one entry, named ``file``. Folders of
    images are not covered: reading them would take as long as packing.
    """
    return {key: [_digest(path) for path in paths] for key, (_, paths) in _label_files(config).items()}


def check_label_files(
    packed: str, stored: Mapping[str, Sequence[str | None]] | None, config: Mapping[str, Any]
) -> None:
    """Compare the files that a source's config names with those that a packed file was made from.

    Args:
        packed: path of the packed file.
        stored: its digests, see `label_digests`; None: it was made by a version that stored none.
        config: the source's config.

    Raises:
        ConfigError: a file has another content, or only one of the two has a file.
    """
    named = _label_files(config)
    shown = {key: f"dataset.{written}={_names(paths)}" for key, (written, paths) in named.items()}
    if stored is None:
        keys = [f"dataset.{written}" for written, paths in named.values() if paths]
        if keys:
            warnings.warn(
                f"the packed file {packed} was made by an earlier version, which kept no digest of "
                f"{', '.join(keys)}: labels and parts are those of the time of packing, and later changes cannot be "
                "detected. Delete it and make it again by ltr-data pack with the same options",
                stacklevel=4,
            )
        return
    digests = label_digests(config)
    mistakes, unverified = [], []
    for key in {**stored, **digests}:
        before, now = stored.get(key, ()), digests.get(key, ())
        if before and now and not any(now):
            unverified.append(shown[key])
            continue
        if len(before) != len(now):
            configured = shown[key] if now else f"dataset.{key} is null"
            mistakes.append(f"{configured}: the file was made {_from_files(len(before))}")
            continue
        differing = [n for n, (old, new) in enumerate(zip(before, now)) if old and new and old != new]
        if differing:
            written, paths = named[key]
            mistakes.append(
                f"dataset.{written}: {_names([paths[n] for n in differing])} has another content than the file that "
                "was packed"
            )
        elif any(old and not new for old, new in zip(before, now)):
            unverified.append(shown[key])
    if mistakes:
        raise ConfigError(
            f"dataset.packed={packed} was made from other labels or parts:\n  " + "\n  ".join(mistakes) + "\nPack "
            "again, name the files that it was made from, or use dataset.packed=null"
        )
    if unverified:
        warnings.warn(
            f"dataset.packed={packed}: {', '.join(unverified)}: not on this machine, so it is not compared with what "
            "was packed. Labels and parts are those of the time of packing",
            stacklevel=4,
        )


def _label_files(config: Mapping[str, Any]) -> dict[str, tuple[str, list[Path]]]:
    """Return, by key, the key that is in effect and the files that it names."""
    files: dict[str, tuple[str, list[Path]]] = {}
    if "file" in config or "labels" in config:
        written = "file" if config.get("labels") is None else "labels"
        files["file"] = written, _paths(config.get(written))
    for key in ("annotations", "detections", "split_list"):
        if key in config:
            files[key] = key, _paths(config[key])
    if "lists" in config:
        folder = Path(str(config.get("root") or ".")).expanduser() / Path(str(config["lists"] or ".")).expanduser()
        files["lists"] = "lists", [folder / path for key in _LISTS for path in _paths(config.get(key))]
    return files


def _paths(value: Any) -> list[Path]:
    entries = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    return [Path(str(entry)).expanduser() for entry in entries]


def _digest(path: Path) -> str | None:
    """Return the digest of a file, or of the tables of a Camtrap DP package; None if one of them is absent."""
    if path.is_dir() or path.name == "datapackage.json":
        from ltr.data.annotations.camtrap_dp import open_package

        try:
            tables = open_package("", path).tables
        except DataError:
            return None
        return hashlib.sha256(repr([(name, _digest(tables[name])) for name in sorted(tables)]).encode()).hexdigest()
    return file_digest(path) if is_regular(path) else None


def _names(paths: Sequence[Path]) -> str:
    shown = ",".join(map(str, paths[:_SHOWN])) + (",..." if len(paths) > _SHOWN else "")
    return shown if len(paths) == 1 else f"[{shown}]"


def _from_files(number: int) -> str:
    return {0: "without one", 1: "from one file"}.get(number, f"from {number} files")
