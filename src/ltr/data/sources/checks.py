"""Shared checks of image-file sources: folders, files, published counts, and their error messages."""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from ltr.configuration.quoting import quoted
from ltr.data.source import ImageFiles
from ltr.data.sources.same_files import ListedFiles, no_position
from ltr.errors import DataError
from ltr.files import is_file, is_regular
from ltr.names import canonical, list_first

MOST_SHOWN = 10
PARTIAL = "this is not the whole published data set"


def dataset_folder(root: str, folder: str) -> Path:
    """Return the absolute path of ``folder`` in ``root``; an absolute ``folder`` ignores ``root``."""
    return (Path(root).expanduser() / Path(folder).expanduser()).absolute()


def require(
    name: str, folder: Path, wanted: Sequence[str], instructions: str = "", key: str = "folder", holds: str = ""
) -> None:
    """Raise DataError with advice unless ``folder`` has all of ``wanted``.

    Args:
        name: name of the data set, for the message.
        folder: folder of the data set.
        wanted: required files and folders, relative to ``folder``.
        instructions: how to get the data set; the message always explains the search path.
        key: key of the dataset config that names ``folder``.
        holds: content that ``paths.data`` must have, for configs without a key for the folder.
    """
    missing = [entry for entry in wanted if not (folder / entry).is_dir() and not is_regular(folder / entry)]
    if not missing:
        return
    reason = f"it lacks {', '.join(missing)}" if folder.is_dir() else "there is no such folder"
    raise DataError(
        f"{name} was not found: looked for {', '.join(wanted)} in {folder}, but {reason}.\n"
        f"What to do: {instructions + '; or ' if instructions else ''}say where the data are, by paths.data=FOLDER or "
        f"the environment variable LTR_DATA (the folder that holds {holds or f'dataset.{key}'})"
        + ("" if holds else f", or by dataset.{key}=FOLDER")
    )


def warn_if_partial(
    name: str, parts: Mapping[str, range], published: Mapping[str, int], num_classes: int | None = None
) -> None:
    """Warn that results are not comparable if the numbers of images or classes differ from the published ones.

    Args:
        parts: rows of each part.
        published: published numbers, by name of the part or ``classes``.
        num_classes: number of classes; None: it is not compared.
    """
    counts = {part: len(rows) for part, rows in parts.items()} | {"classes": num_classes or 0}
    different = [
        f"{counts.get(key, 0):,} of {expected:,} ({key})"
        for key, expected in published.items()
        if counts.get(key) != expected
    ]
    if different:
        warnings.warn(
            f"{name}: {PARTIAL}, it has {'; '.join(different)}. Results cannot be compared with published ones",
            stacklevel=3,
        )


