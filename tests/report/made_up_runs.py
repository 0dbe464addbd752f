"""Run directories with made-up numbers, in the layout that ltr-train writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ltr.evaluation.groups import GROUPS, group_of_class, shot_groups

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def per_class_table(classes: int, n_max: int = 500, factor: float = 100, images: int = 100) -> dict[str, Any]:
    random = np.random.default_rng(classes)
    counts = (n_max * factor ** (-np.arange(classes) / max(1, classes - 1))).astype(np.int64)
    chance = np.clip(0.15 + 0.32 * np.log10(np.maximum(counts, 1)) + random.normal(0, 0.12, classes), 0, 1)
    correct = random.binomial(images, chance)
    names = CIFAR if classes == 10 else [f"class {c}" for c in range(classes)]
    return {
        "class_id": np.arange(classes),
        "class_name": np.array(names, dtype=object),
        "train_count": counts,
        "group": group_of_class(shot_groups(counts)).astype(object),
        "n": np.full(classes, images),
        "correct": correct,
        "accuracy": correct / images,
    }


def metrics_of(table: dict[str, Any]) -> dict[str, float | None]:
    recall = table["accuracy"]
    groups = {name: recall[table["group"] == name] for name in GROUPS}
    return {
        "accuracy": float(recall.mean()),
        "top5": 0.9,
        **{name: float(values.mean()) if len(values) else None for name, values in groups.items()},
        "balanced_accuracy": float(recall.mean()),
        "geometric_mean": float(np.exp(np.log(np.maximum(recall, 1e-9)).mean())),
        "macro_f1": float(recall.mean()) - 0.02,
        "nll": 1.25,
        "ece": 0.0625,
        "ece_few": None,
    }


def row(metrics: dict[str, float | None], **changes: Any) -> dict[str, Any]:
    return {
        "protocol": "closed_set",
        "split": "test",
        "checkpoint": "final",
        "selection": "last",
        "variant": "default",
        "scorer": None,
        "headline": True,
        "metrics": metrics,
    } | changes


def curve_rows(stages: dict[str, int], watched: str | None = "val", few: bool = True) -> list[dict[str, Any]]:
    rows = []
    for stage, epochs in stages.items():
        for epoch in range(1, epochs + 1):
            t = epoch / epochs
            metrics = {"train/loss": 2.3 * np.exp(-2.5 * t), "train/accuracy": 1 - np.exp(-3 * t), "lr": 0.1}
            if watched:
                metrics |= {f"{watched}/accuracy": 0.75 * (1 - np.exp(-3 * t)), f"{watched}/nll": 2.3 - 1.2 * t + t**3}
                metrics |= {f"{watched}/many": 0.9 * (1 - np.exp(-5 * t)), f"{watched}/medium": 0.6 * t}
                metrics |= {f"{watched}/few": 0.3 * t**2 if few else float("nan")}
            rows.append({"stage": stage, "epoch": epoch, "step": 97 * epoch, **metrics})
    return rows


def write_run(folder: Path, table: dict[str, Any], curves: list[dict[str, Any]], **row_changes: Any) -> Path:
    """Write a complete run directory."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "schema_version": 1,
        "config": {"method.name": "erm", "dataset.name": "cifar10_lt", "seed": 0, "trainer.max_epochs": 3},
        "stages": [{"name": "main", "key": "ab12", "status": "trained", "seconds": 3.5}],
        "rows": [row(metrics_of(table), **row_changes)],
    }
    (folder / "result.json").write_text(json.dumps(result))
    columns = {"variant": ["default"] * len(table["n"])} | {name: list(column) for name, column in table.items()}
    pq.write_table(pa.table(columns), folder / "per_class.parquet")
    if curves:
        with open(folder / "metrics.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in curves for key in row)))
            writer.writeheader()
            writer.writerows(curves)
    return folder


def write_predictions(folder: Path, table: dict[str, Any], images: int) -> None:
    """Write ``predictions.parquet`` of a closed-set run with the table's accuracies; errors go to frequent classes."""
    random = np.random.default_rng(0)
    classes = len(table["n"])
    label = np.repeat(np.arange(classes), images)
    right = random.random(len(label)) < np.nan_to_num(table["accuracy"])[label]
    elsewhere = (label + 1 + (random.exponential(0.15, len(label)) * classes).astype(np.int64)) % classes
    prediction = np.where(right, label, elsewhere)
    confidence = np.clip(random.normal(0.75, 0.2, len(label)), 0.02, 1)
    scores = np.stack([confidence, *[(1 - confidence) / 4] * 4], axis=1).astype(np.float32)
    columns = {"variant": ["default"] * len(label), "id": np.arange(len(label)), "label": label}
    columns |= {"prediction": prediction, "scores": list(scores)}
    pq.write_table(pa.table(columns), folder / "predictions.parquet")


def write_arrays_of(folder: Path, table: dict[str, Any], epochs: int = 16) -> None:
    """Write the arrays of a run of two stages: sampled classes and norms of the classifier's weights."""
    counts, classes = table["train_count"], len(table["n"])
    arrays = folder / "artifacts"
    arrays.mkdir(exist_ok=True)
    whole = np.tile(counts, (epochs, 1)).astype(np.int32)
    balanced = np.full((epochs, classes), max(1, int(counts.sum()) // classes), np.int32)
    draws = {"representation.counts": whole, "classifier.counts": balanced}
    numbers = {name.replace("counts", "epochs"): np.arange(1, epochs + 1) for name in draws}
    np.savez(arrays / "draws.npz", **draws, **numbers)
    norms = 1 + 0.3 * np.log10(np.maximum(counts, 1))
    np.savez(arrays / "class_weights.npz", before=norms, after=np.ones(classes) + 0.01 * np.arange(classes) / classes)
