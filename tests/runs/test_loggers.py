"""Loggers beside metrics.csv: what reaches them, and that they are closed."""

from __future__ import annotations

import os
import time

import pytest

SHORT = ["trainer.max_epochs=2", "figures=none", "dataset.val=train_fraction"]
pytestmark = pytest.mark.slow


def test_wandb_offline_records_the_run_under_a_stable_id_and_is_closed(ltr_train, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    done = ltr_train(*SHORT, "logger=wandb", "logger.mode=offline")
    assert done.code == 0, done.err
    recorded = list((done.directory / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(recorded) == 1
    assert recorded[0].name == f"run-{done.result['run_hash'][:16]}.wandb"
    keys = (b"train/loss", b"val/balanced_accuracy", b"final/few", b"per_class")
    end = time.monotonic() + 30  # its service writes the file from a process of its own
    while missing := [key for key in keys if key not in recorded[0].read_bytes()]:
        assert time.monotonic() < end, missing
        time.sleep(0.1)
    assert wandb.run is None
    assert "WANDB_MODE" not in os.environ


def test_two_wandb_runs_in_one_process_do_not_share_an_id(ltr_train, tmp_path):
    pytest.importorskip("wandb")
    logged = ["logger=wandb", "logger.mode=offline"]
    runs = [ltr_train(*SHORT, *logged, f"seed={seed}", outputs=tmp_path / str(seed)) for seed in (0, 1)]
    names = {next(run.directory.glob("wandb/offline-run-*/run-*.wandb")).name for run in runs}
    assert len(names) == 2


def test_tensorboard_gets_the_epochs(ltr_train):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = ltr_train(*SHORT, "logger=tensorboard")
    assert done.code == 0, done.err
    events = accumulator.EventAccumulator(str(done.directory / "tensorboard"))
    events.Reload()
    assert len(events.Scalars("train/loss")) == 2
    assert "val/accuracy" in events.Tags()["scalars"]


def test_the_default_writes_no_logger_files(ltr_train):
    done = ltr_train(*SHORT)
    assert not [p for p in done.directory.iterdir() if p.is_dir() and p.name not in ("checkpoints", "figures")]


def test_a_failed_run_closes_its_logger(ltr_train):
    wandb = pytest.importorskip("wandb")
    done = ltr_train(*SHORT, "logger=wandb", "logger.mode=offline", "optimizer.lr=1e18")
    assert done.code == 1
    assert wandb.run is None
