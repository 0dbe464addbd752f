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
    """Exponential moving average of a network's parameters and buffers: d * average + (1 - d) * current.

    The first update copies the current values. Update t, counted from 0, has d = `decay_of_update`. A constant decay
    leaves the weights of the first step a share of decay^t, which is most of the average in a short training.

    `AveragedModel` reads its counter of updates, a tensor of the device, at every update. This class reads it once,
    leaves the first update to it and computes all others itself, to the same bits.

    Args:
        network: network whose current values are the first average.
        decay: in [0, 1].
        warmup: True lets the decay rise to ``decay``, so that the first weights have no lasting share.
    """

    def __init__(self, network: nn.Module, decay: float, device: torch.device, *, warmup: bool = False) -> None:
        super().__init__(network, device=device, avg_fn=get_ema_avg_fn(decay), use_buffers=True)
        self.decay = decay
        self.warmup = warmup
        self._updates: int | None = None  # on the host; None: not yet read

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        if self._updates is None:  # not 0 in a resumed training
            self._updates = int(self.n_averaged)
        self._updates += 1
        if self._updates == 1:
            super().update_parameters(model)
            return
        decay = decay_of_update(self._updates - 1, self.decay) if self.warmup else self.decay
        averaged = chain(self.module.parameters(), self.module.buffers())
        pairs = list(zip(averaged, chain(model.parameters(), model.buffers()), strict=True))
        averages = [average for average, _ in pairs if average.is_floating_point()]
        values = [value for average, value in pairs if average.is_floating_point()]
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, torch._foreach_mul(values, 1 - decay))
        for average, value in pairs:
            if not average.is_floating_point():  # step counters of batch normalisation
                average.copy_(decay * average + (1 - decay) * value)
        self.n_averaged += 1


def decay_of_update(update: int, decay: float) -> float:
    """Return the decay of update t, counted from 0, with a warm-up: min(decay, (1 + t) / (10 + t)).

    It is that of TensorFlow's `ExponentialMovingAverage` with ``num_updates``.
    """
    return min(decay, (1 + update) / (10 + update))


class EMACallback(EMAWeightAveraging):
    """Callback that updates a `MovingAverage` after every optimiser step; evaluation and checkpoints use it.

    Args:
        decay: in [0, 1].
        warmup: see `MovingAverage`.
    """

    def __init__(self, decay: float, warmup: bool) -> None:
        super().__init__(decay=decay)
        self.decay = decay
        self.warmup = warmup

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit":  # before the network moves to the device
            device = trainer.strategy.root_device
            self._average_model = MovingAverage(pl_module, self.decay, device, warmup=self.warmup)
