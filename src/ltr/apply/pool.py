"""Pools of unlabelled images: all images below a folder, or the rows of a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ltr.data.source import Decoding, ImageFiles
from ltr.data.sources.folder import SUFFIXES
from ltr.data.tables import read_columns
from ltr.errors import ConfigError, DataError
from ltr.escaping import csv_text
from ltr.files import PARQUET_SUFFIXES, TABLE_SUFFIXES, is_folder
from ltr.names import list_first

UPRIGHT = Decoding(exif=True)


def image_pool(path: Path, roots: Sequence[str] = ()) -> ImageFiles:
    """Return the images of a folder, in order of their paths, of a table, in order of its rows, or a single image.

    In a folder, hidden files and folders and files without an image's extension are skipped. A table (CSV in UTF-8 with
    a header, or Parquet) has a column ``path``; its other columns are ignored. Relative paths start from the table's
    folder. Files are not opened; their decoding is that of `UPRIGHT`.

    Args:
        roots: further folders in which images and the targets of links may lie.

    Raises:
        DataError: the path does not exist, has no image, or has images outside of the allowed folders.
        ConfigError: one of ``roots`` is not a folder.
    """
    base = path.expanduser().absolute()
    allowed = _real_folders(roots)
    if base.is_dir():
        return _folder(base, allowed)
    if not base.is_file():
        raise DataError(f"{path}: there is no such file. Give a folder of images, one image, or a table of images")
    if base.suffix.lower() in SUFFIXES:
        paths = [base.name]
    elif base.suffix.lower() in TABLE_SUFFIXES:
        paths = table_column(base, "path")
    else:
        raise DataError(
            f"{path} has the extension of neither an image nor a table. Give a folder of images, one image, or a table "
            f"({', '.join(TABLE_SUFFIXES)}) with a column path"
        )
    refuse_outside(base.parent, paths, roots)
    return ImageFiles.from_paths(base.parent, paths, decoding=UPRIGHT)


def _real_folders(roots: Sequence[str]) -> list[str]:
    """Return the real paths of ``roots``; raise ConfigError if one is not a folder."""
    folders = [os.path.realpath(os.path.expanduser(root)) for root in roots]
    for root, folder in zip(roots, folders):
        if not os.path.isdir(folder):
            raise ConfigError(f"--root {root}: there is no such folder. Give an existing one")
    return folders


def _folder(base: Path, allowed: Sequence[str]) -> ImageFiles:
    inside = [os.path.realpath(base), *allowed]
    outside: list[str] = []
    paths = sorted(_walk(str(base), inside, outside))
    _refuse(outside, base, allowed)
    if not paths:
        raise DataError(f"{base} has no image: no file in it ends in {', '.join(SUFFIXES)}. Give a folder of images")
    return ImageFiles.from_paths(base, paths, decoding=UPRIGHT)


def _walk(base: str, inside: Sequence[str], outside: list[str]) -> Iterator[str]:
    """Yield the paths of images below ``base``, relative to it; add links that lead outside to ``outside``."""
    folders = [""]
    visited = set()  # a link may lead back to a parent folder
    while folders:
        folder = folders.pop()
        real = os.path.realpath(os.path.join(base, folder))
        if real in visited:
            continue
        visited.add(real)
        try:
            scanned = os.scandir(os.path.join(base, folder))
        except OSError as error:
            raise DataError(f"{os.path.join(base, folder)} cannot be listed: {error.strerror}") from error
        with scanned:
            for entry in scanned:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink() and not _within(os.path.realpath(entry.path), inside):
                    outside.append(entry.path)
                elif is_folder(entry):
                    folders.append(os.path.join(folder, entry.name))
                elif entry.name.lower().endswith(SUFFIXES):  # also a broken link, which is unreadable later
                    yield os.path.join(folder, entry.name)


def _outside(base: Path, paths: Sequence[str], inside: Sequence[str]) -> list[str]:
    """Return the paths that lead out of the folders ``inside``; each folder is resolved once."""
    real: dict[str, str] = {}
    outside = []
    for path in paths:
        folder, name = os.path.split(os.path.join(base, path))
        if folder not in real:
            real[folder] = os.path.realpath(folder)
        whole = os.path.join(real[folder], name)
        if name in ("..", ".") or os.path.islink(whole):
            whole = os.path.realpath(whole)
        if not _within(whole, inside):
            outside.append(path)
    return outside


def _within(real: str, folders: Sequence[str]) -> bool:
    return any(real == folder or real.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def _refuse(outside: Sequence[str], base: Path, allowed: Sequence[str]) -> None:
    if outside:
        raise DataError(
            f"paths lead outside of {', '.join([str(base), *allowed])}: {list_first(list(outside))}. To allow their "
            "folder: --root FOLDER"
        )


def refuse_outside(base: Path, paths: Sequence[str], roots: Sequence[str]) -> None:
    """Refuse paths that lead out of ``base`` and ``roots``, also by links.

    Raises:
        DataError: names such paths.
        ConfigError: one of ``roots`` is not a folder.
    """
    allowed = _real_folders(roots)
    _refuse(_outside(base, paths, [os.path.realpath(base), *allowed]), base, allowed)


def table_column(table: Path, column: str) -> list[str]:
    """Return a column of a CSV or Parquet table as texts, see `ltr.data.tables.read_columns`.

    The apostrophe that ltr's CSV files have before text that resembles a formula is removed.

    Raises:
        DataError: the table cannot be read, lacks the column, has no rows, or an empty cell.
    """
    texts = read_columns(table, (column,)).texts[column]
    return texts if table.suffix.lower() in PARQUET_SUFFIXES else [csv_text(text) for text in texts]
