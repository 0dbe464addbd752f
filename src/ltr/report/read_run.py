"""Reader of a run directory, without torch, Lightning and Hydra."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ltr.errors import DataError
from ltr.results import AGAIN, provenance_mistakes, read_json, read_result_file

# kinds of values in the columns of parquet files, see `_has_kind`
_KINDS = {
    **dict.fromkeys(("class_id", "train_count", "n", "id", "label", "prediction"), "whole"),
    **dict.fromkeys(("accuracy", "average_precision"), "number"),
    **dict.fromkeys(("class_name", "group", "variant", "scorer"), "text"),
    "scores": "list",
}
_PER_CLASS_COLUMNS = ("class_id", "class_name", "train_count", "group", "n", "accuracy")


@dataclass(frozen=True)
class Run:
    """Finished run; its files are read on first access.

    Attributes:
        path: the run directory.
        result: content of ``result.json``.
    """

    path: Path
    result: dict[str, Any]

    @cached_property
    def per_class(self) -> dict[str, np.ndarray]:
        """Columns [C] of ``per_class.parquet`` for the headline row's variant, split and scorer.

        Raises:
            DataError: the file is missing or damaged, lacks a column, or does not hold the headline row.
        """
        keys = ("variant", "split", "scorer")
        return read_rows(self.path / "per_class.parquet", _PER_CLASS_COLUMNS, self.headline, keys)

    @cached_property
    def curves(self) -> dict[str, np.ndarray]:
        """Columns of ``metrics.csv``: ``stage`` is str, others float64 with NaN for blanks; {} without trained stages.

        Raises:
            DataError: the file is damaged.
        """
        path = self.path / "metrics.csv"
        return read_metrics(path) if path.is_file() else {}

    @cached_property
    def predictions(self) -> dict[str, np.ndarray]:
        """Columns [N] of ``predictions.parquet`` for the headline variant; lists are object arrays.

        Raises:
            DataError: the file is missing or damaged, or lacks a column.
        """
        return read_parquet(self.path / "predictions.parquet", ("id", "label", "prediction", "scores"))

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Content of ``provenance.json``: commit, versions, device, precision.

        Raises:
            DataError: the file is missing or damaged.
        """
        path = self.path / "provenance.json"
        provenance = read_json(path)
        mistakes = provenance_mistakes(provenance)
        if mistakes:
            raise DataError(f"{path} is damaged: {'; '.join(mistakes)}. {AGAIN}")
        return provenance

    @property
    def headline(self) -> dict[str, Any]:
        """The row of ``result.json`` that the config declares as the run's result."""
        return headline_row(self.result)

    @property
    def title(self) -> str:
        return run_title(self.result)


def read_run(path: str | Path) -> Run:
    """Open a run directory.

    Raises:
        DataError: the folder or its ``result.json`` is missing (not a run, or unfinished) or cannot be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"There is no run directory {folder}. Give the folder that ltr-train printed.")
    file = folder / "result.json"
    if not file.is_file():
        if (folder / "config.yaml").is_file():
            raise DataError(f"The run in {folder} has no result.json, so it has not finished. Repeat its command")
        raise DataError(
            f"{folder} is not a run directory: it has neither result.json nor config.yaml. Give the folder that "
            "ltr-train printed, such as outputs/digits_lt/erm/erm-s0-1a2b3c4d."
        )
    return Run(folder, read_result_file(file))


def read_parquet(path: Path, needed: Iterable[str]) -> dict[str, np.ndarray]:
    """Return all columns of a parquet file as numpy arrays.

    Raises:
        DataError: the file is missing or damaged, or lacks one of the columns ``needed``.
    """
    import pyarrow.parquet

    if not path.is_file():
        raise DataError(f"{path} is missing. {AGAIN}")
    try:
        table = pyarrow.parquet.read_table(path)
        columns = {name: table[name].to_numpy() for name in table.column_names}
    except (OSError, ValueError, TypeError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read, it may be half-written ({error}). {AGAIN}") from error
    missing_columns = [name for name in needed if name not in columns]
    if missing_columns:
        raise DataError(f"{path} lacks the columns {', '.join(missing_columns)}. {AGAIN}")
    for name, column in columns.items():
        if not _has_kind(column, _KINDS.get(name, "")):
            raise DataError(f"{path}: the column {name} does not hold what runs write there. {AGAIN}")
    return columns


def read_rows(path: Path, needed: Iterable[str], row: Mapping[str, Any], keys: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the columns of a parquet file for one row of ``result.json``.

    Args:
        needed: names of the required columns.
        row: the row; the file's rows must have its values.
        keys: columns to compare; those that the file or the row lacks are not compared.

    Raises:
        DataError: the file is missing or damaged, lacks a column, or has no such rows.
    """
    table = read_parquet(path, needed)
    for key in keys:
        if key in table and row.get(key) is not None:
            is_chosen = table[key] == row[key]
            if not is_chosen.any():
                raise DataError(f"{path} has no rows of the {key} {row[key]!r}. {AGAIN}")
            table = {name: column[is_chosen] for name, column in table.items()}
    return table


