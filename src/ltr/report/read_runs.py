"""Reader of all finished runs below some folders; it keeps only what tables show."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ltr.configuration.structure import TAKEN_NAMES
from ltr.errors import DataError
from ltr.escaping import name as short_name
from ltr.files import is_folder
from ltr.report.ignored_settings import is_ignored
from ltr.report.read_run import read_rows, read_run

_PRECISION_KEY = "trainer.precision"
_FINGERPRINT_KEY = "data.fingerprint"  # setting of runs that differ from others only in the fingerprint of their data


@dataclass(frozen=True)
class FinishedRun:
    """Finished run, read only from its ``result.json``.

    Attributes:
        path: the run directory.
        config: flat configuration, shared by all runs of a group; its seed is that of the first run.
        seed: seed of the run.
        group: group hash, the identity without the seed.
        run_hash: identity of the run.
        data: name and digest of the split, and numbers of images.
        stages: name, seconds and status of each stage.
        rows: result rows of the test split; of all splits if the run evaluated several values of a parameter.
        metric: name of the metric that selects checkpoints.
        declared_metrics: metrics of a user's own protocols, see `ltr.evaluation.metrics.Metric.to_dict`.
        precision: precision of the computation, which ``trainer.precision=auto`` does not tell; None: unknown.
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
    precision: str | None = None

    def as_result(self) -> dict[str, Any]:
        """Return the entries of ``result.json`` that `groups_by_data` reads."""
        return {"group_hash": self.group, "data": self.data, "config": self.config, "precision": self.precision}

    def table(self, stem: str, row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Return columns of ``per_class.parquet`` or ``predictions.parquet`` for one row of the result.

        Args:
            stem: ``per_class`` or ``predictions``; further protocols have files named ``<stem>_<protocol>``.
            row: result row that selects the variant and scorer.
            columns: names of the required columns.

        Raises:
            DataError: the file is missing or damaged, lacks a column, or has no rows of this variant.
        """
        headline_protocol = next((entry["protocol"] for entry in self.rows if entry["headline"]), row["protocol"])
        suffix = "" if row["protocol"] == headline_protocol else f"_{row['protocol']}"
        return read_rows(self.path / f"{stem}{suffix}.parquet", columns, row, ("variant", "scorer"))


@dataclass
class RunCollection:
    """Finished runs below some folders, and counts of what was left out.

    Attributes:
        runs: finished runs without duplicates, in order of their paths.
        unfinished: number of run directories without a result.
        damaged: messages about unreadable results.
        duplicates: number of further copies of these runs.
    """

    runs: list[FinishedRun] = field(default_factory=list)
    unfinished: int = 0
    damaged: list[str] = field(default_factory=list)
    duplicates: int = 0


def finished_runs(folders: Sequence[Path]) -> RunCollection:
    """Read all finished runs at or below these folders.

    Raises:
        DataError: a folder is missing, or there is no finished run.
    """
    collection = RunCollection()
    configs: dict[str, dict[str, Any]] = {}
    seen: set[tuple[object, ...]] = set()
    for folder in folders:
        if not folder.is_dir():
            raise DataError(
                f"{folder}: there is no such folder. Give the folder of runs (paths.outputs, outputs by default), or "
                "train the first: ltr-train"
            )
        for path in _run_directories(folder, collection):
            try:
                run = _read_finished_run(path, configs)
            except DataError as error:
                collection.damaged.append(str(error))
                continue
            identity = (run.run_hash, *_identity_beside_hash(run.as_result()).values())
            if identity in seen:
                collection.duplicates += 1
                continue
            seen.add(identity)
            collection.runs.append(run)
    collection.runs = _each_seed_once(_split_by_data(collection.runs), collection)
    if not collection.runs:
        details = f"; {collection.unfinished} are unfinished" if collection.unfinished else ""
        if damaged := collection.damaged:
            details += f"; {len(damaged)} cannot be read, the first: {damaged[0]}"
        raise DataError(f"no finished run (result.json) below {', '.join(map(str, folders))}{details}")
    return collection


def _each_seed_once(runs: Sequence[FinishedRun], collection: RunCollection) -> list[FinishedRun]:
    """Return the first run of each seed of a group; warn of a later one with other results."""
    kept: dict[tuple[str, int], FinishedRun] = {}
    for run in runs:
        first = kept.setdefault((run.group, run.seed), run)
        if first is run:
            continue
        collection.duplicates += 1
        if first.rows != run.rows:
            warnings.warn(
                f"{first.path} and {run.path} have the same settings and seed and different results; only the first "
                "counts. Name one of them, or another seed",
                stacklevel=3,
            )
    return list(kept.values())


def _split_by_data(runs: list[FinishedRun]) -> list[FinishedRun]:
    """Assign runs of a group on different data to different groups: labels or files may change between seeds."""
    groups = groups_by_data([run.as_result() for run in runs])
    return [
        run if run.group == group else replace(run, group=group, config={**run.config, **_data_settings(run)})
        for run, group in zip(runs, groups)
    ]


def _data_settings(run: FinishedRun) -> dict[str, str]:
    """Return settings that tell runs on different data or files, or in different precision, apart in labels."""
    data = run.data
    digests = {
        f"{kind}.{key}": digest[:8] for kind in ("metadata", "files") for key, digest in (data.get(kind) or {}).items()
    }
    precision = {_PRECISION_KEY: run.precision} if run.precision else {}
    return {_FINGERPRINT_KEY: str(data.get("fingerprint"))[:8], **digests, **precision}


def _run_directories(folder: Path, collection: RunCollection) -> Iterator[Path]:
    """Yield folders with a result, in order; count folders with a configuration but no result in ``collection``."""
    queue = [(str(folder), True)]
    visited: set[tuple[int, int]] = set()  # a link may lead back to a parent folder
    while queue:
        directory, is_top = queue.pop()
        try:
            status = os.stat(directory)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError as error:
            if is_top:
                raise DataError(f"{directory} cannot be listed: {error.strerror}") from error
            collection.damaged.append(f"{directory} cannot be listed: {error.strerror}.")
            continue
        names = {entry.name for entry in entries}
        if "result.json" in names:
            yield Path(directory)
            continue
        if "config.yaml" in names:
            collection.unfinished += 1
            continue
        # the stage cache and the outputs of other commands are next to the folders of the data sets
        skipped = set(TAKEN_NAMES) if is_top else set()
        subfolders = [e.path for e in entries if not e.name.startswith(".") and e.name not in skipped and is_folder(e)]
        queue += [(path, False) for path in reversed(subfolders)]


def _read_finished_run(path: Path, configs: dict[str, dict[str, Any]]) -> FinishedRun:
    result = read_run(path).result
    config = result["config"]
    seed = config.get("seed", 0)
    group = result.get("group_hash") or _digest({key: value for key, value in config.items() if key != "seed"})
    rows = result["rows"]
    has_values = any("=" in str(row.get("variant", "")) for row in rows)
    return FinishedRun(
        path,
        configs.setdefault(group + config.get(_FINGERPRINT_KEY, ""), config),
        seed if isinstance(seed, int) else 0,
        group,
        result.get("run_hash") or _digest([group, seed, str(path)]),
        result.get("data") or {},
        result.get("stages") or [],
        rows if has_values else [row for row in rows if row["split"] != "val"],
        result.get("metric") or "balanced_accuracy",
        tuple(result["declared_metrics"]),
        result.get("precision"),
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def groups_by_data(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the group key of each result, by which runs are averaged: the group hash, unless data differ in a group.

    Runs in another precision, which ``trainer.precision=auto`` chooses by the machine, are other groups as well.

    Args:
        results: ``group_hash``, ``data``, ``config`` and ``precision`` of each ``result.json``. The configuration holds
            the fingerprint if the usual run directory was in use by a run on other data. Runs of older versions have
            no fingerprint, no precision, and no digests of the data's metadata and of the files that they name.
    """
    known: dict[str, dict[str, set[str]]] = {}
    identities = [_identity_beside_hash(result) for result in results]
    for result, identity in zip(results, identities):
        of_group = known.setdefault(str(result.get("group_hash")), {})
        for kind, digest in identity.items():
            of_group.setdefault(kind, set()).update([digest] if digest else [])
        of_group["fingerprint"].update(["earlier"] if _FINGERPRINT_KEY in (result.get("config") or {}) else [])
    keys = []
    for result, identity in zip(results, identities):
        group = str(result.get("group_hash"))
        differing = [kind for kind in identity if len(known[group][kind]) > 1]
        named = [identity[kind] for kind in identity if kind == "fingerprint" or kind in differing]
        keys.append(_digest([group, *named]) if differing else group)
    return keys


def _identity_beside_hash(result: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what a run's hash leaves out: its data, their metadata, the files that its config names, its precision."""
    data = result.get("data") or {}
    files, metadata = data.get("files"), data.get("metadata")
    return {
        "fingerprint": data.get("fingerprint"),
        "files": _digest(files) if files else None,
        "metadata": None if metadata is None else _digest(metadata),
        "precision": result.get("precision"),
    }


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a flat configuration that determine results, without name, seed and paths."""
    unread = ("trainer.ema_warmup",) if config.get("trainer.ema_decay") is None else ()
    return {key: value for key, value in config.items() if key not in unread and not is_ignored(key)}


def settings_without_trial(config: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return name and settings, without trial, as the key of runs that are averaged over the trials of a data set."""
    named = settings(config) | {"name": config.get("name")}
    return tuple(sorted((key, str(value)) for key, value in named.items() if not key.endswith(".trial")))


def shown_value(value: Any) -> str:
    """Return the value of a setting in short form: the last part of an import path, lists without spaces."""
    if isinstance(value, str) and value.startswith("ltr."):
        return short_name(value.rsplit(".", 1)[-1])
    if isinstance(value, (list, tuple, dict)):
        return short_name(json.dumps(value, separators=(",", ":")))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else short_name(value)
