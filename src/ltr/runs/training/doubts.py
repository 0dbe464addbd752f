"""Warnings about valid training settings that are rarely intended."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltr.configuration.allowed import as_text
from ltr.configuration.configs import read_config
from ltr.configuration.targets import class_name, instantiate
from ltr.data.sampling.class_index import ClassIndex
from ltr.data.sampling.samplers import Instance
from ltr.losses.base import first_epoch
from ltr.methods.core.class_shares import ends_rebalanced
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Stage
from ltr.names import counted

_TINY = 1e-12
_LONG = 10_000  # epochs
_FIRST_SHARE = 0.01  # of the first step's weights in an average
_RATES = ("lr", "head_lr", "last_block_lr", "extra_lr")


def warn_of_doubts(stage: Stage, dataset_info: DatasetInfo) -> None:
    """Warn of all doubtful settings of a stage's training."""
    warn_of_double_balancing(stage.settings, dataset_info)
    warn_of_short_schedule(stage.settings)
    warn_of_tiny_rates(stage.settings)
    warn_of_frozen_random_weights(stage)
    warn_of_slow_average(stage, dataset_info)


def warn_of_double_balancing(settings: Settings, dataset_info: DatasetInfo) -> None:
    """Warn if the loss corrects for the class prior and the sampler does too."""
    loss = instantiate(settings.loss, dataset_info.class_counts)
    if loss.adjusts_prior and ends_rebalanced(settings, dataset_info):
        warnings.warn(
            f"{class_name(settings.loss)} corrects for the class frequencies, and so does the sampler "
            f"{class_name(settings.sampler)}: together they over-correct. Use sampler=instance, or cross-entropy",
            stacklevel=2,
        )


def warn_of_short_schedule(settings: Settings) -> None:
    """Warn if a run is too short for its schedule: the learning rate would drop during the warm-up."""
    schedule = instantiate(settings.scheduler, settings.epochs, 1)
    if schedule.milestones and schedule.milestones[0] < schedule.warmup_epochs:
        warnings.warn(
            f"the learning rate should fall after epoch {schedule.milestones[0]} of {settings.epochs}, but warms up "
            f"until epoch {schedule.warmup_epochs:g}. A run this short needs a smaller scheduler.warmup_epochs, or "
            "scheduler=cosine",
            stacklevel=2,
        )


def warn_of_tiny_rates(settings: Settings) -> None:
    """Warn if a learning rate is too small to change a weight in single precision."""
    for name in _RATES:
        rate = settings.optimizer.get(name)
        if isinstance(rate, (int, float)) and 0 <= rate < _TINY:
            warnings.warn(
                f"optimizer.{name}={rate:g} is below {_TINY:g}: weights will not change. A usual rate is 0.1 "
                "for sgd and 0.001 for adamw",
                stacklevel=2,
            )


def warn_of_frozen_random_weights(stage: Stage) -> None:
    """Warn if a frozen backbone, or the frozen part of one, has random weights."""
    backbone = stage.settings.backbone
    if stage.settings.tune is not None and not stage.parents and not _has_weights(backbone):
        warnings.warn(
            f"stage '{stage.name}': tune trains a part of the backbone, and there are no weights: the rest stays at "
            "random values. Give backbone.weights=FILE or backbone.pretrained=true, or set tune=all",
            stacklevel=2,
        )
    if stage.settings.features is not None and not _has_weights(backbone):
        warnings.warn(
            f"stage '{stage.name}': features=stored without weights: the features are those of a random backbone. Give "
            "backbone.weights=FILE or backbone.pretrained=true, or train the backbone with features=images",
            stacklevel=2,
        )
        return
    frozen = backbone.get("trainable") in ("none", "last_block")
    if frozen and not stage.parents and not _has_weights(backbone):
        part = "the backbone" if backbone["trainable"] == "none" else "all but the backbone's last block"
        warnings.warn(
            f"stage '{stage.name}': backbone.trainable={backbone['trainable']} without weights: {part} stays at random "
            "values. Give backbone.weights=FILE or backbone.pretrained=true, or set backbone.trainable=all",
            stacklevel=2,
        )


def _has_weights(backbone: Mapping[str, Any]) -> bool:
    return bool(backbone.get("weights") or backbone.get("pretrained"))


