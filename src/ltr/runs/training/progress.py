"""Progress of a training: a bar with rate and remaining time in a terminal, otherwise plain lines."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ltr.escaping import one_line, rich_text

_LINES = 10  # largest number of lines per stage without a terminal


class TrainingProgress(pl.Callback):
    """Progress display of a stage's training.

    Args:
        lines_every: epochs between two lines if the console is not a terminal; None: at most ten lines.
    """

    def __init__(self, stage: str, epochs: int, console: Console, lines_every: int | None = 1) -> None:
        self.stage = stage
        self.epochs = epochs
        self.console = console
        self.lines_every = lines_every or math.ceil(epochs / _LINES)
        self._bar: Progress | None = None
        self._task: Any = None
        self._started = 0.0
        self._first_epoch = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started, self._first_epoch = time.perf_counter(), trainer.current_epoch
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
                console=self.console,
                refresh_per_second=4,
                transient=True,
            )
            self._bar.start()
            total = self.epochs * int(trainer.num_training_batches)
            done = trainer.current_epoch * int(trainer.num_training_batches)
            self._task = self._bar.add_task(one_line(self.stage), total=total, completed=done, rate="")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)

    def show(self, row: Mapping[str, Any]) -> None:
        """Print the metrics of a finished epoch."""
        epoch = int(row["epoch"])
        monitored = [
            f"{k.split('/')[0]} {100 * v:.1f} %" for k, v in row.items() if k in ("val/accuracy", "test/accuracy")
        ]
        rate = f"{row['images_per_second']:.0f} images/s"
        if self._bar is not None:
            text = f"{self.stage} {epoch}/{self.epochs}  loss {row['train/loss']:.3f}  {'  '.join(monitored)}"
            self._bar.update(self._task, description=one_line(text), rate=rate)
        elif epoch % self.lines_every == 0 or epoch == self.epochs:
            seconds_per_epoch = (time.perf_counter() - self._started) / max(epoch - self._first_epoch, 1)
            remaining = timedelta(seconds=round(seconds_per_epoch * (self.epochs - epoch)))
            parts = [
                f"{self.stage}  epoch {epoch}/{self.epochs}",
                f"loss {row['train/loss']:.4f}",
                f"train {100 * row['train/accuracy']:.1f} %",
                *monitored,
                rate,
                f"{remaining} left",
            ]
            self.console.print(rich_text("  ".join(parts)), soft_wrap=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
