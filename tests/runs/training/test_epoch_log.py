"""The log of epochs: when its file is written, and which hooks of a step Lightning calls."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from ltr.runs.training.epoch_log import EpochLog
from ltr.runs.training.train import STEP_HOOKS, skip_unused_hooks

MODULE = SimpleNamespace(device=torch.device("cpu"))


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Return a function that logs some epochs of 10 at one moment, and the number of rows that the file then has."""

    def epochs(number: int, log: EpochLog) -> int:
        trainer = SimpleNamespace(
            current_epoch=0,
            max_epochs=10,
            global_step=1,
            loggers=[],
            optimizers=[SimpleNamespace(param_groups=[{"lr": 1}])],
        )
        log.on_train_start(trainer, MODULE)
        for trainer.current_epoch in range(number):
            log.on_train_epoch_start(trainer, MODULE)
            outputs = {"loss": torch.tensor(0.5), "correct": torch.tensor(1)}
            log.on_train_batch_end(trainer, MODULE, outputs, SimpleNamespace(labels=torch.zeros(4)), 0)
            log.on_train_epoch_end(trainer, MODULE)
        return rows(log)

    return epochs


def rows(log: EpochLog) -> int:
    with open(log.path, newline="") as file:
        written = list(csv.DictReader(file))
    assert all(float(row["train/loss"]) == 0.5 and float(row["train/accuracy"]) == 0.25 for row in written)
    return len(written)


def test_the_file_is_written_once_a_second_and_with_the_last_epoch(trained, tmp_path):
    assert trained(3, EpochLog(tmp_path / "short.csv", "main")) < 3
    assert trained(10, EpochLog(tmp_path / "whole.csv", "main")) == 10


def test_every_row_is_in_the_file_at_a_saved_state_or_failure(trained, tmp_path):
    log = EpochLog(tmp_path / "saved.csv", "main")
    trained(3, log)
    log.on_save_checkpoint(None, MODULE, {})
    assert rows(log) == 3
    log = EpochLog(tmp_path / "failed.csv", "main")
    trained(4, log)
    log.on_exception(None, MODULE, MemoryError())
    assert rows(log) == 4


def test_hooks_that_a_callback_does_not_implement_are_not_called():
    class Counts(pl.Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            return "counted"

    callback = Counts()
    skip_unused_hooks(callback)
    assert callback.on_before_backward(None, None, None) == "counted"
    assert [name for name in STEP_HOOKS if getattr(callback, name) is not None] == ["on_before_backward"]
    assert callback.on_train_epoch_end(None, None) is None
