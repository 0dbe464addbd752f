"""Files of a run directory, the folder with everything about one run."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ltr.configuration.configs import leaves, without_private
from ltr.files import write_csv, write_json, write_text, written_atomically
from ltr.results import SCHEMA_VERSION, read_result_file
from ltr.runs.keys import group_hash, run_hash

if TYPE_CHECKING:
    import pyarrow as pa

    from ltr.data.split import Split
    from ltr.runs.evaluation.network import ProtocolResult

FIRST_COLUMNS = ("stage", "epoch", "step", "lr", "train/loss", "train/accuracy", "images_per_second")
RESULT = "result.json"
PROVENANCE = "provenance.json"
FINAL = "final.ckpt"  # in checkpoints/
# files of every run's directory: those written before the first stage, and those written at the end
AT_THE_START = ("config.yaml", "overrides.yaml", "split.npz")
AT_THE_END = ("metrics.csv", PROVENANCE, "status.json", RESULT)


def run_directory(config: Mapping[str, Any]) -> Path:
    """Return ``<outputs>/<dataset>/<method>/<name>-s<seed>-<hash>``: the same command always has the same folder."""
    last = f"{config['name']}-s{config['seed']}-{run_hash(config)[:8]}"
    return Path(config["paths"]["outputs"]) / config["dataset"]["name"] / config["method"]["name"] / last


def read_result(directory: Path) -> dict[str, Any] | None:
    """Return the finished result in a run directory, or None.

    Raises:
        DataError: the file exists and cannot be read, or is damaged.
    """
    path = directory / RESULT
    if not path.is_file():
        return None
    return read_result_file(path)


@dataclass(frozen=True)
class Outcome:
    """Result of a finished run; ``result`` is None if the command only printed its plan."""

    directory: Path
    result: dict[str, Any] | None
    reused: bool = False  # True if an earlier run wrote the result


def write_start(directory: Path, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Write the files that are complete before training: the resolved configuration and the command's overrides."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "config.yaml", yaml.safe_dump(without_private(config), sort_keys=False))
    write_text(directory / "overrides.yaml", yaml.safe_dump(list(overrides)))
    write_status(directory, "running")


def write_status(directory: Path, status: str) -> None:
    """Write ``running | preempted | failed | finished`` to ``status.json``, for schedulers and people."""
    write_json(directory / "status.json", {"status": status})


def result_rows(
    evaluated: Iterable[ProtocolResult], *, split: str, checkpoint: str, selection: str
) -> list[dict[str, Any]]:
    """Return rows of ``result.json``; only the selected weights on the test split can be the headline."""
    return [
        {
            "protocol": one.protocol,
            "split": split,
            "checkpoint": checkpoint,
            "selection": selection,
            "variant": one.variant,
            "scorer": one.scorer,
            "headline": one.headline and split == "test",
            "metrics": dict(one.result.metrics),
        }
        for one in evaluated
    ]


def data_entry(
    split: Split, fingerprint: str, metadata: Mapping[str, str], files: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the entry ``data`` of ``result.json``.

    Args:
        split: the evaluated split.
        fingerprint: that of its source.
        metadata: `ltr.data.source.Source.metadata_digests` of its source.
        files: digests of the files that the configuration names, see `ltr.runs.named_files.named_files`.
    """
    return {
        "fingerprint": fingerprint,
        "metadata": dict(metadata),
        **({"files": dict(files)} if files else {}),
        "split": split.name,
        "split_digest": split.digest(),
        "val_rule": split.val_rule,
        "classes": split.num_classes,
        **{f"{part}_images": len(getattr(split, part)) for part in ("train", "val", "test", "unknown")},
    }


