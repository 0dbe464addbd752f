"""Warnings about trainings that are allowed but hardly intended."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ltr.methods.core.stage import Settings, Stage

_TINY = 1e-12
_RATES = ("lr", "head_lr", "last_block_lr", "extra_lr")


def warn_of_tiny_rates(settings: Settings) -> None:
    """Warn if a learning rate is too small to change a weight in single precision."""
    for name in _RATES:
        rate = settings.optimizer.get(name)
        if isinstance(rate, (int, float)) and 0 <= rate < _TINY:
            warnings.warn(
                f"optimizer.{name}={rate:g} is below {_TINY:g}: weights will stay what they are. A usual rate is 0.1 "
                "for sgd and 0.001 for adamw",
                stacklevel=2,
            )


def warn_of_frozen_random_weights(stage: Stage) -> None:
    """Warn if a backbone stays at its random initial values."""
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
