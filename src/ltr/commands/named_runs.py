"""Look-up of runs by name: ``last``, the name of a run's folder, or a unique part of it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ltr.console import print_line
from ltr.errors import CheckpointError

LAST = "last"
_SHOWN = 5
_DEPTHS = ("*", "*/*", "*/*/*")  # of runs in outputs: data set, method, run
_FINISHED = "checkpoints/final.ckpt"


def outputs_folder() -> Path:
    """Return the folder in which runs are looked up: ``LTR_OUTPUTS``, or ``outputs``."""
    return Path(os.environ.get("LTR_OUTPUTS") or "outputs")


def finished_runs_below(folder: Path) -> list[Path]:
    """Return the finished runs in a folder of runs, the newest first."""
    checkpoints = [file for depth in _DEPTHS for file in folder.glob(f"{depth}/{_FINISHED}")]
    checkpoints.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    return [file.parent.parent for file in checkpoints]


def runs_of_name(name: str) -> list[Path]:
    """Return the finished runs that a name may mean: by folder, else by ``name=``, else by a part of their path."""
    runs = finished_runs_below(outputs_folder())
    if name == LAST:
        return runs[:1]
    for form in (lambda run: run.name, _given_name):
        if called := [run for run in runs if form(run) == name]:
            return called
    return [run for run in runs if name and name in run.relative_to(outputs_folder()).as_posix()]


def _given_name(run: Path) -> str:
    """Return the name of a run without its seed and hash."""
    return re.sub(r"-s\d+-[0-9a-f]+$", "", run.name)


def run_path(path: Path) -> Path:
    """Return an existing path unchanged; otherwise the finished run with this name.

    Args:
        path: path of a run, a stage or a checkpoint; ``last``; the name of a run's folder, or a part of it.

    Raises:
        CheckpointError: no run is called so, or several are; the message lists the newest.
    """
    if os.path.lexists(path):
        return path
    runs = runs_of_name(str(path))
    if len(runs) == 1:
        print_line(f"run: {runs[0]}", sys.stderr)
        return runs[0]
    outputs = outputs_folder()
    if runs:
        raise CheckpointError(
            f"{path}: it fits {len(runs)} runs in {outputs}. Give the folder of one; newest first: {_listed(runs)}"
        )
    newest = finished_runs_below(outputs)
    hint = f". In {outputs} are, newest first: {_listed(newest)}" if newest else f"; {outputs} holds no finished run"
    raise CheckpointError(f"{path}: there is no such run directory or checkpoint file{hint}")


def _listed(runs: list[Path]) -> str:
    shown = ", ".join(map(str, runs[:_SHOWN]))
    return f"{shown}, ... ({len(runs) - _SHOWN:,} more)" if len(runs) > _SHOWN else shown


def runs_below(path: Path) -> str:
    """Return the end of a sentence about a folder of runs given instead of a run; empty where it holds none."""
    runs = finished_runs_below(path)
    return f". Below it are, newest first: {_listed(runs)}" if runs else ""
