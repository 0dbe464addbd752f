"""The short form of ``scripts/fuzz.py``: a few random command lines and damaged files, and what counts as a finding."""

from __future__ import annotations

import os
import random
import signal

import pytest

import fuzz as script
import fuzz_cases
import fuzz_files

CASE = fuzz_cases.Case("ltr-train", ("seed=1",))
NONSENSE = fuzz_cases.Case("ltr-train", ("sede=1",), is_nonsense=True)


@pytest.mark.parametrize(
    ("case", "code", "output", "finding"),
    [
        (CASE, 0, "", None),
        (CASE, 2, "error: seed", None),
        (NONSENSE, 2, "error: sede", None),
        (NONSENSE, 0, "", "exit code 0 on nonsense"),
        (NONSENSE, 1, "error: x", "exit code 1 on nonsense"),
        (fuzz_cases.Case("ltr-train", ("-m", "sede=1,2"), is_nonsense=True), 1, "error: x", None),
        (CASE, 1, "error: KeyError: 'x'\n  This is not a mistake that ltr foresees", "unforeseen"),
        (CASE, 1, "Traceback (most recent call last)", "traceback"),
        (CASE, 1, "", "no error message"),
        (CASE, 3, "error: x", "exit code 3"),
        (CASE, -signal.SIGSEGV, "", "signal 11"),
        (CASE, None, "", "hangs"),
    ],
)
def test_unexplained_outcomes_count_as_findings(case, code, output, finding):
    assert fuzz_cases.problem(case, code, output) == finding


def test_a_worker_reports_a_signal_and_continues(tmp_path, monkeypatch):
    def crashing(command, arguments):
        if command == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        return 0, "fine"

    monkeypatch.setattr(script, "run_command", crashing)
    worker = script.Worker(tmp_path)
    assert worker.run(fuzz_cases.Case("crash", ()))[0] == -signal.SIGKILL
    assert worker.run(CASE) == (0, "fine")
    worker.close()


def test_the_same_seed_gives_the_same_command_lines(tmp_path):
    drawn = [list(script.command_lines(random.Random(5), tmp_path, 20)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert {case.is_nonsense for case in drawn[0]} == {True, False}


@pytest.mark.slow
def test_random_command_lines_are_executed_or_explained(tmp_path):
    findings = script.run_cases(script.command_lines(random.Random(0), tmp_path, 5), tmp_path, "command lines")
    assert findings.wrong == []
    assert findings.codes.total() == 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.slow
@pytest.mark.parametrize("kind", fuzz_files.KINDS)
def test_damaged_files_are_read_or_explained(folder, kind):
    findings = script.run_cases(fuzz_files.mutations(kind, random.Random(0), folder, 3), folder, kind)
    assert findings.wrong == []
    assert findings.codes.total() >= 2
