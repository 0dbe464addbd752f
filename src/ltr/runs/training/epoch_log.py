"""Log with one row of metrics per epoch, summed on the device during training and read at the end of the epoch."""

from __future__ import annotations

import contextlib
import csv
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ltr.files import write_csv
from ltr.runs.processes import distributed
from ltr.runs.result import FIRST_COLUMNS
from ltr.runs.training.incidents import REPLACED

METRICS = "metrics.csv"
_SECONDS_BETWEEN_WRITES = 1.0  # writing the whole file takes longer than an epoch of a few milliseconds


class EpochLog(pl.Callback):
    """Writer of ``metrics.csv`` (atomically, after each epoch) that passes each row to the loggers.

    `ValidationCallback` adds the metrics of the monitored split with `add` before the epoch ends. A resumed training
    drops the rows of epochs that it repeats.

    Args:
        stage: name of the stage, the first column.
        on_row: called with every finished row (the progress display).
        only_finite: True excludes batches whose loss is NaN or infinite.
    """

    def __init__(
        self,
        path: Path,
        stage: str,
        on_row: Callable[[Mapping[str, Any]], None] | None = None,
        only_finite: bool = False,
    ) -> None:
        self.only_finite = only_finite
        self.path = path
        self.stage = stage
        self.on_row = on_row
        self.rows: list[dict[str, Any]] = []
        self._extra: dict[str, float] = {}
        self._sums: torch.Tensor | None = None  # loss x images, correct, images: float64 on the device
        self._parts: tuple[torch.Tensor, ...] = ()  # views of its elements: indexing takes as long as adding
        self._loader: Any = None
        self._replaced = 0  # replaced images of this epoch before a resumed training, in all processes
        self._logs: dict[str, torch.Tensor] = {}  # values that a method logs at each step, times images
        self._seconds = 0.0  # training time of this epoch up to `_since`
        self._since = 0.0
        self._spent = 0.0  # time that interrupted runs spent on the stage
        self._began = time.perf_counter()
        self._written = 0.0  # time of the last write
        self._unwritten = False  # whether `rows` has rows that are not in the file

    @property
    def total_seconds(self) -> float:
        """Wall time of the stage in seconds, including interrupted runs that it continues."""
        return self._spent + time.perf_counter() - self._began

    def add(self, metrics: Mapping[str, float]) -> None:
        """Add metrics of the current epoch, e.g. ``{"val/accuracy": 0.5}``."""
        self._extra.update(metrics)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._loader = getattr(trainer, "train_dataloader", None)
        self.rows = [row for row in read_rows(self.path) if int(row["epoch"]) <= trainer.current_epoch]
        if self._sums is not None:  # resumed in mid-epoch: Lightning does not call on_train_epoch_start
            self._sums, self._parts = self._sums.to(pl_module.device), ()
            self._logs = {name: total.to(pl_module.device) for name, total in self._logs.items()}
        self._since = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        dtype = torch.float32 if pl_module.device.type == "mps" else torch.float64
        self._sums, self._parts = torch.zeros(3, dtype=dtype, device=pl_module.device), ()
        self._logs, self._extra, self._seconds, self._since = {}, {}, 0.0, time.perf_counter()
        self._replaced = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        images = batch.labels.shape[0]
        assert self._sums is not None
        correct = outputs.get("correct")
        if self.only_finite and not torch.isfinite(outputs["loss"]):
            return
        if not self._parts:
            self._parts = self._sums.unbind()
        loss_sum, correct_sum, image_sum = self._parts
        loss_sum += outputs["loss"].detach() * images
        if correct is not None:
            correct_sum += correct
        image_sum += images
        for name, value in outputs.get("logs", {}).items():
            value = value.detach().to(self._sums.dtype) * images
            self._logs[name] = self._logs[name] + value if name in self._logs else value

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pause(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def _pause(self, pl_module: pl.LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self._seconds += time.perf_counter() - self._since
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._pause(pl_module)
        assert self._sums is not None
        loss, correct, images = distributed.all_reduce_sum(self._sums).tolist()
        logs = {name: distributed.all_reduce_sum(total) for name, total in self._logs.items()}
        replaced = self._replaced_images()
        row = {
            "stage": self.stage,
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train/loss": loss / max(images, 1),
            "train/accuracy": correct / max(images, 1),
            "images_per_second": round(images / max(self._seconds, 1e-9), 1),
            **({} if replaced is None else {REPLACED: replaced}),
            **{f"train/{name}": float(total) / max(images, 1) for name, total in logs.items()},
            **self._extra,
        }
        self.rows.append(row)
        if not distributed.is_rank_zero():
            return
        self._unwritten = True
        is_last = trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
        if is_last or time.perf_counter() - self._written > _SECONDS_BETWEEN_WRITES:
            self._write()
        numbers = {key: value for key, value in row.items() if key not in ("stage", "step")}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)
        if self.on_row:
            self.on_row(row)

    def _replaced_images(self) -> int | None:
        """Return the replaced images of the epoch so far in all processes; None without ``trainer.on_error=skip``."""
        number = getattr(self._loader, "replaced_images", None)
        if number is None or self._sums is None:
            return None
        return self._replaced + int(distributed.all_reduce_sum(torch.tensor(number, device=self._sums.device)))

    def _write(self) -> None:
        if self._unwritten and distributed.is_rank_zero():
            write_csv(self.path, self.rows, FIRST_COLUMNS)
            self._written, self._unwritten = time.perf_counter(), False

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        self._write()  # a training that resumes from this state needs the rows of earlier epochs

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        with contextlib.suppress(OSError):  # a full disk may have stopped the training
            self._write()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write()

    def state_dict(self) -> dict[str, Any]:
        # collective: every process takes part, rank 0 writes
        return {
            "sums": None if self._sums is None else distributed.all_reduce_sum(self._sums).cpu(),
            "logs": {name: distributed.all_reduce_sum(total).cpu() for name, total in self._logs.items()},
            "replaced": self._replaced_images(),
            "seconds": self._seconds + time.perf_counter() - self._since,
            "spent": self.total_seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums, self._seconds, self._spent = state_dict["sums"], state_dict["seconds"], state_dict["spent"]
        self._parts = ()
        self._logs = dict(state_dict.get("logs", {}))
        self._replaced = state_dict.get("replaced") or 0
        if not distributed.is_rank_zero() and self._sums is not None:  # rank 0 holds the sums
            self._sums, self._parts = torch.zeros_like(self._sums), ()
            self._logs = {name: torch.zeros_like(total) for name, total in self._logs.items()}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a ``metrics.csv``, with texts as values; none if there is no such file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
