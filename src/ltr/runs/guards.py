"""What stops a training: a loss that is not finite, or a signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from ltr.errors import TrainingError
from ltr.runs import group
from ltr.runs.interrupt import StopRequest


class FiniteGuard(pl.Callback):
    """Raises TrainingError when the loss is NaN or infinite, before a checkpoint can be poisoned.

    On a CPU every loss is looked at before its backward pass. On a GPU that would synchronise, so the first bad step
    is remembered on the device and looked at every ``every`` steps and before the epoch ends.

    Args:
        indices_of_step: (epoch, batch) -> source indices of that training batch, for the message.
        every: steps between looks on a GPU, and between measured gradient norms.
    """

    def __init__(self, indices_of_step: Callable[[int, int], np.ndarray], every: int) -> None:
        self.indices_of_step = indices_of_step
        self.every = every
        self._never = torch.iinfo(torch.int64).max
        self._first_bad: torch.Tensor | None = None
        self._norm: tuple[int, torch.Tensor] | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first_bad = torch.full((), self._never, dtype=torch.int64, device=pl_module.device)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        batch = trainer.fit_loop.epoch_loop.batch_idx
        if loss.device.type == "cpu":
            if not torch.isfinite(loss):
                self._stop(trainer, batch)
            return
        if self._first_bad is None:
            self.on_train_epoch_start(trainer, pl_module)
        assert self._first_bad is not None
        bad = torch.where(torch.isfinite(loss.detach()), self._never, batch)
        self._first_bad = torch.minimum(self._first_bad, bad)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        step = trainer.global_step
        if step < 10 or step % self.every == 0:
            gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
            if gradients:
                self._norm = (step, torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % self.every == 0:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        if self._first_bad is not None and self._first_bad.device.type != "cpu":
            first = int(self._first_bad)
            if first != self._never:
                self._stop(trainer, first)

    def _stop(self, trainer: pl.Trainer, batch: int) -> None:
        epoch = trainer.current_epoch
        indices = self.indices_of_step(epoch, batch)
        shown = ", ".join(str(i) for i in indices[:8]) + (", ..." if len(indices) > 8 else "")
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        norm = f"{float(self._norm[1]):.3g} (step {self._norm[0]})" if self._norm else "not measured yet"
        raise TrainingError(
            f"the loss is not finite in epoch {epoch + 1}, batch {batch + 1}\n"
            f"  images (source indices): {shown} ({len(indices)} in the batch)\n"
            f"  learning rate: {lr:.4g}; last measured gradient norm: {norm}\n"
            "  the last good checkpoint is untouched. Try a lower optimizer.lr, trainer.gradient_clip=1 or "
            "trainer.precision=fp32"
        )


class StopOnSignal(pl.Callback):
    """After a signal: save the training state at the next place from which training can go on, then leave.

    Such places are the ends of optimiser steps inside an epoch, and the ends of epochs but the last: a state saved at
    an epoch's last batch would come back without the epoch's end, and after the last epoch there is only the result
    to write.
    """

    def __init__(self, request: StopRequest, save: Callable[[pl.Trainer], None]) -> None:
        self.request = request
        self.save = save

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.request.listen()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if not self._asked():
            return
        in_step = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        if not in_step and batch_idx + 1 < trainer.num_training_batches:
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._asked() and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self._leave(trainer)

    def _asked(self) -> bool:
        """Whether a process was asked to stop, as all of them know it after the same batch."""
        asked = group.highest(self.request.signal or 0)[0]
        if asked and self.request.signal is None:
            self.request.signal = asked
        return bool(asked)

    def _leave(self, trainer: pl.Trainer) -> None:
        self.save(trainer)
        raise self.request.error(f"stopped in epoch {trainer.current_epoch + 1}")