def warn_of_endless_deferrals(stages: Sequence[Stage], dataset_info: DatasetInfo) -> None:
    """Warn once of all that is deferred to a fraction of a stage's training that is not reached."""
    stages_of: dict[tuple[str, float, int], list[str]] = {}
    for stage in stages:
        if stage.module is not None and stage.checkpoint is None:
            for key, fraction in _deferrals(stage, dataset_info).items():
                if first_epoch(fraction, stage.settings.epochs) >= stage.settings.epochs:
                    stages_of.setdefault((key, fraction, stage.settings.epochs), []).append(f"'{stage.name}'")
    texts = []
    for (key, fraction, epochs), names in stages_of.items():
        least = next((n for n in range(epochs, _LONG) if first_epoch(fraction, n) < n), None)
        advice = "lower it" if least is None else f"lower it, or train for at least {counted(least, 'epoch')}"
        texts.append(
            f"{key}={fraction:g} of {counted(epochs, 'epoch')} never begins in {' and '.join(names)} ({advice})"
        )
    if texts:
        warnings.warn(f"the deferred part is not reached: {'; '.join(texts)}", stacklevel=2)


def _deferrals(stage: Stage, dataset_info: DatasetInfo) -> dict[str, float]:
    """Return the fractions of a stage's training after which something begins, by option."""
    settings = stage.settings
    sampler = instantiate(settings.sampler)
    loss = instantiate(settings.loss, dataset_info.class_counts)
    fractions = {
        "sampler.defer_from": getattr(sampler, "defer_from", None),
        # a loss without weights and prior has nothing to defer
        "loss.defer_from": getattr(loss, "defer_from", None) if getattr(loss, "adjusts_prior", True) else None,
        **{f"method.{key}": stage.options.get(key) for key in getattr(stage.module, "deferred_options", ())},
    }
    is_instance = isinstance(sampler, Instance)  # which is the same before and after
    return {
        key: fraction
        for key, fraction in fractions.items()
        if fraction is not None and not (is_instance and key == "sampler.defer_from")
    }


def warn_of_slow_average(stage: Stage, dataset_info: DatasetInfo) -> None:
    """Warn if an average with a constant decay keeps a share of its first weights: decay^steps."""
    settings = stage.settings
    if settings.ema_decay is None or settings.ema_warmup or settings.solver == "lbfgs":
        return
    steps = steps_of(settings, dataset_info)
    share = settings.ema_decay**steps
    if share <= _FIRST_SHARE:
        return
    digits = 1 - math.floor(math.log10(1 - _FIRST_SHARE ** (1 / steps)))  # two of 1 - decay
    fitting = 1 - math.ceil((1 - _FIRST_SHARE ** (1 / steps)) * 10**digits) / 10**digits
    warnings.warn(
        f"stage '{stage.name}': trainer.ema_decay={settings.ema_decay:g} with trainer.ema_warmup=false: the first "
        f"weights have {100 * share:.3g} % of the average after {counted(steps, 'step')}. Set "
        f"trainer.ema_warmup=true, or trainer.ema_decay={max(fitting, _FIRST_SHARE):.{digits}f} at most",
        stacklevel=2,
    )


def steps_of(settings: Settings, dataset_info: DatasetInfo) -> int:
    """Return the number of optimiser steps of a stage's training."""
    counts = np.asarray(dataset_info.class_counts)
    index = ClassIndex(np.arange(counts.sum()), np.cumsum(counts) - counts, counts)
    batches = math.ceil(instantiate(settings.sampler).length(index) / settings.batch_size)
    if settings.limit_train_batches is not None:
        batches = min(batches, settings.limit_train_batches)
    return settings.epochs * math.ceil(batches / settings.accumulate)


def warn_of_unused_trainer_options(trainer: Mapping[str, Any]) -> None:
    """Warn of options of the trainer that differ from their defaults and that nothing reads."""
    defaults = read_config("trainer/default")
    for key, is_read, needed in (
        ("ema_warmup", trainer["ema_decay"] is not None, "ema_decay=0.999"),
        ("max_skipped", trainer["on_error"] == "skip", "on_error=skip"),
        ("max_nonfinite", trainer["on_nonfinite"] == "skip", "on_nonfinite=skip"),
    ):
        if not is_read and trainer[key] != defaults[key]:
            other = needed.partition("=")[0]
            warnings.warn(
                f"trainer.{key}={as_text(trainer[key])} has no effect: trainer.{other} is {as_text(trainer[other])}. "
                f"Leave it out, or set trainer.{needed}",
                stacklevel=2,
            )


def warn_of_large_batch(stage: Stage, images: int) -> None:
    """Warn if a batch would hold more images than an epoch has.

    Args:
        images: number of images in an epoch, over all processes.
    """
    if stage.settings.batch_size > images:
        warnings.warn(
            f"stage '{stage.name}': batch_size={stage.settings.batch_size} is more than the {images} training images "
            f"of an epoch: each epoch is one step, and the training has {stage.settings.epochs} of them",
            stacklevel=2,
        )
