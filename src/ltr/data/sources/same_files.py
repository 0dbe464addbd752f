"""Detection of files that a data set lists twice: under another spelling, through a link, or as a hard link."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator

import numpy as np

from ltr.data.source import ImageFiles
from ltr.errors import DataError

_SHOWN = 10


class ListedFiles:
    """Files of a data set by their identity on the disk, added folder by folder.

    Two rows are one file if the folders' real paths and the names agree, or if a link leads to the same real path. The
    table holds one integer per row and stores paths only for links, because data sets have millions of files.

    Args:
        files: paths as spelled in the data set.
        names: function that returns the name of a row inside its folder.
    """

    def __init__(self, files: ImageFiles, names: Callable[[int], bytes]) -> None:
        self._files = files
        self._name = names
        self._folders: dict[bytes, list[np.ndarray]] = {}  # rows by the folder's real path
        self._links: dict[bytes, dict[bytes, list[int]]] = {}  # rows by the real folder and name that they lead to
        self._inodes = np.zeros(len(files), dtype=np.uint64)

    def add_folder(self, real: bytes, rows: list[int], inodes: list[int]) -> None:
        """Add rows of one folder that are not links."""
        if rows:
            self._folders.setdefault(real, []).append(np.array(rows, dtype=np.int64))
            self._inodes[rows] = inodes

    def add_link(self, real: bytes, row: int) -> None:
        """Add a row that is a link to ``real``."""
        folder, name = os.path.split(real)
        self._links.setdefault(folder, {}).setdefault(name, []).append(row)

    def refuse_twice(self, name: str, where: Callable[[int], str]) -> None:
        """Raise DataError that names the first pairs of rows that are one file; warn of hard links.

        Args:
            where: function that returns the position of a row, for the message.
        """
        pairs = sorted((min(pair), max(pair)) for pair in self._pairs())
        if pairs:
            shown = [f"{self._spelled(one, where)} and {self._spelled(other, where)}" for one, other in pairs[:_SHOWN]]
            more = {1: "", 2: ", and so does another"}.get(len(pairs), f", and so do {len(pairs) - 1:,} others")
            raise DataError(
                f"{name}: an image appears twice{more}{' (the first ten)' if len(pairs) > _SHOWN else ''}:\n  "
                + "\n  ".join(shown)
                + "\nOther spellings "
                "and links of a path are the same file. Each may appear once: remove one of the two"
            )
        linked = [(one, other) for one, other in self._hard_links() if self._is_one_file(one, other)]
        if linked:
            one, other = linked[0]
            warnings.warn(
                f"{name}: {len(linked):,} image files are hard links of other image files, the same image twice: "
                f"{self._spelled(one, where)} and {self._spelled(other, where)}"
                f"{'' if len(linked) == 1 else ', ...'}. ltr-data check lists identical images",
                stacklevel=3,
            )

    def _pairs(self) -> Iterator[tuple[int, int]]:
        for real in {**self._folders, **self._links}:
            links = self._links.get(real, {})
            parts = self._folders.get(real, [])
            seen: dict[bytes, int] = {}
            for row in (row for part in parts for row in part.tolist()):
                first = seen.setdefault(self._name(row), row)
                if first != row:
                    yield first, row
            for name, rows in links.items():
                first = seen.get(name, rows[0])
                yield from ((first, row) for row in rows if row != first)

    def _hard_links(self) -> Iterator[tuple[int, int]]:
        """Yield pairs of rows with the same inode number, possibly on two disks."""
        order = np.argsort(self._inodes, kind="stable")
        ascending = self._inodes[order]
        for position in np.flatnonzero((ascending[1:] == ascending[:-1]) & (ascending[1:] != 0)).tolist():
            yield int(order[position]), int(order[position + 1])

    def _is_one_file(self, one: int, other: int) -> bool:
        try:
            return os.path.samefile(self._files.path(one), self._files.path(other))
        except OSError:
            return False

    def _spelled(self, row: int, where: Callable[[int], str]) -> str:
        position = where(row)
        return self._files.relative(row) + (f" ({position})" if position else "")


def no_position(row: int) -> str:
    """Return an empty position, for rows that are identified by their path."""
    return ""
