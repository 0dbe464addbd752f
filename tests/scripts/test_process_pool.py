"""Commands in separate processes: parallelism, dependencies, and messages of failed ones."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from ltr.errors import Interrupted
from ltr.runs.processes.interrupt import stop_request
from process_pool import Task, run_tasks

NOTE = """
import sys, time
from pathlib import Path
folder, name = Path(sys.argv[1]), sys.argv[2]
(folder / (name + ".begun")).write_text(str(time.time()))
time.sleep(0.4)
(folder / (name + ".ended")).write_text(str(time.time()))
"""


@pytest.fixture
def noted(tmp_path):
    """Tasks by name that note when they began and ended; ``times(name)`` gives both."""

    def make(name: str, *needs: str) -> Task:
        return Task(
            name, (sys.executable, "-S", "-c", NOTE, str(tmp_path), name), tmp_path / f"{name}.log", frozenset(needs)
        )

    def times(name: str) -> tuple[float, float]:
        begun, ended = (float((tmp_path / f"{name}.{what}").read_text()) for what in ("begun", "ended"))
        return begun, ended

    make.times = times  # type: ignore[attr-defined]
    return make


def failed_and_lines(tasks, at_once=2):
    lines: list[str] = []
    return run_tasks(tasks, at_once, os.environ, lines.append), lines


def test_tasks_that_need_the_same_stage_do_not_overlap_and_independent_ones_run_first(noted):
    failed, lines = failed_and_lines([noted("a", "shared"), noted("b", "shared"), noted("c")])
    assert failed == {}
    assert [line.split()[1] for line in lines if line.startswith("started")] == ["a", "c", "b"]
    assert noted.times("a")[1] <= noted.times("b")[0]


def test_at_most_the_requested_number_of_tasks_run_at_once(noted):
    failed_and_lines([noted("a"), noted("b")], at_once=1)
    assert noted.times("a")[1] <= noted.times("b")[0]


def test_a_task_that_fails_is_named_with_its_error_and_the_next_one_runs(tmp_path, noted):
    code = "import sys; print('warning: x'); sys.stderr.write('error: no data\\n  look there\\n'); sys.exit(1)"
    bad = Task("bad", (sys.executable, "-S", "-c", code), tmp_path / "logs" / "bad.log")
    failed, lines = failed_and_lines([bad, noted("a")], at_once=1)
    assert failed == {"bad": f"exit code 1: error: no data (see {bad.log})"}
    assert "failed: bad" in lines
    assert "finished: a" in lines


def test_a_task_that_fails_without_output_is_reported_with_its_exit_code(tmp_path):
    silent = Task("silent", (sys.executable, "-S", "-c", "raise SystemExit(3)"), tmp_path / "silent.log")
    assert failed_and_lines([silent])[0] == {"silent": f"exit code 3: no output (see {silent.log})"}


def test_an_interruption_stops_the_tasks_and_waits_for_them(tmp_path):
    code = (
        "import signal, sys, time; from pathlib import Path; at = Path(sys.argv[1])\n"
        "def stop(*_): time.sleep(0.3); at.write_text('saved'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop); at.write_text('runs'); time.sleep(30)"
    )
    state = tmp_path / "state"
    task = Task("long", (sys.executable, "-S", "-c", code, str(state)), tmp_path / "long.log")

    def interrupt():
        while not (state.is_file() and state.read_text() == "runs"):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    with stop_request(), pytest.raises(Interrupted):
        failed_and_lines([task])
    assert state.read_text() == "saved"
