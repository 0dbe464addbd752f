"""Helpers for tests that stop a training and resume it: stop at a chosen batch, compare weights and metrics."""

from __future__ import annotations

import contextlib
import csv
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ltr.methods.core.checkpoint import describe
from ltr.runs.training import guards, train


def acting_at(
    at: tuple[int, int], action: Callable[[], object], *, network: type = torch.nn.Module, after: bool = False
) -> type[guards.StopOnSignal]:
    """Return a callback for the place of ``train.StopOnSignal`` that acts at the end of one batch.

    Args:
        at: epoch and batch, both counted from 0.
        network: the class of the network whose training it is; other stages pass undisturbed.
        after: act after the callback has saved what it saves at the end of the batch, not before.
    """

    class Acts(guards.StopOnSignal):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            is_here = (trainer.current_epoch, batch_idx) == at and isinstance(pl_module, network)
            if is_here and not after:
                action()
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            if is_here and after:
                action()

    return Acts


@contextlib.contextmanager
def action_at(
    monkeypatch: pytest.MonkeyPatch,
    at: tuple[int, int],
    action: Callable[[], object],
    *,
    network: type = torch.nn.Module,
    after: bool = False,
) -> Iterator[None]:
    """Inside, training acts at the end of one batch, see `acting_at`."""
    with monkeypatch.context() as patch:
        patch.setattr(train, "StopOnSignal", acting_at(at, action, network=network, after=after))
        yield


def signal_at(
    monkeypatch: pytest.MonkeyPatch,
    at: tuple[int, int],
    number: int = signal.SIGTERM,
    *,
    network: type = torch.nn.Module,
) -> contextlib.AbstractContextManager[None]:
    """Inside, this process gets a signal at the end of one batch of training."""
    return action_at(monkeypatch, at, lambda: signal.raise_signal(number), network=network)


def weights(directory: Path, name: str = "final") -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint of a run directory."""
    return describe(directory / "checkpoints" / f"{name}.ckpt")["state_dict"]


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether two state dicts have the same names and equal tensors."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def metric_rows(directory: Path) -> list[dict[str, str]]:
    """Return the epochs of a run's ``metrics.csv`` without their speed."""
    with open(directory / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)]
