"""``ltr-train`` after the checks of its configuration: the run, its table and its figures."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ltr.configuration.targets import packages_of_command
from ltr.console import plain_warnings
from ltr.errors import TrainingError
from ltr.escaping import printer, rich_text
from ltr.names import counted
from ltr.report.figures import draw
from ltr.report.table import plain_table, result_table
from ltr.runs.finished import find_result
from ltr.runs.processes.launch import launch_processes
from ltr.runs.processes.process_info import from_environment, needs_launch
from ltr.runs.result import Outcome
from ltr.sweeps import in_sweep, job_overrides


def carry_out(config: Mapping[str, Any], console: Console, arguments: Callable[[], list[str]]) -> Outcome:
    """Run a checked configuration, print its table and draw its figures.

    Args:
        arguments: arguments of ``ltr-train`` for this run, if it must be started in several processes.
    """
    overrides = job_overrides()
    with plain_warnings():
        process = from_environment(os.environ)
        # rank 0 decides for all processes
        starts_others = needs_launch(config) and config["stages"] != "plan"
        outcome, source = None, None
        if process is None:
            looked = find_result(config, _print_nothing if starts_others else printer(console), read=_reader())
            config, outcome, source = looked.config, looked.outcome, looked.source
        if outcome is None and starts_others:
            source = None  # each process reads it
            launch_processes(config["trainer"]["devices"], arguments())
            # rank 0 has shown it
            finished = find_result({**config, "resume": "auto"}, _print_nothing).outcome
            if finished is None:
                raise TrainingError("the processes of this run ended without an error, and without a result")
            return replace(finished, reused=False)
        if outcome is None:
            from ltr.runs.processes import distributed
            from ltr.runs.processes.job_state import restored_state
            from ltr.runs.runner import run

            with restored_state(), distributed.process_group(process, config["trainer"]["accelerator"]):
                if not distributed.is_rank_zero():
                    console = Console(quiet=True)
                outcome = run(
                    config, overrides, console, source, _reader(), draw=lambda run_dir: _figures(run_dir, config)
                )
        if outcome.reused:
            console.print(rich_text("finished before (resume=never runs it again)"), soft_wrap=True)
        show(outcome, config, console)
    return outcome


def _print_nothing(text: object) -> None:
    """Print nothing: the processes that are started print it."""


_sources: list[Any] = []  # shared by all jobs of a sweep in this process


def set_source_reader(reader: Callable[[Mapping[str, Any]], Any]) -> None:
    """Set the function that reads the data sets of the jobs of a sweep in this process."""
    _sources[:] = [reader]


def _reader() -> Any:
    from ltr.configuration.targets import instantiate
    from ltr.runs.plan import LastSource

    if not in_sweep():
        return instantiate
    if not _sources:
        _sources.append(LastSource())
    return _sources[0]


def _figures(run_dir: Path, config: Mapping[str, Any]) -> list[Path]:
    return [] if config["figures"] == "none" else draw(run_dir, config["figures"])


def show(outcome: Outcome, config: Mapping[str, Any], console: Console) -> None:
    """Print the table of the result, and draw missing figures of a reused run; a new run has drawn its figures."""
    if outcome.result is None:
        return
    if console.is_terminal:
        console.print(result_table(outcome.result, console.width), soft_wrap=True)
    else:
        console.print(rich_text(plain_table(outcome.result)), soft_wrap=True)
    if outcome.reused and config["figures"] == "all":
        _draw_missing(outcome.directory, console)
    elif not (outcome.directory / "figures").is_dir():
        _figures(outcome.directory, config)
    if not in_sweep():
        for line in _next_commands(config, outcome.directory):
            console.print(rich_text(line), soft_wrap=True)
    console.print(rich_text(outcome.directory), soft_wrap=True)


def _draw_missing(run: Path, console: Console) -> None:
    """Draw the figures that a finished run lacks from its files, and print which its files have no data for."""
    left_out: list[str] = []
    written = draw(run, "all", only_missing=True, left_out=left_out)
    rest = f"; the run has no data for {', '.join(left_out)}" if left_out else ""
    console.print(rich_text(f"{counted(len(written), 'new figure')} in {run / 'figures'}{rest}"), soft_wrap=True)


def _next_commands(config: Mapping[str, Any], run: Path) -> list[str]:
    """Return the commands that usually follow a run."""
    allow = "".join(f" --allow {package}" for package in packages_of_command(config))
    outputs, folder = shlex.quote(str(config["paths"]["outputs"])), shlex.quote(str(run))
    return [
        f"compare: ltr-report {outputs}",
        f"predict: ltr-predict {folder} IMAGES{allow}",
    ]
