"""Runs that are called by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ltr.commands.named_runs import run_path, runs_below
from ltr.errors import CheckpointError

RUNS = ("digits/erm/erm-s0-1a2b3c4d", "digits/crt/crt-s0-5e6f7a8b", "cub/crt/crt-s1-9c0d1e2f")  # oldest first


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "outputs"
    for age, run in enumerate(RUNS):
        file = folder / run / "checkpoints" / "final.ckpt"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (1000 + age, 1000 + age))
    (folder / "digits" / "erm" / "erm-s1-unfinished" / "checkpoints").mkdir(parents=True)
    monkeypatch.setenv("LTR_OUTPUTS", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("last", RUNS[2]),
        ("erm-s0-1a2b3c4d", RUNS[0]),
        ("5e6f7a8b", RUNS[1]),
        ("digits/crt", RUNS[1]),
        ("erm", RUNS[0]),
    ],
)
def test_a_run_is_found_by_its_name_or_a_part_of_it(outputs, capsys, name, run):
    assert run_path(Path(name)) == outputs / run
    assert str(outputs / run) in capsys.readouterr().err


def test_an_existing_path_is_used_unchanged(outputs, capsys):
    Path("erm").mkdir()
    assert run_path(Path("erm")) == Path("erm")
    assert capsys.readouterr().err == ""


def test_an_ambiguous_part_is_refused_with_all_matching_names(outputs):
    with pytest.raises(
        CheckpointError, match=r"crt: it fits 2 runs .*newest first: .*crt-s1-9c0d1e2f, .*crt-s0-5e6f7a8b"
    ):
        run_path(Path("crt"))


def test_a_whole_name_takes_precedence_over_a_part(outputs):
    longer = outputs / "digits" / "erm" / "erm_long-s0-0a1b2c3d" / "checkpoints" / "final.ckpt"
    longer.parent.mkdir(parents=True)
    longer.touch()
    assert run_path(Path("erm")) == outputs / RUNS[0]
    assert run_path(Path("erm_long")) == longer.parent.parent
    with pytest.raises(CheckpointError, match=r"er: it fits 2 runs in .*Give the folder of one"):
        run_path(Path("er"))


@pytest.mark.parametrize("name", ["unfinished", "nothing", "output"])
def test_an_unknown_name_is_refused_with_the_newest_runs(outputs, name):
    with pytest.raises(CheckpointError, match=r"there is no such run directory .*newest first: .*crt-s1-9c0d1e2f, "):
        run_path(Path(name))


def test_without_any_run_the_error_says_that_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("LTR_OUTPUTS", str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="holds no finished run"):
        run_path(Path("last"))


def test_a_folder_of_runs_is_refused_with_the_runs_inside(outputs, tmp_path):
    assert runs_below(outputs).startswith(f". Below it are, newest first: {outputs / RUNS[2]}, ")
    assert runs_below(tmp_path / "elsewhere") == ""
