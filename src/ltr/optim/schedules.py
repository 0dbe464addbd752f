"""Schedules: the multiplier of the base learning rate as a pure function of the optimiser step.

`torch.optim.lr_scheduler.LambdaLR` calls a schedule once per optimiser step, counted from 0. Attributes are plain
numbers, so that the state of a scheduler loads with ``weights_only=True``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from ltr.configuration.ranges import AtLeastOne, Fraction, NonNegative, NonNegativeInt, Positive, check_option
from ltr.configuration.unwritten import left_to_subclasses
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.names import counted

Warmup = Literal["epoch", "step"]
Per = Literal["epoch", "step"]


def milestone_epoch(fraction: float, epochs: int) -> int:
    """Return ``fraction`` of the epochs, rounded as in deferred losses: 0.8 of 200 is 160."""
    return round(fraction * epochs)


class Schedule:
    """Base class of schedules with a linear warm-up.

    Args:
        epochs: epochs of the stage, >= 1.
        steps_per_epoch: optimiser steps per epoch, >= 1.
        warmup_epochs: epochs of a linear rise to the base learning rate; need not be whole. A config may give n/m: n
            epochs, in a run of fewer than m at most a tenth of it.
        warmup: ``epoch`` multiplies epoch e (from 1) by e / warmup_epochs, as LDAM-DRW does; ``step`` rises at every
            step from 0 at the first, as the class-balanced loss does.

    Raises:
        ConfigError: a length is below 1, or the warm-up is longer than the run.
    """

    milestones: Sequence[int] = ()  # epochs after which the learning rate drops

    def __init__(
        self, epochs: int, steps_per_epoch: int, *, warmup_epochs: NonNegative = 0, warmup: Warmup = "step"
    ) -> None:
        if epochs < 1 or steps_per_epoch < 1:
            raise ConfigError(
                f"A schedule needs at least one step, not {counted(epochs, 'epoch')} of "
                f"{counted(steps_per_epoch, 'step')}. Raise trainer.max_epochs, or lower batch_size."
            )
        check_option("scheduler.warmup", warmup, Warmup)
        if not 0 <= warmup_epochs <= epochs:
            raise ConfigError(
                f"scheduler.warmup_epochs is {warmup_epochs} and the run has {counted(epochs, 'epoch')}; the warm-up "
                f"must be in [0, {epochs}]. Set scheduler.warmup_epochs={min(epochs // 10, 5)} or raise "
                "trainer.max_epochs."
            )
        self.epochs = int(epochs)
        self.steps_per_epoch = int(steps_per_epoch)
        self.warmup_epochs = float(warmup_epochs)
        self.warmup = warmup

    def __call__(self, step: int) -> float:
        """Return the multiplier in [0, 1] of a step; steps beyond the run get the last value."""
        step = min(step, self.epochs * self.steps_per_epoch)
        epoch = step / self.steps_per_epoch
        if self.warmup == "epoch":
            epoch = math.floor(epoch)
            if epoch + 1 <= self.warmup_epochs:
                return (epoch + 1) / self.warmup_epochs
        elif epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        return self.after_warmup(step)

    @left_to_subclasses("__call__")
    def after_warmup(self, step: int) -> float:
        """Return the multiplier of a step after the warm-up."""
        raise NotImplementedError


@named("schedule/constant")
class Constant(Schedule):
    """Constant base learning rate after an optional warm-up."""

    def after_warmup(self, step: int) -> float:
        return 1.0


@named("schedule/multistep")
class MultiStep(Schedule):
    """Step schedule that multiplies the learning rate by ``gamma`` at each milestone.

    Milestones 0.8 and 0.9, gamma 0.01 and five epochs of warm-up are the CIFAR recipe of LDAM-DRW and of the
    class-balanced loss: drops after 160 and 180 of 200 epochs, multipliers 1, 0.01, 0.0001. A milestone within the
    warm-up of a short run takes effect at the end of the warm-up.

    Args:
        milestones: in rising order; a number below 1 is a fraction of the run, any other a number of completed epochs.
        gamma: factor at each milestone.
        warmup_from: multiplier at the first step of a warm-up by steps; background splitting's code has 0.1.

    Raises:
        ConfigError: milestones do not rise or lie outside the run, or ``warmup_from`` has no effect; see also
            `Schedule`.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        *,
        milestones: Sequence[float],
        gamma: Positive = 0.1,
        warmup_epochs: NonNegative = 0,
        warmup: Warmup = "step",
        warmup_from: Fraction = 0.0,
    ) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs=warmup_epochs, warmup=warmup)
        check_option("scheduler.warmup_from", warmup_from, Fraction)
        if warmup_from and warmup == "epoch":
            raise ConfigError(
                f"scheduler.warmup_from={warmup_from} has no effect with scheduler.warmup=epoch, whose first epoch has "
                "the multiplier 1 / warmup_epochs. Set scheduler.warmup=step or scheduler.warmup_from=0"
            )
        self.warmup_from = float(warmup_from)
        listed = list(milestones)
        if any(not 0 < milestone < epochs or (milestone >= 1 and milestone % 1) for milestone in listed):
            raise ConfigError(
                f"scheduler.milestones are {listed} and the run has {counted(epochs, 'epoch')}; allowed are "
                f"fractions of the run in (0, 1) and whole epochs below {epochs}. Fractions such as "
                "[0.6, 0.8] fit any length."
            )
        check_option("scheduler.gamma", gamma, Positive)
        # a drop before the first epoch would only lower the base rate of very short runs
        whole = [max(1, milestone_epoch(m, epochs)) if m < 1 else int(m) for m in listed]
        if whole != sorted(whole):
            raise ConfigError(
                f"scheduler.milestones are {listed}, epochs {whole} of {epochs}: they must rise. Sort them."
            )
        self.milestones = whole
        self.gamma = float(gamma)

    def __call__(self, step: int) -> float:
        multiplier = super().__call__(step)
        if self.warmup_from and step < self.warmup_epochs * self.steps_per_epoch:
            return self.warmup_from + (1 - self.warmup_from) * multiplier
        return multiplier

    def after_warmup(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


@named("schedule/cosine")
class Cosine(Schedule):
    """Half a cosine from 1 to ``final`` after the warm-up: final + (1 - final) (1 + cos(pi t / T)) / 2.

    Args:
        per: ``epoch`` keeps the value within an epoch (t = 0 .. T-1, so that it does not reach ``final``), as in the
            decoupling paper's code, which skips its first value under recent PyTorch; ``step`` changes at every step.
        final: multiplier at the end.

    Raises:
        ConfigError: ``per`` is unknown, or ``final`` is outside its range; see also `Schedule`.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        *,
        per: Per = "epoch",
        final: Fraction = 0.0,
        warmup_epochs: NonNegative = 0,
        warmup: Warmup = "step",
    ) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs=warmup_epochs, warmup=warmup)
        check_option("scheduler.per", per, Per)
        check_option("scheduler.final", final, Fraction)
        self.per = per
        self.final = float(final)

    def after_warmup(self, step: int) -> float:
        epoch = step / self.steps_per_epoch
        if self.per == "epoch":
            epoch = math.floor(epoch)
        length = self.epochs - self.warmup_epochs
        progress = min(max(epoch - self.warmup_epochs, 0.0) / length, 1.0) if length > 0 else 1.0
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@named("schedule/cosine_restarts")
class CosineRestarts(Schedule):
    """Cosine with warm restarts as in the code of Vaze et al. (ICLR 2022), constant within an epoch.

    The run has ``restarts`` + 1 cycles of T epochs, each half a cosine from 1 to ``final``: c(t) = final + (1 - final)
    (1 + cos(pi (t mod T) / T)) / 2, where T = epochs / (restarts + 1), rounded down but at least 1. The code sets the
    rate of an epoch by the number of the epoch before: epoch e (from 0) has c(e - 1), the first one c(0). A warm-up
    begins at ``final`` in the first epoch, rises linearly and joins the first cosine after ``warmup_epochs``.

    Args:
        restarts: restarts after the first cycle.
        final: multiplier at the end of each cycle and at the beginning of a warm-up.
        warmup_epochs: length of the rise in whole epochs (10 in the code, of 600); a part of an epoch is left out.

    Raises:
        ConfigError: a value is outside its range; see also `Schedule`.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        *,
        restarts: NonNegativeInt = 2,
        final: Fraction = 1e-3,
        warmup_epochs: NonNegative = 0,
    ) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs=warmup_epochs)
        check_option("scheduler.restarts", restarts, NonNegativeInt)
        check_option("scheduler.final", final, Fraction)
        self.cycle = max(self.epochs // (restarts + 1), 1)
        self.final = float(final)
        self.warmup_epochs = float(math.floor(warmup_epochs))

    def __call__(self, step: int) -> float:
        epoch = min(step // self.steps_per_epoch, self.epochs - 1)
        if self.warmup_epochs and epoch <= self.warmup_epochs:
            return self.final + (self._cosine(self.warmup_epochs) - self.final) * epoch / self.warmup_epochs
        return self._cosine((max(epoch, 1) - 1) % self.cycle)

    def _cosine(self, epoch: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * epoch / self.cycle)) / 2


@named("schedule/released_cosine")
class ReleasedCosine(Schedule):
    """Schedule of HERBS's and PIM's released code, which is not exactly a warm-up with a cosine to zero.

    In a warm-up of w batches, batch i has the multiplier i / (w - 1): 0 at the first, 1 at the last. After it, with
    t = i - w, the multiplier is (1 + cos(pi t / T)) / 2 over *all* T batches of the run, not only those after the
    warm-up. It therefore never reaches 0: for HERBS on CUB it ends at 0.15 % of the peak. The code's floor of 1e-9 is
    left out.

    The code counts batches even if several make one optimiser step; the step then uses the rate of its last batch.
    `count_batches` sets the batches per step; without it every batch is a step.

    Args:
        warmup_epochs: w in epochs, rounded to whole batches; a warm-up of one batch has the rate 0, as in the code.

    Raises:
        ConfigError: see `Schedule`.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, *, warmup_epochs: NonNegative = 0) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs=warmup_epochs)
        self.batches_per_epoch = self.steps_per_epoch
        self.batches_per_step = 1

    def count_batches(self, batches_per_epoch: int, batches_per_step: int) -> None:
        """Set the batches per epoch and per optimiser step (the last step of an epoch may have fewer)."""
        self.batches_per_epoch = int(batches_per_epoch)
        self.batches_per_step = int(batches_per_step)

    def __call__(self, step: int) -> float:
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        last = min((step_in_epoch + 1) * self.batches_per_step, self.batches_per_epoch) - 1
        total = self.epochs * self.batches_per_epoch
        batch = min(epoch * self.batches_per_epoch + last, total - 1)
        warmup = round(self.warmup_epochs * self.batches_per_epoch)
        if batch < warmup:
            return batch / (warmup - 1) if warmup > 1 else 0.0
        return (1 + math.cos(math.pi * (batch - warmup) / total)) / 2


@named("schedule/one_cycle")
class OneCycle(Schedule):
    """Half a cosine up from 1 / ``start_div`` to 1, then half a cosine down to 1 / (``start_div`` ``final_div``).

    This is the one-cycle policy of Smith and Topin (2018) in the two-phase form of torch's OneCycleLR, per step. The
    base learning rate is the peak, and momentum is not cycled.

    Args:
        warmup_epochs: length of the rise; None: 0.3 of the run.
        start_div: divisor of the first learning rate, lr / start_div.
        final_div: further divisor of the last learning rate, lr / (start_div final_div).

    Raises:
        ConfigError: a divisor is below 1; see also `Schedule`.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        *,
        warmup_epochs: NonNegative | None = None,
        start_div: AtLeastOne = 25.0,
        final_div: AtLeastOne = 1e4,
    ) -> None:
        super().__init__(
            epochs, steps_per_epoch, warmup_epochs=0.3 * epochs if warmup_epochs is None else warmup_epochs
        )
        check_option("scheduler.start_div", start_div, AtLeastOne)
        check_option("scheduler.final_div", final_div, AtLeastOne)
        self.start_div = float(start_div)
        self.final_div = float(final_div)

    def __call__(self, step: int) -> float:
        last = self.epochs * self.steps_per_epoch - 1
        peak = self.warmup_epochs * self.steps_per_epoch - 1  # may lie between steps, as in torch
        low, end = 1 / self.start_div, 1 / (self.start_div * self.final_div)
        step = min(step, last)
        if peak > 0 and step <= peak:
            return _half_cosine(low, 1.0, step / peak)
        start = max(peak, 0.0)
        return _half_cosine(1.0, end, (step - start) / (last - start) if last > start else 0.0)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
