"""Evaluation of the monitored split during training: metrics of each epoch, and the weights of the best epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ltr.files import written_atomically
from ltr.models.fused import fused_convolutions
from ltr.runs.processes import distributed
from ltr.runs.training.epoch_log import EpochLog


class ValidationCallback(pl.Callback):
    """Callback that evaluates the monitored split with a protocol and keeps the best epoch's weights.

    It precedes Lightning's weight averaging in the list of callbacks, so that it evaluates and keeps the averaged
    weights.

    Args:
        name: ``val`` or ``test``, the prefix of the metrics, as in ``val/accuracy``.
        protocol: link -> a new protocol object for an epoch.
        monitor: metric that selects the epoch; larger is better.
        log: receives the metrics.
        best_path: file of the best weights; None if no epoch is selected.
    """

    def __init__(
        self, name: str, protocol: Callable[[str], Any], monitor: str, log: EpochLog, best_path: Path | None
    ) -> None:
        self.name = name
        self.make_protocol = protocol
        self.monitor = monitor
        self.epoch_log = log  # not `log`: Lightning sets an attribute of that name on callbacks
        self.best_path = best_path
        self.best = float("-inf")
        self.best_epoch: int | None = None
        self._protocol: Any = None
        self._fused = ExitStack()

    @property
    def is_evaluating(self) -> bool:
        """True while images are evaluated."""
        return self._protocol is not None

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._protocol = self.make_protocol(str(pl_module.link))
        self._fused.enter_context(fused_convolutions(pl_module))

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self._protocol.update(outputs["scores"], outputs["batch"].labels, outputs["batch"].indices)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._protocol.reduce()
        metrics: Mapping[str, float] = self._protocol.compute().metrics
        self._protocol = None
        self._fused.close()
        self.epoch_log.add({f"{self.name}/{key}": value for key, value in metrics.items()})
        value = metrics[self.monitor]
        if self.best_path is not None and value > self.best:
            self.best, self.best_epoch = value, trainer.current_epoch + 1
            if not distributed.is_rank_zero():
                return
            with written_atomically(self.best_path) as temporary:
                torch.save({k: v.detach().cpu() for k, v in pl_module.state_dict().items()}, temporary)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._fused.close()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
