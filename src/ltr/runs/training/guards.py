"""Callbacks that stop a training on a non-finite loss or on a signal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from ltr.errors import TrainingError
from ltr.runs.processes import distributed
from ltr.runs.processes.interrupt import StopRequest


class FiniteGuard(pl.Callback):
    """Callback that raises TrainingError if the loss is NaN or infinite, before a checkpoint is written.

    On a CPU every loss is checked before its backward pass. On a GPU this would synchronise at every step; instead the
    device records the first bad step, and the callback reads the record every ``every`` steps and before the epoch
    ends. Several processes on CPUs agree before the optimiser step.

    Args:
        indices_of_step: (epoch, batch) -> source indices of that training batch, for the message.
        every: steps between checks on a GPU, and between measured gradient norms.
    """

    def __init__(self, indices_of_step: Callable[[int, int], np.ndarray], every: int) -> None:
        self.indices_of_step = indices_of_step
        self.every = every
        self._never = torch.iinfo(torch.int64).max
        self._first_bad: torch.Tensor | None = None
        self._bad_batch: int | None = None  # bad batch of this process, before several processes agree
        self._norm: tuple[int, torch.Tensor] | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first_bad = torch.full((), self._never, dtype=torch.int64, device=pl_module.device)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        batch = trainer.fit_loop.epoch_loop.batch_idx
        if loss.device.type == "cpu":
            if not math.isfinite(loss.item()):
                if not distributed.is_distributed():
                    self._stop(trainer, batch)
                self._bad_batch = batch
            return
        if self._first_bad is None:
            self.on_train_epoch_start(trainer, pl_module)
        assert self._first_bad is not None
        bad = torch.where(torch.isfinite(loss.detach()), self._never, batch)
        self._first_bad = torch.minimum(self._first_bad, bad)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        if (
            distributed.is_distributed()
            and pl_module.device.type == "cpu"
            and distributed.all_reduce_max(int(self._bad_batch is not None))[0]
        ):
            if self._bad_batch is None:
                raise distributed.ProcessLost("the loss is not finite in another process of this run, which reports it")
            self._stop(trainer, self._bad_batch)
        step = trainer.global_step
        if step < 10 or step % self.every == 0:
            gradients = _gradients(optimizer)
            if gradients:
                self._norm = (step, torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % self.every == 0:
            self._check_record(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_record(trainer)

    def _check_record(self, trainer: pl.Trainer) -> None:
        if self._first_bad is not None and self._first_bad.device.type != "cpu":
            first = int(self._first_bad)
            if first != self._never:
                self._stop(trainer, first)

    def _stop(self, trainer: pl.Trainer, batch: int) -> None:
        epoch = trainer.current_epoch
        indices = self.indices_of_step(epoch, batch)
        listing = ", ".join(str(i) for i in indices[:8]) + (", ..." if len(indices) > 8 else "")
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        norm = f"{float(self._norm[1]):.3g} (step {self._norm[0]})" if self._norm else "not measured yet"
        raise TrainingError(
            f"the loss is not finite in epoch {epoch + 1}, batch {batch + 1}\n"
            f"  images (source indices): {listing} ({len(indices)} in the batch)\n"
            f"  learning rate: {lr:.4g}; last measured gradient norm: {norm}\n"
            "  the last good checkpoint is kept. Try a lower optimizer.lr, trainer.gradient_clip=1 or "
            "trainer.precision=fp32"
        )


class SkipNonfinite(pl.Callback):
    """Callback that skips optimiser steps with non-finite gradients, up to a limit; replaces `FiniteGuard`.

    A skipped step changes neither weights nor momentum nor buffers (running statistics); the schedule continues. The
    check synchronises with a GPU at every step. All processes have the same averaged gradients and skip the same steps.

    Args:
        most: largest number of steps of the stage that may be skipped.
        print_line: prints the number of skipped steps at the end of an epoch.
    """

    def __init__(self, most: int, print_line: Callable[[str], None]) -> None:
        self.most = most
        self.print_line = print_line
        self.skipped = 0
        self._reported = 0
        self._before: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._before = [buffer.clone() for buffer in pl_module.buffers()]

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        gradients = _gradients(optimizer)
        if not gradients or bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients))):
            return
        self.skipped += 1
        if self.skipped > self.most:
            raise TrainingError(
                f"the loss was not finite in {self.skipped} optimiser steps, the last of them in epoch "
                f"{trainer.current_epoch + 1}; trainer.max_nonfinite={self.most} allows no more. Try a lower "
                "optimizer.lr, trainer.gradient_clip=1 or trainer.precision=fp32"
            )
        optimizer.zero_grad(set_to_none=True)  # an optimiser skips parameters without a gradient
        with torch.no_grad():
            for buffer, before in zip(pl_module.buffers(), self._before):
                buffer.copy_(before)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.skipped > self._reported:
            self.print_line(
                f"epoch {trainer.current_epoch + 1}: the loss was not finite in {self.skipped - self._reported} steps, "
                f"which were skipped; {self.skipped} of at most {self.most}"
            )
            self._reported = self.skipped

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = self._reported = state_dict["skipped"]


def _gradients(optimizer: Any) -> list[torch.Tensor]:
    return [p.grad for group_ in optimizer.param_groups for p in group_["params"] if p.grad is not None]


class StopOnSignal(pl.Callback):
    """Callback that saves the training state after a signal, at the next resumable step, and stops the run.

    Resumable steps are the ends of optimiser steps inside an epoch, and the ends of all epochs but the last: a state
    saved at the last batch of an epoch would resume without the end of that epoch, and after the last epoch only the
    result has to be written. Inside an epoch the callback also saves the state, without stopping, once
    ``every_minutes`` have passed since the last save.
    """

    def __init__(
        self, request: StopRequest, save: Callable[[pl.Trainer], None], every_minutes: float | None = None
    ) -> None:
        self.request = request
        self.save = save
        self.every = float("inf") if every_minutes is None else 60 * every_minutes
        self._saved = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.request.listen()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        is_stopping, is_due = self._agree(is_due=time.monotonic() - self._saved > self.every)
        if not is_stopping and not is_due:
            return
        in_step = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        if in_step or batch_idx + 1 >= trainer.num_training_batches:
            return
        if is_stopping:
            self._leave(trainer)
        self.save(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._saved = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._agree()[0] and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self._leave(trainer)

    def _agree(self, is_due: bool = False) -> tuple[bool, bool]:
        """Return whether any process received a signal, and whether a save is due in any process."""
        signal, any_due = distributed.all_reduce_max(self.request.signal or 0, int(is_due))
        if signal and self.request.signal is None:
            self.request.signal = signal
        return bool(signal), bool(any_due)

    def _leave(self, trainer: pl.Trainer) -> None:
        self.save(trainer)
        raise self.request.error(f"stopped in epoch {trainer.current_epoch + 1}")
