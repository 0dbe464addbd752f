"""Tables that are written batch by batch, as CSV or Parquet; the file appears when the table is complete."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ltr.apply.reading import UnreadableImage
from ltr.errors import ConfigError
from ltr.escaping import csv_cell, utf8
from ltr.files import written_atomically
from ltr.writing import check_file

FORMATS = (".csv", ".parquet")
BROKEN_COLUMNS = ("path", "reason")
Columns = Mapping[str, Sequence[str] | np.ndarray]


def check_table_path(path: Path, flag: str = "--out") -> Path:
    """Return ``path`` if a table can be written there.

    Raises:
        ConfigError: the path is a folder, or has another extension.
        LtrError: the folder is not writable.
    """
    typed = f"{flag} {path}"
    check_file(path, typed)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{typed}: the name must end in {' or '.join(FORMATS)}, which chooses the format")
    return path


class TableWriter:
    """Writer of a table, one batch of columns at a time."""

    def __init__(self, path: Path, is_csv: bool) -> None:
        self._path = path
        self._csv: Any = None
        self._file: Any = None
        self._parquet: Any = None
        self._is_csv = is_csv

    def write(self, columns: Columns) -> None:
        """Add rows. Every call has the same columns: sequences of texts, or numeric arrays [n]."""
        if self._is_csv:
            self._write_csv(columns)
        else:
            self._write_parquet(columns)

    def close(self) -> None:
        for opened in (self._file, self._parquet):
            if opened is not None:
                opened.close()

    def _write_csv(self, columns: Columns) -> None:
        if self._csv is None:
            # closed by `close`
            self._file = open(self._path, "w", newline="", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
            self._csv = csv.writer(self._file)
            self._csv.writerow([csv_cell(name) for name in columns])
        self._csv.writerows(zip(*(_cells(values) for values in columns.values())))

    def _write_parquet(self, columns: Columns) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        arrays = {
            name: pa.array(values if isinstance(values, np.ndarray) else list(map(utf8, values)))
            for name, values in columns.items()
        }
        table = pa.table(arrays)
        if self._parquet is None:
            self._parquet = parquet.ParquetWriter(self._path, table.schema)
        self._parquet.write_table(table)


def _cells(values: Sequence[str] | np.ndarray) -> Sequence[Any]:
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return [f"{value:.6g}" for value in values.tolist()]
    return values.tolist() if isinstance(values, np.ndarray) else [csv_cell(value) for value in values]


@contextmanager
def open_table(path: Path) -> Iterator[TableWriter]:
    """Open a table, CSV or Parquet by its extension; it appears at ``path`` if the block ends without an error."""
    with written_atomically(path) as temporary:
        writer = TableWriter(temporary, path.suffix.lower() == ".csv")
        try:
            yield writer
        finally:
            writer.close()


def broken_table(out: Path) -> Path:
    """Return the path of the list of unreadable images beside a table of predictions."""
    return out.with_name(f"{out.stem}.broken.csv")


def write_broken(path: Path, broken: Sequence[UnreadableImage]) -> bool:
    """Write ``path,reason`` of unreadable images and return True; without any, delete the file of an earlier run."""
    if not broken:
        path.unlink(missing_ok=True)
        return False
    with open_table(path) as writer:
        writer.write(dict(zip(BROKEN_COLUMNS, ([row.path for row in broken], [row.reason for row in broken]))))
    return True
