"""Fixtures for tests of commands: refused commands with their mistakes and files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

NOT_FORESEEN = "not a mistake that ltr foresees"


@dataclass(frozen=True)
class Refused:
    """A command that was refused: its exit code, everything it printed, and one line for each mistake."""

    code: int
    out: str
    err: str
    left: list[str]  # files below the outputs

    @property
    def mistakes(self) -> list[str]:
        return [line.strip() for line in self.err.splitlines() if line.startswith("  ")]


@pytest.fixture
def refused(ltr_train):
    """Run ``ltr-train`` with a mistake; it must be explained in one screen, without a traceback."""

    def command(*arguments: str) -> Refused:
        done = ltr_train(*arguments)
        assert done.code in (1, 2), (done.code, done.out, done.err)
        assert "Traceback" not in done.err
        assert NOT_FORESEEN not in done.err, done.err
        assert len(done.err.splitlines()) <= 30
        assert done.err.startswith("error: ")
        left = sorted(str(path.relative_to(done.outputs)) for path in done.outputs.rglob("*") if path.is_file())
        return Refused(done.code, done.out, done.err, left)

    return command


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """The directory of a run of two epochs with validation images, made once."""
    from ltr.cli import train_main

    outputs = tmp_path_factory.mktemp("finished")
    short = ["debug=fast", "dataset.val=train_fraction", "figures=none", "callbacks.progress=none"]
    assert train_main([f"paths.outputs={outputs}", *short]) == 0
    return next(path.parent for path in outputs.glob("*/*/*/result.json"))


@pytest.fixture(scope="session")
def headline(finished_run) -> dict[str, float]:
    rows = json.loads((finished_run / "result.json").read_text())["rows"]
    return next(row for row in rows if row["headline"])["metrics"]


@pytest.fixture
def own_code(tmp_path, monkeypatch) -> str:
    """A user package with a loss on sys.path; returns its name."""
    package = tmp_path / "code" / "my_project"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text(
        "from ltr.losses.classification import CrossEntropy\n\n\n"
        "class Mine(CrossEntropy):\n"
        "    def __init__(self, class_counts, background=None, *, width: int = 1):\n"
        "        super().__init__(class_counts, background)\n"
    )
    (package / "broken.py").write_text("import os\nraise RuntimeError('half of a sentence')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield "my_project"
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_project"]:
        del sys.modules[name]


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Run Python code in a new process, in an empty folder."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", code, *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # small networks; other tests may run beside
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return run