def write_tables(directory: Path, evaluated: Sequence[ProtocolResult], class_names: Sequence[str]) -> None:
    """Write the tables and curves of the evaluation on the test split.

    ``per_class.parquet`` (all variants) and ``predictions.parquet`` (the headline) are those of the first protocol;
    the files of another protocol are named after it, as in ``per_class_open_set.parquet``. The points of curves go to
    ``artifacts/<protocol>_<variant>_<scorer>.npz``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables: dict[str, list[pa.Table]] = {}
    for one in evaluated:
        suffix = "" if one.protocol == evaluated[0].protocol else f"_{one.protocol}"
        names = np.asarray(class_names, dtype=object)
        if one.result.per_class:
            # a protocol may exclude classes (the background), so class_id identifies the rows
            columns = {**one.result.per_class, "class_name": names[one.result.per_class["class_id"]]}
            tables.setdefault(f"per_class{suffix}", []).append(_table(one, columns))
        if one.result.predictions:
            tables.setdefault(f"predictions{suffix}", []).append(_table(one, one.result.predictions))
        curves = getattr(one.result, "curves", None)
        if curves:
            parts = (one.protocol, one.variant, one.scorer)
            write_arrays(directory / "artifacts" / ("_".join(filter(None, parts)) + ".npz"), curves)
    for name, variant_tables in tables.items():
        with written_atomically(directory / f"{name}.parquet") as temporary:
            pq.write_table(pa.concat_tables(variant_tables), temporary)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as ``.npz`` without pickles, atomically; missing folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _table(evaluated: ProtocolResult, columns: Mapping[str, np.ndarray]) -> pa.Table:
    import pyarrow as pa

    length = len(next(iter(columns.values())))
    arrays = {"variant": pa.array([evaluated.variant] * length)}
    if evaluated.scorer is not None:
        arrays["scorer"] = pa.array([evaluated.scorer] * length)
    for name, values in columns.items():
        arrays[name] = pa.array(list(values)) if np.ndim(values) == 2 else pa.array(values)
    return pa.table(arrays)


def write_curve(directory: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``curve.csv`` if the variants are values of one number (``tau=0.35``): number, split and all metrics."""
    curve = []
    for row in rows:
        name, equals, value = row["variant"].partition("=")
        if equals:
            curve.append({name: value, "split": row["split"], "headline": int(row["headline"]), **row["metrics"]})
    if curve:
        write_csv(directory / "curve.csv", curve, tuple(curve[0]))


def write_metrics(directory: Path, stage_files: Iterable[Path]) -> None:
    """Write ``metrics.csv``: the epochs of all stages, one after another."""
    rows: list[dict[str, Any]] = []
    for path in stage_files:
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                rows += list(csv.DictReader(file))
    write_csv(directory / "metrics.csv", rows, FIRST_COLUMNS)


def write_result(
    directory: Path,
    config: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any],
    metric: str,
    declared: Sequence[Mapping[str, Any]] = (),
    precision: str | None = None,
) -> dict[str, Any]:
    """Write ``result.json``, the last file of a run: its presence means that the run is finished.

    Args:
        rows: rows of the evaluation, the headline first.
        metric: name of the metric that selects weights and that a sweep maximises.
        precision: precision of the computation, ``bf16 | fp16 | fp32``, which ``trainer.precision=auto`` does not tell.
        declared: metrics of protocols from outside ltr, see `ltr.evaluation.metrics.Metric.to_dict`.
    """
    flat = {
        key: value
        for key, value in leaves(without_private(config))
        if not key.startswith(("paths.", "hydra.")) and not key.endswith(".root")
    }
    result = {
        "schema_version": SCHEMA_VERSION,
        "config": flat,
        "run_hash": run_hash(config),
        "group_hash": group_hash(config),
        "data": dict(data),
        "metric": metric,
        "stages": [dict(stage) for stage in stages],
        "rows": [dict(row) for row in rows],
        **({"precision": precision} if precision else {}),
        **({"declared_metrics": [dict(one) for one in declared]} if declared else {}),
    }
    write_json(directory / RESULT, result)
    return json.loads((directory / RESULT).read_text(encoding="utf-8"))