def read_lines(name: str, file: Path) -> list[str]:
    """Read the non-blank lines of a text file.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    if not is_regular(file):
        what = "not a regular file" if file.exists() else "not there"
        raise DataError(f"{name}: {file} cannot be read: it is {what}; a text file is needed")
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{name}: {file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: {file} is not a text file in UTF-8: {error}. Fetch it again") from error


def read_table(name: str, file: Path, columns: Sequence[str], separator: str | None = None) -> list[list[str]]:
    """Read the rows of a text file with columns; the last column may contain the separator.

    Args:
        columns: names of the columns, for the message.
        separator: None: any white space.

    Raises:
        DataError: a line has fewer columns.
    """
    rows = [line.strip().split(separator, len(columns) - 1) for line in read_lines(name, file)]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise DataError(
                f"{name}: line {number} of {file} has {len(row)} columns, but '{' '.join(columns)}' is expected: "
                f"{' '.join(row)!r}. Fetch the file again"
            )
    return rows


def read_mapping(name: str, file: Path, columns: Sequence[str]) -> dict[str, str]:
    """Read a text file of lines ``id value`` as a mapping.

    Raises:
        DataError: a line has no value, or an id is repeated.
    """
    rows = read_table(name, file, columns)
    mapping = {row[0]: row[1] for row in rows}
    if len(mapping) != len(rows):
        refuse_duplicates(name, f"{columns[0]} of {file}", [row[0] for row in rows])
    return mapping


def refuse_duplicates(name: str, what: str, entries: Iterable[object]) -> None:
    """Raise DataError that names the first ten repeated entries, if there are any."""
    seen: set[object] = set()
    twice = [entry for entry in entries if entry in seen or seen.add(entry)]  # type: ignore[func-returns-value]
    if twice:
        raise DataError(f"{name}: {what} appears twice: {list_first(list(dict.fromkeys(twice)))}. Each may appear once")


def refuse_empty(name: str, labels: np.ndarray, entries: Sequence[object], where: str) -> None:
    """Raise DataError that names the classes without a training image, if there are any.

    Args:
        labels: labels of the training images.
        entries: name of each class in the message.
        where: file or folder that was read.
    """
    empty = np.flatnonzero(np.bincount(labels, minlength=len(entries)) == 0)
    if empty.size:
        named = list_first([entries[label] for label in empty.tolist()])
        raise DataError(
            f"{name}: classes without a training image in {where}: {named}. "
            "Every class needs one; fetch the files again"
        )


def require_same_ids(
    name: str, file: Path, ids: Mapping[str, object], other_file: Path, other_ids: Mapping[str, object]
) -> None:
    """Raise DataError unless two files have the same ids."""
    missing = [key for key in ids if key not in other_ids]
    more = [key for key in other_ids if key not in ids]
    for lacking, holding, keys in ((other_file, file, missing), (file, other_file, more)):
        if keys:
            raise DataError(
                f"{name}: {lacking} lacks {len(keys):,} ids that {holding} has: {list_first(keys)}. One of the two is "
                "cut off or of another data set; fetch them again"
            )


def require_same_names(
    name: str, file: Path, names: Mapping[int, str], other: Path, other_names: Mapping[int, str]
) -> None:
    """Raise DataError if two files give one id different names: a label would mean different classes.

    Args:
        names, other_names: names in the files by id. Ids in only one of them are ignored.
    """
    contradictions = [
        f"{number} is {names[number]!r} in {file.name} and {other_names[number]!r} in {other.name}"
        for number in names
        if number in other_names and canonical(names[number]) != canonical(other_names[number])
    ]
    if contradictions:
        raise DataError(
            f"{name}: {file} and {other} contradict each other, by class id: {list_first(contradictions)}. Both must "
            "be of one data set and one year; fetch them again"
        )


def to_number(name: str, what: str, text: str) -> int:
    """Convert ``text`` to a whole number; if it is not one, raise DataError that names ``what``."""
    try:
        return int(text)
    except ValueError as error:
        raise DataError(f"{name}: {what} is {text!r}, but a whole number is expected") from error


def check_image_files(
    name: str,
    files: ImageFiles,
    *,
    named_in: str,
    roots: Sequence[str] = (),
    sizes: bool = False,
    where: Callable[[int], str] = no_position,
    missing_rows: list[int] | None = None,
) -> ImageFiles:
    """Check that each file exists, is listed once, and lies in its root or one of ``roots`` (links resolved).

    Each folder is listed once. Only links, and all files if ``sizes`` is set, take a system call each.

    Args:
        named_in: name of the list of the files, for the message.
        roots: further folders that may contain the files.
        sizes: True reads the file sizes, in bytes, which become part of the fingerprint.
        where: function that returns the position of a row in the list, for the message.
        missing_rows: receives the rows of missing files, in order, instead of an error.

    Returns:
        The files, with sizes if ``sizes`` is set.

    Raises:
        DataError: files are missing, repeated or outside; the message has their number and the first ten.
    """
    allowed = [os.path.realpath(os.fsencode(os.path.expanduser(root))) for root in (files.root, *roots)]
    missing: list[int] = []
    outside: list[int] = []
    file_sizes = np.zeros(len(files), dtype=np.int64) if sizes else None
    folder_of, folders, cuts = _folders(files)
    listed = ListedFiles(files, lambda row: files.blob[cuts[row] : files.offsets[row + 1]])
    order = np.argsort(folder_of, kind="stable")
    stops = np.cumsum(np.bincount(folder_of, minlength=len(folders)))
    for folder, rows in zip(folders, np.split(order, stops[:-1]) if folders else []):
        path = os.path.join(os.fsencode(files.root), folder)
        real = _real(path)
        if not _lies_in(real, allowed):
            outside += rows.tolist()
            continue
        assert real is not None
        entries = _listing(name, path)
        plain, inodes = [], []
        for row in rows.tolist():
            entry = entries.get(files.blob[cuts[row] : files.offsets[row + 1]])
            if entry is None or not is_file(entry):
                missing.append(row)
                continue
            if entry.is_symlink():
                target = _real(entry.path)
                if not _lies_in(target, allowed):
                    outside.append(row)
                    continue
                listed.add_link(target or b"", row)
            else:
                plain.append(row)
                inodes.append(entry.inode())
            if file_sizes is not None:
                file_sizes[row] = entry.stat().st_size
        listed.add_folder(real, plain, inodes)
    if missing_rows is None or len(missing) == len(files):
        _refuse_missing(name, files, missing, named_in, where)
    else:
        missing_rows += sorted(missing)
    _refuse_outside(name, files, outside, named_in, allowed, where)
    listed.refuse_twice(name, where)
    return ImageFiles(files.root, files.blob, files.offsets, file_sizes, files.decoding)


def _folders(files: ImageFiles) -> tuple[np.ndarray, list[bytes], np.ndarray]:
    """Return the folder number of each file, the folders, and the offset of each file's base name in the blob."""
    numbers: dict[bytes, int] = {}
    folder_of = np.empty(len(files), dtype=np.int32)
    cuts = np.empty(len(files), dtype=np.int64)
    blob = files.blob
    for row, (start, stop) in enumerate(pairwise(files.offsets.data)):
        cut = blob.rfind(b"/", start, stop) + 1 or start
        folder_of[row] = numbers.setdefault(blob[start:cut], len(numbers))
        cuts[row] = cut
    return folder_of, list(numbers), cuts