def _has_kind(column: np.ndarray, kind: str) -> bool:
    """Return whether a column holds a kind of values: integers, numbers, text, or non-empty lists of numbers."""
    if kind == "whole":
        return column.dtype.kind in "iu"
    if kind == "number":
        return column.dtype.kind in "iuf"
    if kind == "text":
        return all(isinstance(value, str) for value in column)
    if kind == "list":
        return all(isinstance(value, np.ndarray) and len(value) and value.dtype.kind in "iuf" for value in column)
    return True


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a ``metrics.csv``; see `Run.curves`.

    Raises:
        DataError: a line of another length than the header, or a cell that is not a number.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}). {AGAIN}") from error
    if len(lines) < 2:
        return {}
    header, rows = lines[0], lines[1:]
    if "stage" not in header or "epoch" not in header:
        raise DataError(f"{path} has no columns stage and epoch. {AGAIN}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(f"{path}, line {number}: {len(row)} cells under {len(header)} columns. {AGAIN}")
    columns: dict[str, np.ndarray] = {}
    for name, cells in zip(header, zip(*rows)):
        try:
            columns[name] = np.array(cells) if name == "stage" else np.array([float(cell or "nan") for cell in cells])
        except ValueError as error:
            raise DataError(f"{path}, column {name}: {error}. {AGAIN}") from error
    return columns


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an ``.npz`` file of ``artifacts/``; {} if the file does not exist.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # numpy and zipfile raise errors of many types for damaged files
        raise DataError(
            f"{path} is damaged and cannot be read. Repeat the run's command with resume=never, which writes it again."
        ) from error


def headline_row(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row marked as headline, or the first row without a mark."""
    return next((row for row in result["rows"] if row["headline"]), result["rows"][0])


def validation_value(result: Mapping[str, Any], metric: str | None = None) -> float | None:
    """Return a metric of the headline's variant on validation images, by which sweeps compare runs.

    It is None if the split has no validation images, because the test set never selects, or if there is nothing to
    average.

    Args:
        metric: name of the metric; None: the one that selects checkpoints.
    """
    headline = headline_row(result)
    shared_keys = ("protocol", "variant", "scorer", "checkpoint")
    for row in result["rows"]:
        if row["split"] == "val" and all(row.get(key) == headline.get(key) for key in shared_keys):
            return row["metrics"].get(metric or result.get("metric", "balanced_accuracy"))
    return None


def run_title(result: dict[str, Any]) -> str:
    """Return method, data set and seed in one line."""
    config = result["config"]
    method = config.get("method.name") or str(config.get("method._target_", "?")).rsplit(".", 1)[-1]
    return f"{method} · {config.get('dataset.name', '?')} · seed {config.get('seed', '?')}"


def number(value: float | None) -> float:
    """Return a metric as float; NaN for null (nothing to average) and for infinite values."""
    return float(value) if value is not None and math.isfinite(value) else math.nan
