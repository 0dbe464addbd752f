"""The commands as separate processes: imports, output and exit codes."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shlex
import subprocess
import sys

import pytest

TRAIN = "from ltr.cli import train; train()"
HEAVY = (
    "torch",
    "numpy",
    "pytorch_lightning",
    "torchvision",
    "sklearn",
    "matplotlib",
    "pandas",
    "wandb",
    "rich",
    "PIL",
)


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["seed=-1"], ["sede=1"]])
def test_nothing_heavier_than_hydra_is_imported_without_a_run(python, arguments):
    done = python(
        "import sys; from ltr.cli import train_main; code = train_main(sys.argv[1:]); "
        f"print(code, [name for name in {HEAVY} if name in sys.modules])",
        *arguments,
    )
    assert done.stdout.splitlines()[-1] == ("2 []" if "1" in arguments[-1] else "0 []"), done.stderr


DEFAULT_THEN_WITHOUT_LOGGERS = """
import sys
from ltr.cli import run_as_process, train_main

UNUSED = ("wandb", "tensorboard", "timm", "peft", "torchvision", "sklearn", "scipy", "torchmetrics.functional")
code = run_as_process(lambda: train_main([]))
print("--", code, [name for name in UNUSED if name in sys.modules])

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("wandb", "tensorboard"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Without())
fast = ["debug=fast", "figures=none"]
print("--", train_main(fast), train_main([*fast, "logger=wandb"]), train_main([*fast, "logger=tensorboard"]))

import torch
import torchmetrics
from pytorch_lightning.core.module import Metric

accuracy = torchmetrics.Accuracy("multiclass", num_classes=2)
print("--", isinstance(accuracy, Metric), float(accuracy(torch.tensor([0, 1]), torch.tensor([0, 0]))))
"""


@pytest.fixture(scope="module")
def default_run(tmp_path_factory) -> subprocess.CompletedProcess:
    """`ltr-train` without arguments, and then on a machine without wandb and TensorBoard."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    folder = tmp_path_factory.mktemp("default")
    command = [sys.executable, "-c", DEFAULT_THEN_WITHOUT_LOGGERS]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=250)


@pytest.mark.slow
def test_the_default_command_prints_its_progress_and_its_table(default_run):
    lines = default_run.stdout.partition("\n--")[0].splitlines()
    assert lines[0].startswith("digits_lt x erm, seed 0: 500 train, 0 val, 400 test images, 10 classes")
    assert any("epoch 40/40" in line for line in lines)
    head = next(line for line in lines if "many" in line and "bACC" in line)
    row = next(line for line in lines if line.startswith("*  test"))
    assert len(row.split()) == len(head.replace(" ↓", "").split()) + 1
    assert lines[-1].startswith("outputs/digits_lt/erm/erm-s0-")


@pytest.mark.slow
def test_the_default_command_imports_no_logger_and_no_library_that_it_does_not_use(default_run):
    assert "\n-- 0 []\n" in default_run.stdout


@pytest.mark.slow
def test_training_works_without_logger_packages_and_a_requested_one_is_reported_missing(default_run):
    assert default_run.stdout.splitlines()[-2] == "-- 0 2 2"
    assert [line.strip() for line in default_run.stderr.splitlines() if line.startswith("  ")] == [
        f"logger.name={name}: the package {name} is not installed. pip install {name}, or logger=csv"
        for name in ("wandb", "tensorboard")
    ]


@pytest.mark.slow
def test_torchmetrics_is_complete_for_user_code(default_run):
    assert default_run.stdout.splitlines()[-1] == "-- True 0.5"


def test_a_refused_command_prints_to_stderr_and_returns_2(python):
    done = python(TRAIN, "seed=-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the configuration is not allowed:\n  seed=-1: allowed is int [0, inf)\n"


@pytest.mark.parametrize("arguments", [["seed=-1"], ["--nothing"]])
def test_a_traceback_is_shown_on_request_and_the_message_too(python, monkeypatch, arguments):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    done = python(TRAIN, *arguments)
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.count("\nerror: ") == 1


@pytest.mark.parametrize("arguments", [["--info", "defaults"], ["--help"]])
def test_a_closed_pipe_ends_the_command_silently(tmp_path, arguments):
    read, write = os.pipe()
    os.close(read)  # nobody will read
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, *arguments], stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, timeout=60
        )
    finally:
        os.close(write)
    assert done.stderr == b""
    assert done.returncode in (0, 141)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_output_to_a_full_disk_is_an_error_of_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, "--version"], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.decode().startswith("error: the output cannot be written: No space left on device.")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_standard_streams_are_no_error(tmp_path, closed):
    command = shlex.join([sys.executable, "-c", TRAIN, "--version"])
    done = subprocess.run(f"{command} {closed}", shell=True, cwd=tmp_path, timeout=60, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_at_the_start_exits_with_130(ltr_train, monkeypatch):
    import ltr.configuration.configs

    # a module that is first imported below would keep the replaced function
    for module in pkgutil.iter_modules(ltr.configuration.__path__, "ltr.configuration."):
        importlib.import_module(module.name)

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(ltr.configuration.configs, "conf_directory", interrupted)
    done = ltr_train("seed=1")
    assert (done.code, done.err) == (130, "stopped by Ctrl-C\n")


def test_ctrl_c_during_imports_exits_with_130(ltr_train, monkeypatch):
    import ltr.configuration.check

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(ltr.configuration.check, "check_config", interrupted)
    assert ltr_train("seed=1").code == 130
    assert ltr_train("-m", "seed=0,1").code == 130


def test_an_unforeseen_error_is_one_line_with_its_location(ltr_train, monkeypatch):
    import ltr.configuration.check

    def slip(*arguments):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(ltr.configuration.check, "check_config", slip)
    done = ltr_train("seed=1")
    assert done.code == 1
    assert done.err.splitlines()[0] == "error: ZeroDivisionError: first line"
    assert "in test_processes.py, line" in done.err
    assert "second line" not in done.err
    assert "Traceback" not in done.err
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert "Traceback" in ltr_train("seed=1").err


def test_a_full_disk_is_reported_with_its_file(ltr_train, monkeypatch):
    import ltr.configuration.check

    def full(*arguments):
        raise OSError(28, "No space left on device", "outputs/x")

    monkeypatch.setattr(ltr.configuration.check, "check_config", full)
    done = ltr_train("seed=1")
    assert "No space left on device: 'outputs/x'" in done.err
    assert "that the disk has space" in done.err


def test_a_command_restores_the_state_of_the_process(ltr_train, monkeypatch):
    import logging

    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    before = (list(sys.argv), list(logging.getLogger().handlers), dict(os.environ), os.getcwd())
    ltr_train("--info", "defaults")
    ltr_train("sede=1")
    assert (list(sys.argv), list(logging.getLogger().handlers), dict(os.environ), os.getcwd()) == before
