"""Finished runs below a folder, reduced to the content of tables; reads ten thousand runs in seconds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ltr.errors import DataError
from ltr.escaping import name as short_name
from ltr.report.read_run import read_parquet, read_run

# where things lie and how they are shown: no setting that runs are compared by
_NO_SETTING = (
    "seed",
    "name",
    "figures",
    "resume",
    "stages",
    "compile",
    "callbacks.",
    "logger.",
    "checkpoint.",
    "paths.",
    "hydra.",
    "debug",
    "dataset.split.",
    "dataset.source.",
    "dataset.download",
    "trainer.num_workers",
    "trainer.log_every",
    "trainer.check_files",
    "trainer.profiler",
    "trainer.devices",
    "evaluation.batch_size",
)


_DATA = "data.fingerprint"  # a run's setting where several fingerprints occur among runs that are alike else


@dataclass(frozen=True)
class Finished:
    """A finished run, read from its ``result.json`` alone.

    Attributes:
        path: the run directory.
        config: flat; runs of one group share the object of the first, so ``seed`` stands apart.
        seed: of the run.
        group: its identity without the seed.
        run_hash: its identity.
        data: split, digest and numbers of images.
        stages: name, seconds and status of each.
        rows: of the test split, and of all splits where a run evaluated several values of one number.
        metric: the one that selects.
        declared_metrics: of protocols that are not ltr's own, see `ltr.evaluation.metrics.Metric.to_dict`.
    """

    path: Path
    config: dict[str, Any]
    seed: int
    group: str
    run_hash: str
    data: dict[str, Any]
    stages: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    metric: str
    declared_metrics: tuple[dict[str, Any], ...] = ()

    def table(self, stem: str, row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Return columns of ``per_class.parquet`` or ``predictions.parquet`` for one row of the result.

        Args:
            stem: ``per_class`` or ``predictions``; those of a second protocol lie in a file that is named after it.
            row: whose variant and scorer are taken.
            columns: that are needed.

        Raises:
            DataError: the file is missing or damaged, lacks a column, or has nothing of this variant.
        """
        first = next((one["protocol"] for one in self.rows if one["headline"]), row["protocol"])
        own = "" if row["protocol"] == first else f"_{row['protocol']}"
        path = self.path / f"{stem}{own}.parquet"
        table = read_parquet(path, columns)
        for key in ("variant", "scorer"):
            if key in table and row.get(key) is not None:
                chosen = table[key] == row[key]
                if not chosen.any():
                    raise DataError(f"{path} has no rows of the {key} {row[key]!r}")
                table = {name: values[chosen] for name, values in table.items()}
        return table


@dataclass
class FoundRuns:
    """Finished runs below some folders, and the folders that were left out.

    Attributes:
        runs: finished runs, each once, in order of their paths.
        unfinished: number of run directories without a result.
        damaged: messages about unreadable results.
        twice: number of runs stored in two places; the first is used.
    """

    runs: list[Finished] = field(default_factory=list)
    unfinished: int = 0
    damaged: list[str] = field(default_factory=list)
    twice: int = 0


def finished_runs(folders: Sequence[Path]) -> FoundRuns:
    """Read all finished runs at or below these folders.

    Raises:
        DataError: a folder is not there, or no finished run is.
    """
    collection = FoundRuns()
    configs: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder. Give the folder of runs, outputs where none was set")
        for path in _run_directories(folder, collection):
            try:
                run = _reduced(path, configs)
            except DataError as error:
                collection.damaged.append(str(error))
                continue
            if run.run_hash in seen:
                collection.twice += 1
                continue
            seen.add(run.run_hash)
            collection.runs.append(run)
    collection.runs = _split_by_data(collection.runs)
    if not collection.runs:
        more = f"; {collection.unfinished} are unfinished" if collection.unfinished else ""
        more += (
            f"; {len(collection.damaged)} cannot be read, the first: {collection.damaged[0]}"
            if collection.damaged
            else ""
        )
        raise DataError(f"no finished run (result.json) below {', '.join(map(str, folders))}{more}")
    return collection


