"""Schedules: the multiplier of the base learning rate as a pure function of the optimiser step.

Each is called once per optimiser step through `torch.optim.lr_scheduler.LambdaLR`; step 0 is the first. Attributes are
plain numbers, so a scheduler's state loads with ``weights_only=True``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ltr.errors import ConfigError
from ltr.identity import named


def milestone_epoch(fraction: float, epochs: int) -> int:
    """The whole epoch (from 0) nearest to ``fraction`` of the run: 0.8 of 200 is 160. Deferred losses round alike."""
    return round(fraction * epochs)


class Schedule:
    """Common parts: the length of the run, progress, and linear warm-up.

    Args:
        epochs: of the stage, >= 1.
        steps_per_epoch: optimiser steps, >= 1.
        warmup_epochs: length of the warm-up, >= 0; may be a fraction of an epoch.
        warmup: ``epoch`` multiplies epoch e (from 1) by e / warmup_epochs, as LDAM-DRW does; ``step`` rises
            continuously from 0 at the very first step, as the class-balanced loss does.

    Raises:
        ConfigError: lengths below 1, or a warm-up longer than the run.
    """

    milestones: Sequence[int] = ()  # epochs after which the rate falls by a step

    def __init__(self, epochs: int, steps_per_epoch: int, *, warmup_epochs: float = 0, warmup: str = "step") -> None:
        if epochs < 1 or steps_per_epoch < 1:
            raise ConfigError(f"A schedule needs at least one step: {epochs} epochs of {steps_per_epoch} steps given.")
        if warmup not in ("epoch", "step"):
            raise ConfigError(f"scheduler.warmup is '{warmup}'; allowed: epoch, step.")
        if not 0 <= warmup_epochs <= epochs:
            raise ConfigError(
                f"scheduler.warmup_epochs is {warmup_epochs} and the run has {epochs} epochs; the warm-up must be in "
                f"[0, {epochs}]. Set scheduler.warmup_epochs={min(epochs // 10, 5)} or raise trainer.max_epochs."
            )
        self.epochs = int(epochs)
        self.steps_per_epoch = int(steps_per_epoch)
        self.warmup_epochs = float(warmup_epochs)
        self.warmup = warmup

    def __call__(self, step: int) -> float:
        """Multiplier in [0, 1] for a step; steps beyond the run get the last value."""
        step = min(step, self.epochs * self.steps_per_epoch)
        epoch = step / self.steps_per_epoch
        if self.warmup == "epoch":
            epoch = math.floor(epoch)
            if epoch + 1 <= self.warmup_epochs:
                return (epoch + 1) / self.warmup_epochs
        elif epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        return self.after_warmup(step)

    def after_warmup(self, step: int) -> float:
        """The multiplier once the warm-up is over."""
        raise NotImplementedError


@named("schedule/constant")
class Constant(Schedule):
    """The base learning rate throughout, after an optional warm-up."""

    def after_warmup(self, step: int) -> float:
        return 1.0


@named("schedule/multistep")
class MultiStep(Schedule):
    """Multiplied by ``gamma`` at each milestone.

    With milestones 0.8 and 0.9, gamma 0.01 and five epochs of warm-up this is the CIFAR recipe of LDAM-DRW and of the
    class-balanced loss: 160 and 180 of 200 epochs, multipliers 1, 0.01, 0.0001.

    Args:
        milestones: rising; a number below 1 is a fraction of the run, any other an epoch (from 0: milestone 160 means
            that 160 epochs are over).
        gamma: > 0.

    A milestone within the warm-up, of a run too short for its recipe, counts from the warm-up's end on.

    Raises:
        ConfigError: milestones that do not rise or lie outside the run; see `Schedule`.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        *,
        milestones: Sequence[float],
        gamma: float = 0.1,
        warmup_epochs: float = 0,
        warmup: str = "step",
    ) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs=warmup_epochs, warmup=warmup)
        listed = list(milestones)
        if any(not 0 < milestone < epochs or (milestone >= 1 and milestone % 1) for milestone in listed):
            raise ConfigError(
                f"scheduler.milestones are {listed} and the run has {epochs} epochs; allowed are fractions of the run "
                f"in (0, 1) and whole epochs below {epochs}. Fractions such as [0.6, 0.8] fit any length."
            )
        if not gamma > 0:
            raise ConfigError(f"scheduler.gamma is {gamma}; it must be above 0.")
        # a drop before the first epoch is none, it would only lower the base rate of very short runs
        whole = [max(1, milestone_epoch(m, epochs)) if m < 1 else int(m) for m in listed]
        if whole != sorted(whole):
            raise ConfigError(f"scheduler.milestones are {listed}: epochs {whole} of {epochs}, which do not rise.")
        self.milestones = whole
        self.gamma = float(gamma)

    def after_warmup(self, step: int) -> float:
        epoch = step // self.steps_per_epoch
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)


