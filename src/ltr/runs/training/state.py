"""Training state of an unfinished stage: saving and checking it, and the position at which training resumes.

A training state is a Lightning checkpoint, in which Lightning's loops count epochs and batches. Only `ResumePoint`
reads this position, and the data module gets it, so that the loader repeats no batch. The loader's own position is for
trainings outside ltr.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn

from ltr.errors import CheckpointError
from ltr.methods.core.checkpoint import check_weights, read_checkpoint
from ltr.runs.processes import distributed
from ltr.runs.provenance import code_state


@dataclass(frozen=True)
class ResumePoint:
    """Epoch and batch at which a stage's training resumes.

    Attributes:
        path: checkpoint to restore.
        epoch, batch: first epoch and batch to train, both counted from 0.
        code: state of the code that saved the checkpoint; None if the checkpoint does not hold it.
        replaced_images: unreadable images of this epoch that others replaced before the resume point.
        skipped_steps: optimiser steps skipped so far.
    """

    path: Path
    epoch: int
    batch: int
    code: Mapping[str, Any] | None = None
    replaced_images: int = 0
    skipped_steps: int = 0

    @classmethod
    def read(cls, path: Path, network: nn.Module | None = None) -> ResumePoint:
        """Read the resume point of a checkpoint.

        Raises:
            CheckpointError: see `read_training_state`.
        """
        state = read_training_state(path, network)
        epoch, batch = _position_of(state, path)
        callbacks = state.get("callbacks", {})
        replaced = callbacks.get("EpochLog", {}).get("replaced") or 0
        skipped = callbacks.get("SkipNonfinite", {}).get("skipped") or 0
        return cls(path, epoch, batch, state.get("code"), replaced if batch else 0, skipped)


class TrainingState:
    """Folder ``state/`` of an unfinished stage, with the last two checkpoints and the best weights."""

    def __init__(self, folder: Path, print_line: Callable[[str], None]) -> None:
        self.last = folder / "last.ckpt"
        self.previous = folder / "previous.ckpt"
        self.best = folder / "best.ckpt"
        self.print_line = print_line

    def save(self, trainer: pl.Trainer) -> None:
        """Save a training state; the last one becomes `previous`."""
        if distributed.is_rank_zero() and self.last.is_file():
            os.replace(self.last, self.previous)
        trainer.save_checkpoint(self.last)  # collective: every rank takes part, rank 0 writes

    def resume_point(self, network: nn.Module) -> ResumePoint | None:
        """Return the resume point for ``network``, the same in every process; None if its training has not begun.

        A damaged checkpoint is moved aside with a message, and the previous one is used.
        """
        path = distributed.broadcast_from_rank_zero(lambda: str(self._newest(network) or ""))
        return ResumePoint.read(Path(path)) if path else None

    def clear(self) -> None:
        """Delete the checkpoints, so that the training starts from scratch in every process."""

        def delete() -> bool:
            for path in (self.last, self.previous, self.best):
                path.unlink(missing_ok=True)
            return True

        distributed.broadcast_from_rank_zero(delete)

    def _newest(self, network: nn.Module) -> Path | None:
        for path in (self.last, self.previous):
            if not path.is_file():
                continue
            try:
                self._check_best(read_training_state(path, network), path)
                return path
            except CheckpointError as error:
                aside = path.with_suffix(f".damaged-{int(time.time())}")
                path.rename(aside)
                has_earlier = path == self.last and self.previous.is_file()
                start = "continuing from the previous checkpoint" if has_earlier else "the training starts from scratch"
                self.print_line(f"{error}\n  set aside as {aside.name}; {start}")
        return None

    def _check_best(self, state: Mapping[str, Any], path: Path) -> None:
        """Raise CheckpointError if a training state needs the best weights so far, and these cannot be read."""
        states = state.get("callbacks", {}).values()
        epochs = [one["best_epoch"] for one in states if isinstance(one, Mapping) and one.get("best_epoch") is not None]
        if not epochs:
            return
        if not self.best.is_file():
            raise CheckpointError(f"{path}: {self.best.name}, the weights of the best epoch ({epochs[0]}), is missing")
        read_checkpoint(self.best)


class SaveState(pl.Callback):
    """Callback that saves the training state every k epochs, but not more often than every ``min_seconds``.

    Args:
        state: folder of the training state.
        every_n_epochs: k.
        min_seconds: smallest time between two saves in seconds; saving takes longer than very short epochs.
    """

    def __init__(self, state: TrainingState, every_n_epochs: int, min_seconds: float = 0.0) -> None:
        self.state = state
        self.every_n_epochs = every_n_epochs
        self.min_seconds = min_seconds
        self._saved = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = time.monotonic()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        checkpoint["code"] = code_state()  # another version of the code may resume from this state
        self._saved = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epochs = trainer.current_epoch + 1
        if epochs % self.every_n_epochs or epochs >= (trainer.max_epochs or 0):
            return
        is_due = time.monotonic() - self._saved >= self.min_seconds
        if distributed.all_reduce_max(int(is_due))[0]:  # clocks of several processes differ
            self.state.save(trainer)


def read_training_state(path: Path, network: nn.Module | None = None) -> dict[str, Any]:
    """Return a training state after checking the entries from which training resumes.

    Args:
        network: the network in training; None skips the check of the weights.

    Raises:
        CheckpointError: an entry is missing or wrong; the message names it.
    """
    state = read_checkpoint(path)
    _position_of(state, path)
    if not _is_whole(state.get("global_step")):
        raise _wrong(path, "global_step is not a whole number of at least 0")
    for name, parts in (("optimizer_states", ("state", "param_groups")), ("lr_schedulers", ())):
        entries = state.get(name)
        if not isinstance(entries, list) or not all(
            isinstance(one, Mapping) and all(part in one for part in parts) for one in entries
        ):
            raise _wrong(path, f"{name} is not a list of states")
    if not state["optimizer_states"]:
        raise _wrong(path, "optimizer_states is empty")
    if not isinstance(state.get("callbacks", {}), Mapping):
        raise _wrong(path, "callbacks is not a mapping")
    if not isinstance(state.get("state_dict"), Mapping):
        raise _wrong(path, "state_dict is not a mapping")
    if network is not None:
        check_weights(network, state["state_dict"], path)
    return state


def _position_of(state: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """Return (epoch, batch) at which training resumes from a state; both count from 0.

    Raises:
        CheckpointError: the state holds no position.
    """
    try:
        loops = state["loops"]["fit_loop"]
        epochs = loops["epoch_progress"]["current"]
        batch = loops["epoch_loop.batch_progress"]
        numbers = (epochs["processed"], epochs["started"], batch["current"]["processed"])
        is_last = batch["is_last_batch"]
    except (KeyError, TypeError, IndexError):
        raise _wrong(path, "loops does not hold the position of the training") from None
    if not all(map(_is_whole, numbers)) or not isinstance(is_last, bool):
        raise _wrong(path, "loops does not hold whole numbers of at least 0")
    done, started, batches = numbers
    return done, batches if started > done and not is_last else 0


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _wrong(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: the training state is damaged: {what}")
