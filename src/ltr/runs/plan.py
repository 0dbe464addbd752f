"""From configuration and data to a plan: what a network must know, how it is trained, and the stages' keys."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltr.configuration.targets import instantiate
from ltr.data.source import ImageFiles, Source
from ltr.data.splits import Split
from ltr.errors import ConfigError
from ltr.methods.stage import DataFacts, Settings, Stage
from ltr.runs.keys import stage_key, stage_spec


def image_shape(config: Mapping[str, Any], source: Source) -> tuple[int, int, int]:
    """(C, H, W) of what the network sees."""
    if isinstance(source.images, ImageFiles):
        size = config["dataset"]["image_size"]
        return (3, size, size)
    _, height, width, channels = source.images.shape
    return (channels, height, width)


def data_facts(config: Mapping[str, Any], source: Source, split: Split) -> DataFacts:
    """What a network of this run must know of its data.

    Raises:
        ConfigError: ``dataset.mean`` or ``dataset.std`` do not fit the images' channels.
    """
    shape = image_shape(config, source)
    mean, std = config["dataset"]["mean"], config["dataset"]["std"]
    if len(mean) != shape[0] or len(std) != shape[0]:
        raise ConfigError(f"dataset.mean={mean} and dataset.std={std} need {shape[0]} numbers each, one per channel")
    if any(not value > 0 for value in std):
        raise ConfigError(f"dataset.std={std}: each must be above 0")
    return DataFacts(
        image_shape=shape,
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
        class_names=tuple(split.class_names),
        class_counts=tuple(int(count) for count in split.class_counts),
    )


def main_settings(config: Mapping[str, Any], precision: str) -> Settings:
    """The settings of a method's main stage, from the top level of the configuration."""
    trainer = config["trainer"]
    return Settings(
        sampler=config["sampler"],
        loss=config["loss"],
        augment=config["augment"],
        head=config["head"],
        backbone=config["backbone"],
        optimizer=config["optimizer"],
        scheduler=config["scheduler"],
        epochs=trainer["max_epochs"],
        batch_size=config["batch_size"],
        precision=precision,
        selection=trainer["selection"],
        accumulate=trainer["accumulate"],
        gradient_clip=trainer["gradient_clip"],
        ema_decay=trainer["ema_decay"],
        limit_train_batches=trainer["limit_train_batches"],
    )


def plan_keys(
    stages: Sequence[Stage], seed: int, source: Source, split: Split, facts: DataFacts
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Key and specification of every stage, parents first.

    Raises:
        ConfigError: a stage names a parent that does not stand before it, or needs images that the split has not.
        CheckpointError: a stage's checkpoint is not there.
    """
    keys: dict[str, str] = {}
    planned = {}
    for stage in stages:
        for parent in stage.parents:
            if parent not in keys:
                raise ConfigError(
                    f"stage '{stage.name}' starts from '{parent}', which does not stand before it; "
                    f"before it stand: {', '.join(keys) or 'none'}"
                )
        _check_parts(stage, split)
        spec = stage_spec(stage, seed, source, split, facts, keys)
        keys[stage.name] = stage_key(spec)
        planned[stage.name] = (keys[stage.name], spec)
    return planned


def _check_parts(stage: Stage, split: Split) -> None:
    for part in stage.reads:
        if not len(getattr(split, part)):
            raise ConfigError(
                f"stage '{stage.name}' is computed on the {part} images, and the split '{split.name}' has none. Set "
                f"dataset.val=train_fraction (or test_fraction), or method.{stage.name} to a number"
            )
    if stage.settings.selection == "best_val" and not len(split.val) and stage.checkpoint is None:
        raise ConfigError(
            f"stage '{stage.name}' selects its weights by selection=best_val, and the split '{split.name}' has no "
            "validation images. Set dataset.val=train_fraction (or test_fraction), or select the last epoch"
        )


def warn_of_double_balancing(settings: Settings, facts: DataFacts) -> None:
    """A loss that corrects for the class prior, on a sampler that has corrected it already, corrects twice."""
    loss = instantiate(settings.loss, facts.class_counts)
    sampler = instantiate(settings.sampler)
    counts = np.asarray(facts.class_counts)
    drawn = sampler.class_probabilities(counts, settings.epochs - 1, settings.epochs)
    if loss.adjusts_prior and not np.allclose(drawn, counts / counts.sum()):
        names = [str(page["_target_"]).rsplit(".", 1)[-1] for page in (settings.loss, settings.sampler)]
        warnings.warn(
            f"{names[0]} corrects for the class frequencies, and so does the sampler {names[1]}: together they "
            "over-correct. Use sampler=instance, or cross-entropy",
            stacklevel=2,
        )
