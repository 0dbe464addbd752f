"""ltr-export: files of a run for other programs, and what is refused."""

from __future__ import annotations

import functools
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import ltr
from ltr.apply.export import load_exported, logits
from ltr.data.sources.digits import digits


@pytest.fixture
def command(run_command, tmp_path, monkeypatch):
    """Run ``ltr-export`` in the folder of the test, see `run_command`."""
    from ltr.commands.export import main

    monkeypatch.chdir(tmp_path)
    return functools.partial(run_command, main)


def test_an_export_predicts_what_the_run_does(command, finished_run, tmp_path):
    code, out, err = command(finished_run, "--out", "exported")
    assert code == 0, err
    assert "the same logits to the bit" in out
    images = digits().images[:20]
    exported = logits(load_exported(tmp_path / "exported"), torch.from_numpy(images).permute(0, 3, 1, 2))
    wanted = ltr.load(finished_run, precision="fp32").predict(images)
    np.testing.assert_allclose(exported.softmax(dim=1), wanted, rtol=1e-5, atol=1e-6)


def test_exporting_again_replaces_the_files(command, finished_run):
    assert command(finished_run, "--out", "exported")[0] == 0
    assert command(finished_run, "--out", "exported")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["nothing", "--out", "x"], 1, "no such run directory or checkpoint"),
        (["{run}"], 2, "Give --out FOLDER (the network for ltr, with --onnx also ONNX) or --hub FOLDER"),
        (["{run}", "--hub", "file"], 2, "is a file"),
        (["{run}", "--hub", "x", "--onnx"], 2, "Add --out FOLDER"),
        (["{run}", "--hub", "x", "--out", "x"], 2, "each writes its own config.json"),
        (["{run}", "--hub", "x"], 2, "this backbone is DigitsNet, which timm does not have"),
        (["{run}", "--out", "file"], 2, "is a file"),
        (["{run}", "--out", "file/x"], 2, "a folder is needed, and "),
    ],
)
def test_mistakes_are_reported(command, finished_run, tmp_path, arguments, code, reason):
    (tmp_path / "file").touch()
    exit_code, _, err = command(*(argument.format(run=finished_run) for argument in arguments))
    assert exit_code == code, err
    assert err.startswith("error: ")
    assert reason in err
    assert "Traceback" not in err


def test_onnx_without_its_package_is_refused_with_the_installation(command, finished_run, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: (name != "onnx" and find_spec(name, *more)) or None
    )
    code, _, err = command(finished_run, "--out", "exported", "--onnx")
    assert code == 2
    assert "pip install onnx" in err


def test_the_result_is_that_of_the_folder_of_checkpoints_alone(tmp_path):
    from ltr.commands.export import _result_of

    (tmp_path / "result.json").write_text("of another program")
    (tmp_path / "weights").mkdir()
    assert _result_of(tmp_path / "weights" / "w.ckpt") is None
    assert _result_of(Path("/w.ckpt")) is None


def test_files_of_a_run_are_not_replaced_by_an_export(command, finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "decisions.json").write_text("chosen")
    code, _, err = command(run, "--out", run)
    assert (code, "is a file of a finished run" in err) == (2, True), err
    assert (run / "decisions.json").read_text() == "chosen"


def test_links_to_one_folder_are_one_folder(command, finished_run, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    code, _, err = command(finished_run, "--out", "x", "--hub", "link")
    assert (code, "each writes its own config.json" in err) == (2, True), err
