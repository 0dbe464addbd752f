"""Saving by the clock, the queue's signal, and steps whose loss is not finite."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from ltr.losses import classification
from ltr.methods.core.checkpoint import read_checkpoint
from resuming import action_at, same_bits, signal_at, weights

SHORT = ("trainer.max_epochs=2", "trainer.precision=fp32", "trainer.accelerator=cpu")
pytestmark = pytest.mark.slow


def dies() -> None:
    raise MemoryError("as if killed")


def test_the_state_is_saved_by_the_clock_within_an_epoch_and_resumes_from_there(ltr_train, tmp_path, monkeypatch):
    whole = ltr_train(*SHORT, outputs=tmp_path / "whole")
    with action_at(monkeypatch, (0, 5), dies, after=True):
        died = ltr_train(*SHORT, "checkpoint.every_minutes=1e-6", outputs=tmp_path / "died")
    assert died.code == 1
    state = read_checkpoint(next(died.outputs.glob("stages/*/state/last.ckpt")))
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"] == 6
    resumed = ltr_train(*SHORT, outputs=tmp_path / "died")
    assert "resuming in epoch 1, batch 7" in resumed.out
    assert same_bits(weights(whole.directory), weights(resumed.directory))
    assert whole.result["rows"] == resumed.result["rows"]


def test_the_job_is_requeued(ltr_train, tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path / "asked"}\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    with signal_at(monkeypatch, (0, 2), signal.SIGUSR1):
        done = ltr_train(*SHORT)
    assert done.code == 128 + signal.SIGUSR1
    assert (tmp_path / "asked").read_text() == "requeue 123\n"
    assert "job 123 is back in the queue" in done.out
    monkeypatch.undo()


def test_sighup_saves_the_state_like_sigterm(ltr_train, monkeypatch):
    with signal_at(monkeypatch, (0, 2), signal.SIGHUP):
        done = ltr_train(*SHORT)
    assert done.code == 128 + signal.SIGHUP
    assert "stopped in epoch 1 by SIGHUP (the connection was closed); the same command continues from there" in done.err
    (status,) = done.outputs.glob("*/*/*/status.json")
    assert json.loads(status.read_text()) == {"status": "preempted"}
    state = read_checkpoint(next(done.outputs.glob("stages/*/state/last.ckpt")))
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"] == 3


@pytest.fixture
def sometimes_nan(monkeypatch):
    """Cross-entropy that is NaN in some calls (counted from 1)."""

    def install(*calls: int):
        count = iter(range(1, 10_000))
        real = classification.CrossEntropy.forward

        def forward(self, *arguments, **named):
            loss = real(self, *arguments, **named)
            return loss * float("nan") if next(count) in calls else loss

        monkeypatch.setattr(classification.CrossEntropy, "forward", forward)

    return install


def test_a_non_finite_step_is_skipped_and_reported(ltr_train, sometimes_nan):
    sometimes_nan(2, 5)
    done = ltr_train(*SHORT, "trainer.on_nonfinite=skip", "trainer.ema_decay=0.9")
    assert done.code == 0, done.err
    assert "not finite in 2 steps" in done.out
    assert "2 optimiser steps skipped" in done.out
    assert all(
        bool(torch.isfinite(tensor).all()) for tensor in weights(done.directory).values() if tensor.is_floating_point()
    )


def test_too_many_non_finite_steps_are_an_error(ltr_train, sometimes_nan):
    sometimes_nan(2, 3, 4)
    done = ltr_train(*SHORT, "trainer.on_nonfinite=skip", "trainer.max_nonfinite=2")
    assert done.code == 1
    assert "trainer.max_nonfinite=2 allows no more" in done.err


def test_a_lower_limit_does_not_take_a_result_with_more_skipped_steps(ltr_train, sometimes_nan):
    sometimes_nan(2, 5)
    assert ltr_train(*SHORT, "trainer.on_nonfinite=skip").result["stages"][0]["incidents"]["skipped_steps"] == 2
    again = ltr_train(*SHORT, "trainer.on_nonfinite=skip", "trainer.max_nonfinite=1")
    assert again.code == 0, again.err  # this time no step is skipped: the calls are counted on
    assert "2 optimiser steps skipped, more than trainer.max_nonfinite=1 allows" in again.out
    assert "incidents" not in again.result["stages"][0]


def test_a_non_finite_loss_does_not_overwrite_the_last_good_state(ltr_train, sometimes_nan, monkeypatch):
    sometimes_nan(12)
    assert ltr_train(*SHORT, "checkpoint.min_seconds=0").code == 1
    monkeypatch.undo()