def _real(path: bytes) -> bytes | None:
    try:
        return os.path.realpath(path)
    except ValueError:  # the path contains a zero byte
        return None


def _lies_in(real: bytes | None, allowed: Sequence[bytes]) -> bool:
    return real is not None and any(real == root or real.startswith(root.rstrip(b"/") + b"/") for root in allowed)


def _listing(name: str, folder: bytes) -> dict[bytes, os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DataError(f"{name}: the folder {os.fsdecode(folder)} cannot be listed: {error.strerror}") from error


def _refuse_missing(
    name: str, files: ImageFiles, missing: list[int], named_in: str, where: Callable[[int], str]
) -> None:
    if not missing:
        return
    paths = [files.path(row) + _in_brackets(where(row)) for row in sorted(missing)[:MOST_SHOWN]]
    hint = f"Paths start from {files.root}; is it the right folder?" if len(missing) == len(files) else ""
    if any("\\" in files.relative(row) for row in missing[:MOST_SHOWN]):
        hint += f"{' ' if hint else ''}Paths have backslashes; write them with /."
    raise DataError(
        f"{name}: {len(missing):,} of {len(files):,} image files named in {named_in} are missing or not regular files"
        f"{', the first ten' if len(missing) > MOST_SHOWN else ''}:\n  " + "\n  ".join(paths) + f"\n{hint}"
        f"{' ' if hint else ''}Unpack the images again, or remove the lines"
    )


def _in_brackets(position: str) -> str:
    return f" ({position})" if position else ""


def _refuse_outside(
    name: str,
    files: ImageFiles,
    outside: list[int],
    named_in: str,
    allowed: Sequence[bytes],
    where: Callable[[int], str],
) -> None:
    if not outside:
        return
    paths = [files.path(row).replace("\0", "\\0") + _in_brackets(where(row)) for row in sorted(outside)[:MOST_SHOWN]]
    raise DataError(
        f"{name}: {len(outside):,} of {len(files):,} image files named in {named_in} lie outside "
        f"{', '.join(os.fsdecode(root) for root in allowed)} (links followed):\n  "
        + "\n  ".join(paths)
        + "\n"
        + name_roots(_real_folders(path for path in map(files.path, outside) if "\0" not in path))
    )


def _real_folders(paths: Iterable[str]) -> set[str]:
    """Return the folders of files, links resolved; each folder is resolved once."""
    real_path = functools.cache(os.path.realpath)
    return {
        os.path.dirname(os.path.realpath(path)) if os.path.islink(path) else real_path(os.path.dirname(path))
        for path in paths
    }


def name_roots(outside: Iterable[str]) -> str:
    """Return the advice to allow the common folder of files or folders outside the data set's.

    Args:
        outside: absolute paths, links resolved; of files or of their folders.
    """
    folders = {path if os.path.isdir(path) else os.path.dirname(path) for path in outside}
    common = os.path.commonpath(folders) if folders else os.sep
    is_plain = re.fullmatch(r"[\w./+-]+", common) is not None
    entry = "FOLDER" if common == os.sep else common if is_plain else quoted(common)
    return f"If that is intended, name the folder: dataset.roots=[{entry}]"
