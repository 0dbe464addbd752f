"""Parallel runs in separate processes, ordered so that none waits for a stage that another run trains."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltr.configuration.configs import conf_directory

TRAIN = "from ltr.cli import train; train()"  # code of ltr-train
# composes the configuration of ltr-train and runs nothing
EMPTY_APP = f"""
import hydra

@hydra.main(version_base="1.3", config_path={str(conf_directory())!r}, config_name="train")
def app(config):
    pass

app()
"""
_POLL = 0.2  # seconds


@dataclass(frozen=True)
class Task:
    """A command to run.

    Attributes:
        label: for messages.
        command: program and arguments.
        log: the file that gets what it prints.
        needs: names that no two running tasks share, here the keys of the stages that it will make.
    """

    label: str
    command: tuple[str, ...]
    log: Path
    needs: frozenset[str] = frozenset()


def train_command(overrides: Sequence[str], config_dir: str | None = None) -> tuple[str, ...]:
    """Return the ``ltr-train`` of this interpreter, which need not be on the path."""
    flags = [f"--config-dir={config_dir}"] if config_dir else []
    return (sys.executable, "-c", TRAIN, *flags, *overrides)


def run_tasks(
    tasks: Sequence[Task],
    at_once: int,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    *,
    finished: Callable[[Task], None] = lambda task: None,
    meanwhile: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Run tasks in order with limited parallelism; a blocked task lets later tasks go first.

    When this is interrupted, the running tasks get SIGTERM and are waited for: a run keeps its training
    state then. A Ctrl-C in the terminal does not reach them by itself.

    Args:
        finished: called with each task that ended, whether it failed or not.
        meanwhile: called again and again while tasks are running.

    Returns:
        Why a task failed, by its label; empty where none did.
    """
    waiting = list(tasks)
    running: dict[subprocess.Popen, Task] = {}
    failed: dict[str, str] = {}
    try:
        while waiting or running:
            for task in list(waiting):
                taken = {name for other in running.values() for name in other.needs}
                if len(running) < at_once and not taken & task.needs:
                    waiting.remove(task)
                    running[_started(task, environment)] = task
                    say(f"started: {task.label} ({task.log})")
            time.sleep(_POLL)
            meanwhile()
            for process in [process for process in running if process.poll() is not None]:
                task = running.pop(process)
                say(f"{'failed' if process.returncode else 'finished'}: {task.label}")
                if process.returncode:
                    failed[task.label] = f"exit code {process.returncode}: {_error(task.log)} (see {task.log})"
                finished(task)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    return failed


def _started(task: Task, environment: Mapping[str, str]) -> subprocess.Popen:
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with open(task.log, "w", encoding="utf-8") as file:
        return subprocess.Popen(
            task.command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )


def _error(log: Path) -> str:
    """Return the line with the error message, or the last line without one."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
    return next((line for line in lines if line.startswith("error: ")), lines[-1]).strip()
