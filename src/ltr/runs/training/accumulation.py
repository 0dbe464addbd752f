"""Gradient accumulation (``trainer.accumulate``): the gradient of a step is the mean over all images of its batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loops.optimization.automatic import ClosureResult, _AutomaticOptimization

from ltr.methods.core.settings import Settings


class _Undivided(ClosureResult):
    """Output of a training step whose loss is not divided; Lightning divides it by ``trainer.accumulate``."""

    @classmethod
    def from_training_step_output(cls, training_step_output: Any, normalize: int = 1) -> ClosureResult:
        return super().from_training_step_output(training_step_output)


class Accumulation(_AutomaticOptimization):
    """Lightning's loop of one optimiser, with each batch's loss weighted by its share of the step's images.

    Lightning divides every loss by ``trainer.accumulate``, even in the last step of an epoch, which may have fewer
    batches and a smaller last batch. For steps of full batches both give the same bits.

    Args:
        images_of_step: number of a batch in the epoch -> its number of images in this process.
        is_sum: True if losses are sums over images, which are added without weights.
    """

    output_result_cls = _Undivided

    def __init__(self, trainer: pl.Trainer, images_of_step: Callable[[int], int], is_sum: bool = False) -> None:
        super().__init__(trainer)
        self.images_of_step = images_of_step
        self.is_sum = is_sum

    def _training_step(self, kwargs: Any) -> ClosureResult:
        result = super()._training_step(kwargs)
        if result.closure_loss is not None and not self.is_sum:
            result.closure_loss = result.closure_loss / self._divisor(self.trainer.fit_loop.epoch_loop.batch_idx)
        return result

    def _divisor(self, batch: int) -> float:
        """Return the number of images of a batch's optimiser step over that of the batch."""
        step_size, batches = self.trainer.accumulate_grad_batches, int(self.trainer.num_training_batches)
        first = batch - batch % step_size
        total = sum(self.images_of_step(number) for number in range(first, min(first + step_size, batches)))
        images = self.images_of_step(batch)
        return total // images if total % images == 0 else total / images


def warn_of_long_accumulation(stage: str, settings: Settings, batches: int) -> None:
    """Warn if an epoch has fewer batches than one optimiser step takes.

    Args:
        batches: number of batches in an epoch.
    """
    if settings.accumulate <= batches or settings.accumulate == 1:
        return
    warnings.warn(
        f"stage '{stage}': trainer.accumulate={settings.accumulate} is more than the {batches} batches of an epoch, so "
        f"that an epoch is one optimiser step and the training has {settings.epochs} of them. For more steps lower "
        "trainer.accumulate or batch_size",
        stacklevel=2,
    )
