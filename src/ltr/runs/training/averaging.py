"""Exponential moving average of the weights (``trainer.ema_decay``), without waiting for the device."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn


class MovingAverage(AveragedModel):
    """Exponential moving average of a network's parameters and buffers: decay * average + (1 - decay) * current.

    `AveragedModel` reads its counter of updates, a tensor of the device, at every update. This class leaves the first
    update to it and computes all others itself, to the same bits.

    Args:
        network: network whose current values are the first average.
        decay: in [0, 1].
    """

    def __init__(self, network: nn.Module, decay: float, device: torch.device) -> None:
        super().__init__(network, device=device, avg_fn=get_ema_avg_fn(decay), use_buffers=True)
        self.decay = decay
        self._has_average = False

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        if not self._has_average:  # a new average copies the values; that of a resumed training does not
            super().update_parameters(model)
            self._has_average = True
            return
        averaged = chain(self.module.parameters(), self.module.buffers())
        pairs = list(zip(averaged, chain(model.parameters(), model.buffers()), strict=True))
        averages = [average for average, _ in pairs if average.is_floating_point()]
        values = [value for average, value in pairs if average.is_floating_point()]
        torch._foreach_mul_(averages, self.decay)
        torch._foreach_add_(averages, torch._foreach_mul(values, 1 - self.decay))
        for average, value in pairs:
            if not average.is_floating_point():  # step counters of batch normalisation
                average.copy_(self.decay * average + (1 - self.decay) * value)
        self.n_averaged += 1


class EMACallback(EMAWeightAveraging):
    """Callback that updates a `MovingAverage` after every optimiser step; evaluation and checkpoints use it.

    Args:
        decay: in [0, 1].
    """

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit":  # before the network moves to the device
            self._average_model = MovingAverage(pl_module, self.decay, trainer.strategy.root_device)
