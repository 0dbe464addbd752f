"""Several checkpoints that were evaluated together, as one table for each data set, protocol and split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltr.report import formats
from ltr.report.compose import Options, composed
from ltr.report.read_runs import Finished, Found


def evaluations_table(found: Sequence[tuple[str, Path, dict[str, Any]]]) -> str:
    """Plain text: a row for each checkpoint and scorer, best first, the best of each column marked.

    Args:
        found: of each checkpoint what it is called, its folder and its ``result.json``.
    """
    runs = [_as_run(number, *one) for number, one in enumerate(found)]
    tables = [formats.plain(part.sheet) for part in composed(Found(runs), Options(by=("checkpoint",))).parts]
    return "\n\n".join([*tables, "Fractions in percent; * the best of a column."])


def _as_run(number: int, label: str, path: Path, result: dict[str, Any]) -> Finished:
    data, rows = result["data"], result["rows"]
    part = rows[0]["split"]
    if part != "test":  # tables are of what was evaluated, whatever that was
        data = {**data, "split": f"{data['split']}, {part}", "test_images": data.get(f"{part}_images")}
        rows = [{**row, "split": "test"} for row in rows]
    return Finished(
        path,
        {**result["config"], "checkpoint": label},
        int(result["config"].get("seed", 0)),
        str(number),  # each is a line, also where they differ in their seeds alone
        result["run_hash"],
        data,
        result["stages"],
        rows,
        result["metric"],
        tuple(result.get("declared_metrics", ())),
    )
