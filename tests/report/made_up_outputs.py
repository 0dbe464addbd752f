"""Folders of finished runs with made-up numbers, as ltr-report reads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from made_up_runs import row

METRICS = {"accuracy": 0.5, "many": 0.7, "medium": 0.5, "few": 0.2, "balanced_accuracy": 0.5, "nll": 1.5, "ece": 0.1}


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write(
    outputs: Path,
    method: str = "erm",
    seed: int = 0,
    *,
    metrics: dict[str, float | None] | None = None,
    config: dict[str, Any] | None = None,
    rows: list[dict[str, Any]] | None = None,
    split: str = "cifar10-exp100-cao",
    stages: list[dict[str, Any]] | None = None,
    **row_changes: Any,
) -> Path:
    """Write one finished run and return its directory."""
    whole = {
        "method.name": method,
        "method._target_": f"ltr.methods.{method}.Method",
        "loss._target_": "ltr.losses.classification.CrossEntropy",
        "dataset.name": "cifar10_lt",
        "name": method,
        "trainer.max_epochs": 200,
        "seed": seed,
        **(config or {}),
    }
    group = digest({key: value for key, value in whole.items() if key != "seed"})
    result = {
        "schema_version": 1,
        "config": whole,
        "run_hash": digest([whole, split]),
        "group_hash": group,
        "data": {
            "split": split,
            "split_digest": digest(split),
            "classes": 10,
            "train_images": 12406,
            "test_images": 10000,
        },
        "metric": "balanced_accuracy",
        "stages": stages or [{"name": "main", "key": "k", "status": "trained", "seconds": 2481.2}],
        "rows": rows or [row({**METRICS, **(metrics or {})}, **row_changes)],
    }
    folder = outputs / whole["dataset.name"] / method / f"{whole['name']}-s{seed}-{result['run_hash'][:8]}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("{}")
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def predictions(folder: Path, labels: np.ndarray, right: np.ndarray, variant: str = "default") -> None:
    """Write ``predictions.parquet`` of a run that classifies these images correctly."""
    columns = {
        "variant": [variant] * len(labels),
        "id": np.arange(len(labels)),
        "label": labels,
        "prediction": np.where(right, labels, labels + 1),
    }
    pq.write_table(pa.table(columns), folder / "predictions.parquet")


def per_class(folder: Path, names: list[str], accuracy: list[float]) -> None:
    """Write ``per_class.parquet`` of a run; class c has 1000 / 10^c training images."""
    counts = [max(1, 1000 // 10**c) for c in range(len(names))]
    groups = ["many" if count > 100 else "medium" if count >= 20 else "few" for count in counts]
    table = {
        "variant": ["default"] * len(names),
        "class_name": names,
        "train_count": counts,
        "group": groups,
        "accuracy": accuracy,
    }
    pq.write_table(pa.table(table), folder / "per_class.parquet")


def composed_config(*overrides: str) -> dict:
    """Return the flat configuration of a run with these overrides."""
    from ltr.configuration.check import check_config
    from ltr.configuration.configs import leaves, without_private
    from ltr.configuration.overrides import compose_config as compose

    return dict(leaves(without_private(check_config(compose(list(overrides))))))
