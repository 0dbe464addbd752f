"""Tables that are written batch by batch, as CSV or Parquet; a table exists only when it is complete."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ltr.apply.reading import Broken
from ltr.errors import ConfigError
from ltr.escaping import csv_cell
from ltr.files import written_atomically
from ltr.writing import check_file

FORMATS = (".csv", ".parquet")
Columns = Mapping[str, Sequence[str] | np.ndarray]


def checked_out(path: Path, flag: str = "--out") -> Path:
    """Return a path to which a table can be written.

    Raises:
        ConfigError: the path is a folder, or has another extension.
        LtrError: the folder is not writable.
    """
    typed = f"{flag} {path}"
    check_file(path, typed)
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{typed}: the name must end in {' or '.join(FORMATS)}, which says how to write it")
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
            name: pa.array(values) if isinstance(values, np.ndarray) else pa.array([_valid(value) for value in values])
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


def _valid(text: str) -> str:
    """Return a text as UTF-8, as Parquet needs; other bytes of a path are escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextmanager
def table(path: Path) -> Iterator[TableWriter]:
    """Open a table that appears at ``path`` once the block ends without an error; CSV or Parquet by its ending."""
    with written_atomically(path) as temporary:
        writer = TableWriter(temporary, path.suffix.lower() == ".csv")
        try:
            yield writer
        finally:
            writer.close()


def write_broken(path: Path, broken: Sequence[Broken]) -> bool:
    """Write ``path,reason`` of images that could not be read; without any, delete the file of an earlier run."""
    if not broken:
        path.unlink(missing_ok=True)
        return False
    with table(path) as writer:
        writer.write({"path": [row.path for row in broken], "reason": [row.reason for row in broken]})
    return True
