"""Tables of several evaluated checkpoints, one per data set, protocol and split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltr.report import formats
from ltr.report.compose import Options, compose_report
from ltr.report.read_runs import Finished, FoundRuns


def evaluations_table(checkpoints: Sequence[tuple[str, Path, dict[str, Any]]]) -> str:
    """Return plain text: a row per checkpoint and scorer, best first, the best of each column marked.

    Args:
        checkpoints: label, folder and ``result.json`` of each checkpoint.
    """
    runs = [_as_run(number, *one) for number, one in enumerate(checkpoints)]
    tables = [formats.plain(part.sheet) for part in compose_report(FoundRuns(runs), Options(by=("checkpoint",))).parts]
    return "\n\n".join([*tables, "Fractions in percent; * marks the best of a column."])


def _as_run(number: int, label: str, path: Path, result: dict[str, Any]) -> Finished:
    data, rows = result["data"], result["rows"]
    part = rows[0]["split"]
    if part != "test":  # tables show the evaluated part under the name of the test split
        data = {**data, "split": f"{data['split']}, {part}", "test_images": data.get(f"{part}_images")}
        rows = [{**row, "split": "test"} for row in rows]
    return Finished(
        path,
        {**result["config"], "checkpoint": label},
        int(result["config"].get("seed", 0)),
        str(number),  # each checkpoint is a line, even if only the seeds differ
        result["run_hash"],
        data,
        result["stages"],
        rows,
        result["metric"],
        tuple(result.get("declared_metrics", ())),
    )
