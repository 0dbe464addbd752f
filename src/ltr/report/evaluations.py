"""Tables that compare several evaluated checkpoints, one per data set, protocol and split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltr.report import formats
from ltr.report.compose import Options, compose_report
from ltr.report.read_runs import FinishedRun, RunCollection


def evaluations_table(checkpoints: Sequence[tuple[str, Path, dict[str, Any]]]) -> str:
    """Return plain text: a row per checkpoint and scorer, best first, the best of each column marked.

    Args:
        checkpoints: label, folder and ``result.json`` of each checkpoint.
    """
    runs = [_finished_run(number, *checkpoint) for number, checkpoint in enumerate(checkpoints)]
    report = compose_report(RunCollection(runs), Options(by=("checkpoint",)))
    tables = [formats.plain(part.sheet) for part in report.parts]
    return "\n\n".join([*tables, "Fractions in percent; * marks the best of a column."])


def _finished_run(number: int, label: str, path: Path, result: dict[str, Any]) -> FinishedRun:
    data, rows = result["data"], result["rows"]
    split = rows[0]["split"]
    if split != "test":  # tables show rows of the test split only, so the evaluated split takes its name
        data = {**data, "split": f"{data['split']}, {split}", "test_images": data.get(f"{split}_images")}
        rows = [{**row, "split": "test"} for row in rows]
    return FinishedRun(
        path,
        {**result["config"], "checkpoint": label},
        int(result["config"].get("seed", 0)),
        str(number),  # each checkpoint is a separate line, even if only the seeds differ
        result["run_hash"],
        data,
        result["stages"],
        rows,
        result["metric"],
        tuple(result.get("declared_metrics", ())),
    )
