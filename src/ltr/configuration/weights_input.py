"""Preprocessing of pretrained weights as values of a data set's config: ``${of_weights:mean,[0.5]}``.

Weights are trained with one normalisation, size and interpolation. If the weights of a run describe them, the
description replaces the data set's value, the second argument; a value from another config or the command line
replaces both. Without weights nothing is imported.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltr.configuration.targets import locate
from ltr.errors import ConfigError

_ITEMS = ("mean", "std", "image_size", "image_resize", "interpolation", "array_interpolation")
# read of the backbone's config; its other keys may refer to the data set's
_READ = ("_target_", "name", "pretrained", "weights")


def weights_input(backbone: Any) -> Any:
    """Return the preprocessing of a backbone's weights as its class describes it; None without any.

    Args:
        backbone: its plain config, with at least ``_target_``.
    """
    if not backbone.get("pretrained") and not backbone.get("weights"):
        return None
    texts = (backbone.get("weights"), backbone.get("name"))
    if not all(text is None or isinstance(text, str) for text in texts):
        return None  # the checks of the configuration report the wrong type
    try:
        describe = getattr(locate(str(backbone.get("_target_")), "backbone"), "preprocessing", None)
    except ConfigError:  # the checks of the configuration report it
        return None
    return None if describe is None else describe(backbone)


def of_weights(item: str, otherwise: Any, *, _root_: DictConfig) -> Any:
    """Return an item of the preprocessing that the backbone's weights describe; ``otherwise`` without a description."""
    value = _described(item, otherwise, _root_)
    # OmegaConf.resolve, for --cfg job --resolve, takes no plain list
    return OmegaConf.create(value) if isinstance(value, list) else value


def _described(item: str, otherwise: Any, root: DictConfig) -> Any:
    if item not in _ITEMS:
        raise ConfigError(f"of_weights:{item}: allowed are {', '.join(_ITEMS)}")
    node = root.get("backbone")
    if not OmegaConf.is_dict(node):
        return otherwise
    backbone = {key: OmegaConf.select(root, f"backbone.{key}") for key in _READ}
    if item == "array_interpolation" and not OmegaConf.select(root, "dataset.resize_to"):
        return otherwise  # nothing is resized
    described = weights_input(backbone)
    if described is None:
        return otherwise
    if item in ("mean", "std"):
        return _for_channels(getattr(described, item), otherwise)
    if item == "image_size":
        return described.size or otherwise
    if item == "image_resize":
        size = OmegaConf.select(root, "dataset.image_size")
        resize = described.resize_for(size) if isinstance(size, int) else None
        return otherwise if resize is None else resize
    return otherwise if described.interpolation in (None, "bilinear") else described.interpolation


def _for_channels(values: tuple[float, ...], otherwise: Any) -> list[float]:
    """Return the numbers for as many channels as the data set has: grey images take the mean over the colours."""
    if len(values) == len(otherwise):
        return list(values)
    return [sum(values) / len(values)] if len(otherwise) == 1 else list(otherwise)
