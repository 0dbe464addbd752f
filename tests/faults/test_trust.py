"""Untrusted input that would run code, leave its folder or write into a config: refused, or escaped."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

import trees
from ltr.cli import run_guarded
from ltr.configuration.hydra_nodes import check_hydra
from ltr.errors import CheckpointError, LtrError
from ltr.files import file_digest
from ltr.methods.core.checkpoint import describe, load_network

SHORT = ("trainer.max_epochs=1", "trainer.precision=fp32", "trainer.limit_train_batches=1")


class Trap:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_a_pickle_in_place_of_a_checkpoint_is_not_opened(tmp_path, ltr_eval, ltr_train, write):
    sprung, file = tmp_path / "sprung", tmp_path / "weights.ckpt"
    if write == "pickle":
        file.write_bytes(pickle.dumps(Trap(sprung)))
    else:
        torch.save({"state_dict": Trap(sprung)}, file)
    assert ltr_eval(file)[0] == 1
    assert ltr_train(*SHORT, f"backbone.weights={file}").code == 1
    with pytest.raises(CheckpointError, match="is refused"):
        describe(file)
    assert not sprung.exists()


def test_a_state_that_was_swapped_for_a_pickle_is_set_aside(tmp_path, ltr_train):
    planned = ltr_train(*SHORT, "stages=plan")
    key = planned.out.split()[1]
    state = planned.outputs / "stages" / key / "state"
    state.mkdir(parents=True)
    (state / "last.ckpt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    done = ltr_train(*SHORT)
    assert done.code == 0, done.err
    assert "set aside" in done.out
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("command", ["predict", "mine", "export"])
def test_no_command_opens_a_pickle(tmp_path, capsys, command):
    main = importlib.import_module(f"ltr.commands.{command}").main
    (tmp_path / "weights.ckpt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    trees.put(tmp_path / "images" / "1.jpg", 0)
    out = tmp_path / ("out.csv" if command == "predict" else "out")
    images = [] if command == "export" else [str(tmp_path / "images")]
    assert run_guarded(lambda: main([str(tmp_path / "weights.ckpt"), *images, "--out", str(out)])) == 1
    assert "refused" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()


def test_pickled_arrays_of_a_stored_stage_are_not_opened(tmp_path, ltr_train):
    done = ltr_train(*SHORT, "method=ncm")
    assert done.code == 0, done.err
    (arrays,) = done.outputs.glob("stages/*/arrays.npz")
    np.savez(arrays, class_means=np.array([Trap(tmp_path / "sprung")], dtype=object))
    record = json.loads((arrays.parent / "stage.json").read_text())
    record["files"][arrays.name] = file_digest(arrays)
    (arrays.parent / "stage.json").write_text(json.dumps(record))
    again = ltr_train(*SHORT, "method=ncm", "evaluation.top_k=2")
    assert (again.code, "never loaded" in again.err) == (1, True)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "posix.system", "subprocess.Popen", "builtins.exec", "pathlib.Path.touch", "hydra.utils.call"),
        # by another name inside an allowed package
        *("ltr.files.os.system", "ltr.files.shutil.os.system", "ltr.runs.processes.launch.subprocess.Popen"),
        *("torch.nn.functional.torch.load", "torch.optim.optimizer.torch.hub.load", "ltr.errors.LtrError.__class__"),
        *("ltr.files.write_text.__globals__", "ltr.files.write_text.__call__", "ltr.configuration.targets.Any"),
    ],
)
def test_a_downloaded_config_names_no_foreign_code(tmp_path, target, ltr_train):
    config = tmp_path / "configs" / "loss" / "theirs.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"_target_: {target}\n")
    done = ltr_train(f"--config-dir={tmp_path / 'configs'}", "loss=theirs", "stages=plan")
    assert done.code == 2
    assert f"loss._target_={target}" in done.err
    assert "Traceback" not in done.err


def test_a_function_of_ltr_is_not_called_with_arguments_of_a_config(tmp_path, ltr_train):
    config = tmp_path / "configs" / "loss" / "theirs.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"_target_: ltr.files.write_text\npath: {tmp_path / 'sprung'}\ntext: x\n")
    assert ltr_train(f"--config-dir={tmp_path / 'configs'}", "loss=theirs", *SHORT).code == 2
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "target", ["os.system", "ltr.files.os.system", "subprocess.run", "torch.load", "builtins.exec"]
)
def test_the_record_of_a_stage_names_no_foreign_code(tmp_path, ltr_train, target):
    done = ltr_train(*SHORT)
    path = next(done.outputs.glob("stages/*/weights.ckpt"))
    stored = torch.load(path, weights_only=True)
    description = json.loads(stored["description"])
    for index in ("module", "settings"):
        changed = json.loads(stored["description"])
        if index == "module":
            changed["module"] = target
        else:
            changed["settings"]["head"] = {**description["settings"]["head"], "_target_": target}
        torch.save({**stored, "description": json.dumps(changed)}, tmp_path / "other.ckpt")
        with pytest.raises(CheckpointError, match="not in an allowed package"):
            load_network(tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    "node",
    [
        {"launcher": {"_target_": "os.system"}},
        {"sweeper": {"_target_": "hydra.utils.instantiate", "config": {}}},
        {"callbacks": {"mine": {"_target_": "subprocess.Popen"}}},
        {"callbacks": {"mine": {"_target_": "${oc.env:TARGET}"}}},
        {"sweeper": {"_target_": "ltr.sweeps.Sweeper", "sampler": {"_target_": "pickle.loads"}}},
        {"job_logging": {"handlers": {"file": {"()": "os.system"}}}},
        {"hydra_logging": {"handlers": {"file": {"class": "subprocess.Popen"}}}},
        {"verbose": 3},
        {"verbose": ["ltr", 1]},
    ],
)
def test_hydra_nodes_cannot_name_foreign_targets_or_unknown_arguments(node):
    assert len(check_hydra(node)) == 1


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_a_downloaded_config_cannot_make_hydra_call_code(tmp_path, ltr_train, monkeypatch, mode):
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "theirs.yaml").write_text(
        "# @package _global_\nhydra:\n  callbacks:\n    theirs:\n"
        f"      _target_: pathlib.Path.touch\n      self: {tmp_path / 'sprung'}\n"
    )
    done = ltr_train(f"--config-dir={tmp_path / 'configs'}", *mode, "experiment=theirs", *SHORT)
    assert done.code == 2
    assert "hydra.callbacks.theirs._target_=pathlib.Path.touch: not one of Hydra's own" in done.err
    assert not (tmp_path / "sprung").exists()


def test_an_archive_with_paths_outside_its_folder_is_not_unpacked(tmp_path):
    from ltr.data.sources.archives import unpack

    inside = tmp_path / "evil.txt"
    inside.write_text("x")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(inside, arcname="../outside.txt")
    inside.unlink()
    (tmp_path / "root").mkdir()
    with pytest.raises(LtrError):
        unpack(tmp_path / "a.tar", tmp_path / "root", max_bytes=1000, max_files=10)
    assert not (tmp_path / "outside.txt").exists()


def test_nothing_of_the_environment_is_written_into_a_run(ltr_train, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret-of-the-environment")
    monkeypatch.setenv("USER", "somebody-who-runs-this")
    done = ltr_train(*SHORT)
    assert done.code == 0, done.err
    for path in done.outputs.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"secret-of-the-environment" not in content
            assert b"somebody-who-runs-this" not in content