def _split_by_data(runs: list[Finished]) -> list[Finished]:
    """Separate runs whose labels or files changed between two seeds into groups of their own."""
    groups = groups_by_data([(run.group, run.data, run.config) for run in runs])
    return [
        run
        if run.group == group
        else replace(run, group=group, config={**run.config, _DATA: str(run.data.get("fingerprint"))[:8]})
        for run, group in zip(runs, groups)
    ]


def _run_directories(folder: Path, collection: FoundRuns) -> Iterator[Path]:
    """Return folders with a result, in order, and the number of folders with a configuration but no result."""
    waiting = [(str(folder), True)]
    listed: set[tuple[int, int]] = set()  # a link may lead back to a folder above it
    while waiting:
        here, is_top = waiting.pop()
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in listed:
                continue
            listed.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            if is_top:
                raise DataError(f"{here} cannot be listed: {error.strerror}") from error
            collection.damaged.append(f"{here} cannot be listed: {error.strerror}.")
            continue
        names = {entry.name for entry in entries}
        if "result.json" in names:
            yield Path(here)
            continue
        if "config.yaml" in names:
            collection.unfinished += 1
            continue
        # the store of stages and what sweeps and ltr-eval leave lie beside the data sets' folders
        skipped = {"stages", "sweeps", "evaluations"} if is_top else set()
        below = [e.path for e in entries if not e.name.startswith(".") and e.name not in skipped and _is_folder(e)]
        waiting += [(path, False) for path in reversed(below)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _reduced(path: Path, configs: dict[str, dict[str, Any]]) -> Finished:
    result = read_run(path).result
    config = result["config"]
    seed = config.get("seed", 0)
    group = result.get("group_hash") or _digest({key: value for key, value in config.items() if key != "seed"})
    rows = result["rows"]
    values = any("=" in str(row.get("variant", "")) for row in rows)
    return Finished(
        path,
        configs.setdefault(group + config.get(_DATA, ""), config),
        seed if isinstance(seed, int) else 0,
        group,
        result.get("run_hash") or _digest([group, seed, str(path)]),
        result.get("data") or {},
        result.get("stages") or [],
        rows if values else [row for row in rows if row["split"] != "val"],
        result.get("metric") or "balanced_accuracy",
        tuple(result["declared_metrics"]),
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def groups_by_data(
    runs: Sequence[tuple[str, Mapping[str, Any] | None, Mapping[str, Any]]],
) -> list[str]:
    """Return the key of runs that may be averaged: the group hash, unless their data differ.

    Args:
        runs: of each its group hash, and ``data`` and ``config`` of its result. A run whose directory's usual name was
            taken by one on other data says so in its configuration; a run of an older version knows no fingerprint.

    Returns:
        A name for each run's group; the group hash itself where a group knows of one fingerprint at most.
    """
    known: dict[str, set[str]] = {}
    for group, data, config in runs:
        fingerprint = (data or {}).get("fingerprint")
        known.setdefault(group, set()).update(
            [fingerprint] if fingerprint else [], ["earlier"] if _DATA in config else []
        )
    return [
        group if len(known[group]) < 2 else _digest([group, (data or {}).get("fingerprint")]) for group, data, _ in runs
    ]


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a flat configuration that determine results; not name, seed or paths."""
    return {key: value for key, value in config.items() if not key.startswith(_NO_SETTING)}


def shown_value(value: Any) -> str:
    """Return a setting's value in short form: the last part of an import path, lists without spaces."""
    if isinstance(value, str) and value.startswith("ltr."):
        return short_name(value.rsplit(".", 1)[-1])
    if isinstance(value, (list, tuple, dict)):
        return short_name(json.dumps(value, separators=(",", ":")))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else short_name(value)
