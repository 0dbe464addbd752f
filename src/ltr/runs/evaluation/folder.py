"""Output of ``ltr-eval``: a folder for each checkpoint and data set, with the layout of a run directory."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ltr.configuration.configs import without_private
from ltr.data.split import save_split
from ltr.files import file_digest, link_or_copy, write_json, write_text
from ltr.runs.evaluation.checkpoints import CheckpointEvaluation
from ltr.runs.evaluation.protocols import declared_metrics, headline_metric
from ltr.runs.keys import run_hash
from ltr.runs.processes.device import device_name
from ltr.runs.provenance import provenance
from ltr.runs.result import data_entry, read_result, write_arrays, write_curve, write_result, write_tables


def write_evaluation(
    evaluation: CheckpointEvaluation, out: Path, draw: Callable[[Path], object] | None = None
) -> tuple[Path, dict[str, Any]]:
    """Write ``<out>/<data set>/<method>/<label>-<hash>/`` atomically; the same evaluation replaces it.

    The folder holds the evaluation part of a run's folder: ``result.json``, ``config.yaml``, ``split.npz``,
    ``provenance.json``, tables, artifacts. If training and evaluation use the same data set, the folder also links the
    curves and arrays of the training, so that the same figures can be drawn.

    Args:
        draw: draws figures into the temporary folder, before it is renamed.

    Returns:
        The folder, and the content of its ``result.json``.
    """
    candidate = evaluation.candidate
    digest = file_digest(candidate.checkpoint)
    config = {
        **evaluation.config,
        "evaluated": {"part": evaluation.part, "checkpoint": evaluation.rows[0]["checkpoint"]},
    }
    if candidate.run is None:
        config |= {"weights": {"sha256": digest}, "seed": config.get("seed", 0)}
    run_result = read_result(candidate.run) if candidate.run is not None else None
    label = re.sub(r"[^\w.=-]+", "-", candidate.label)
    folder = out / config["dataset"]["name"] / config["method"]["name"] / f"{label}-{run_hash(config)[:8]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        write_text(temporary / "config.yaml", yaml.safe_dump(without_private(config), sort_keys=False))
        save_split(evaluation.split, temporary / "split.npz")
        write_tables(temporary, evaluation.evaluated, evaluation.split.class_names)
        write_curve(temporary, evaluation.rows)
        if evaluation.examples:
            write_arrays(temporary / "artifacts" / "examples.npz", evaluation.examples)
        if candidate.run is not None and not candidate.elsewhere and evaluation.part == "test":
            _link_training(candidate.run, temporary)
        entries = provenance(device_name(evaluation.device), evaluation.precision)
        entries |= {"weights": digest, "run": (run_result or {}).get("run_hash")}
        entries |= {"split": evaluation.split.name, "split_digest": evaluation.split.digest()}
        write_json(temporary / "provenance.json", entries)
        stages = run_result["stages"] if run_result is not None and not candidate.elsewhere else []
        declared = declared_metrics(evaluation.split, config["evaluation"])
        data = data_entry(evaluation.split, evaluation.fingerprint, evaluation.metadata) | evaluation.overlap.to_dict()
        result = write_result(
            temporary, config, stages, evaluation.rows, data, headline_metric(evaluation.split), declared
        )
        if draw is not None:
            draw(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder, result


def _link_training(run: Path, folder: Path) -> None:
    """Link the files from which the figures of the training are drawn."""
    if (run / "metrics.csv").is_file():
        link_or_copy(run / "metrics.csv", folder / "metrics.csv")
    for path in sorted((run / "artifacts").glob("*.npz")):
        if not (folder / "artifacts" / path.name).exists():
            link_or_copy(path, folder / "artifacts" / path.name)