@named("schedule/cosine")
class Cosine(Schedule):
    """Half a cosine from 1 to ``final`` over what the warm-up leaves: final + (1 - final) (1 + cos(pi t / T)) / 2.

    Args:
        per: ``epoch`` holds the value through an epoch (t = 0 .. T-1, so the end itself is not reached), as in the
            decoupling paper's code, which under today's PyTorch skips its first value; ``step`` moves every step.
        final: multiplier at the end, in [0, 1].

    Raises:
        ConfigError: an unknown ``per``, a final value outside its range; see `Schedule`.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        *,
        per: str = "epoch",
        final: float = 0.0,
        warmup_epochs: float = 0,
        warmup: str = "step",
    ) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs=warmup_epochs, warmup=warmup)
        if per not in ("epoch", "step"):
            raise ConfigError(f"scheduler.per is '{per}'; allowed: epoch, step.")
        if not 0 <= final <= 1:
            raise ConfigError(f"scheduler.final is {final}; allowed is [0, 1].")
        self.per = per
        self.final = float(final)

    def after_warmup(self, step: int) -> float:
        epoch = step / self.steps_per_epoch
        if self.per == "epoch":
            epoch = math.floor(epoch)
        length = self.epochs - self.warmup_epochs
        progress = min(max(epoch - self.warmup_epochs, 0.0) / length, 1.0) if length > 0 else 1.0
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


@named("schedule/released_cosine")
class ReleasedCosine(Schedule):
    """The learning rate of HERBS's and PIM's released code: not quite a warm-up and a cosine to zero.

    In a warm-up of w batches, batch i has i / (w - 1): 0 at the first, 1 at the last. After it, with t = i - w, the
    multiplier is (1 + cos(pi t / T)) / 2 over *all* T batches of the run, not over those that the warm-up leaves, so
    that it never reaches 0: for HERBS on CUB it ends at 0.15 % of the peak. The code's floor of 1e-9 is left out.

    The code counts batches, also where several make an optimiser step; that step has the rate of its last batch.
    `count_batches` says how many there are; without it a step is a batch.

    Args:
        warmup_epochs: w in epochs, rounded to whole batches; a single batch of warm-up has the rate 0, as in the code.

    Raises:
        ConfigError: see `Schedule`.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, *, warmup_epochs: float = 0) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs=warmup_epochs)
        self.batches_per_epoch = self.steps_per_epoch
        self.batches_per_step = 1

    def count_batches(self, batches_per_epoch: int, batches_per_step: int) -> None:
        """Set how many batches an epoch has, and how many of them make an optimiser step (fewer at an epoch's end)."""
        self.batches_per_epoch = int(batches_per_epoch)
        self.batches_per_step = int(batches_per_step)

    def __call__(self, step: int) -> float:
        epoch, of_epoch = divmod(step, self.steps_per_epoch)
        last = min((of_epoch + 1) * self.batches_per_step, self.batches_per_epoch) - 1
        total = self.epochs * self.batches_per_epoch
        batch = min(epoch * self.batches_per_epoch + last, total - 1)
        warmup = round(self.warmup_epochs * self.batches_per_epoch)
        if batch < warmup:
            return batch / (warmup - 1) if warmup > 1 else 0.0
        return (1 + math.cos(math.pi * (batch - warmup) / total)) / 2


@named("schedule/one_cycle")
class OneCycle(Schedule):
    """Up from 1 / ``start_div`` to 1, then down to 1 / (``start_div`` ``final_div``), both by half a cosine.

    Smith and Topin (2018) in the two-phase form of torch's OneCycleLR, per step; the base learning rate is the peak.
    Momentum is not cycled.

    Args:
        warmup_epochs: length of the rise; null is 0.3 of the run.
        start_div, final_div: >= 1.

    Raises:
        ConfigError: a divisor below 1; see `Schedule`.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        *,
        warmup_epochs: float | None = None,
        start_div: float = 25.0,
        final_div: float = 1e4,
    ) -> None:
        super().__init__(
            epochs, steps_per_epoch, warmup_epochs=0.3 * epochs if warmup_epochs is None else warmup_epochs
        )
        if start_div < 1 or final_div < 1:
            raise ConfigError(f"scheduler.start_div={start_div} and final_div={final_div} must be at least 1.")
        self.start_div = float(start_div)
        self.final_div = float(final_div)

    def __call__(self, step: int) -> float:
        last = self.epochs * self.steps_per_epoch - 1
        peak = self.warmup_epochs * self.steps_per_epoch - 1  # between steps, as in torch
        low, end = 1 / self.start_div, 1 / (self.start_div * self.final_div)
        step = min(step, last)
        if peak > 0 and step <= peak:
            return _half_cosine(low, 1.0, step / peak)
        start = max(peak, 0.0)
        return _half_cosine(1.0, end, (step - start) / (last - start) if last > start else 0.0)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
