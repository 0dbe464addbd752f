"""Schedules of timm by name."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from timm.scheduler import create_scheduler_v2

from ltr.configuration.ranges import NonNegative, NonNegativeInt, Positive, PositiveInt, check_option
from ltr.errors import ConfigError, nearest
from ltr.identity import named
from ltr.names import counted
from ltr.optim.schedules import Per, Schedule

Name = Literal["cosine", "tanh", "step", "multistep", "poly"]
NAMES = get_args(Name)


@named("schedule/timm")
class TimmSchedule(Schedule):
    """Schedule of `timm.scheduler`, as the multiplier of the base learning rate.

    Arguments are passed to `timm.scheduler.create_scheduler_v2` with a base learning rate of 1: learning rates
    (``min_lr``, ``warmup_lr``) are multiples of ``optimizer.lr``, lengths are in epochs.

    Args:
        name: timm's name of the schedule.
        per: ``epoch`` keeps the value within an epoch, ``step`` changes it at every step.
        warmup_epochs: length of a linear rise from ``warmup_lr`` to the base learning rate.
        warmup_lr: learning rate at the start of the warm-up, as a multiple of the base one.
        min_lr: learning rate at the end, as a multiple of the base one.
        warmup_prefix: True starts the decay after the warm-up, False at the first epoch.
        decay_epochs: epochs between two drops of ``step``; None: a third of the run.
        decay_milestones: epochs after which ``multistep`` drops.
        decay_rate: factor of each drop of ``step`` and ``multistep``; exponent of ``poly``.
        cooldown_epochs: epochs at the end of the run that keep the last value, for ``cosine``, ``tanh`` and ``poly``.
        cycle_limit: cycles of ``cosine``, ``tanh`` and ``poly``.
        cycle_mul: ratio of the length of a cycle to that of the previous cycle.
        cycle_decay: ratio of the peak of a cycle to that of the previous cycle.
        k_decay: exponent of k-decay; 1: none.

    Raises:
        ConfigError: the name is unknown, or timm refuses a value; see also `Schedule`.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        *,
        name: Name = "cosine",
        per: Per = "epoch",
        warmup_epochs: NonNegative = 0,
        warmup_lr: NonNegative = 0.0,
        warmup_prefix: bool = False,
        min_lr: NonNegative = 0.0,
        decay_epochs: Positive | None = None,
        decay_milestones: Sequence[PositiveInt] = (),
        decay_rate: Positive = 0.1,
        cooldown_epochs: NonNegativeInt = 0,
        cycle_limit: PositiveInt = 1,
        cycle_mul: Positive = 1.0,
        cycle_decay: Positive = 1.0,
        k_decay: Positive = 1.0,
    ) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs=warmup_epochs)
        if name not in NAMES:
            reason = "it follows a metric, not the step; " if name == "plateau" else ""
            raise ConfigError(f"scheduler.name={name}: {reason}allowed are {', '.join(NAMES)}{nearest(name, NAMES)}")
        check_option("scheduler.per", per, Per)
        if not 0 <= cooldown_epochs < epochs:
            raise ConfigError(
                f"scheduler.cooldown_epochs={cooldown_epochs}: the run has {counted(epochs, 'epoch')}; allowed is "
                f"[0, {epochs})"
            )
        if cooldown_epochs and name in ("step", "multistep"):
            raise ConfigError(
                f"scheduler.cooldown_epochs={cooldown_epochs} has no effect on name={name}, whose value changes only "
                "at its drops. Set scheduler.cooldown_epochs=0, and the drops with scheduler.decay_epochs or "
                "scheduler.decay_milestones"
            )
        if name == "multistep" and not decay_milestones:
            raise ConfigError("scheduler.decay_milestones is empty: name=multistep needs epochs, such as [30,60]")
        self.per = per
        decaying = epochs - cooldown_epochs - (warmup_epochs if warmup_prefix else 0)
        # plain values only: a checkpoint holds the attributes of a schedule
        self.arguments: dict[str, Any] = {
            "sched": name,
            "num_epochs": decaying,
            "warmup_epochs": warmup_epochs,
            "warmup_lr": warmup_lr,
            "warmup_prefix": warmup_prefix,
            "min_lr": min_lr,
            "decay_epochs": decay_epochs or epochs / 3,
            "decay_milestones": list(decay_milestones),
            "decay_rate": decay_rate,
            "cycle_limit": cycle_limit,
            "cycle_mul": cycle_mul,
            "cycle_decay": cycle_decay,
            "k_decay": k_decay,
            "step_on_epochs": per == "epoch",
            "updates_per_epoch": self.steps_per_epoch,
        }
        try:
            self(0)
        except Exception as error:  # timm checks with assertions and divisions
            raise ConfigError(
                f"scheduler=timm with {self.arguments}: timm cannot build it ({type(error).__name__}: {error}). "
                f"Lengths must fit the run's {counted(epochs, 'epoch')}"
            ) from error

    def __call__(self, step: int) -> float:
        step = min(step, self.epochs * self.steps_per_epoch - 1)
        optimizer, scheduler = _timm_scheduler(tuple((key, _hashable(value)) for key, value in self.arguments.items()))
        if self.per == "epoch":
            scheduler.step(step // self.steps_per_epoch)
        else:
            scheduler.step_update(step)
        return float(optimizer.param_groups[0]["lr"])


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@functools.lru_cache(maxsize=8)
def _timm_scheduler(arguments: tuple[tuple[str, Any], ...]) -> tuple[torch.optim.Optimizer, Any]:
    """Return timm's scheduler and the optimiser of base learning rate 1 whose rate it sets."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, _ = create_scheduler_v2(optimizer, **dict(arguments))
    return optimizer, scheduler
