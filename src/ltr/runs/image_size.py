"""Check that the networks of a run accept its image size, with one blank image before training."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ltr.configuration.configs import canonical_json
from ltr.configuration.targets import class_name, instantiate
from ltr.configuration.weights_input import weights_input
from ltr.errors import LtrError, first_line
from ltr.methods.core.checkpoint import without_initial_weights
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.core.stage import Stage
from ltr.models.backbones import ImageSizeError, check_weights_map, config_for_image_size
from ltr.models.hub_weights import HUB
from ltr.models.probing import ImageShape, ProbeResult, ignored_share, nearest_sides, probe
from ltr.models.weights import seeded_construction
from ltr.runs.failures import is_out_of_memory

_SEARCH_SECONDS = 15.0  # time limit of the search for accepted sizes


def check_configured_size(config: Mapping[str, Any]) -> None:
    """Refuse a configured size of image files that the main backbone does not accept, without reading data.

    Raises:
        ImageSizeError: see `_check_backbone`.
    """
    side = config["dataset"].get("image_size")
    if isinstance(side, int):
        check_backbone(config["backbone"], (3, side, side), config["dataset"])


def check_backbones(stages: Sequence[Stage], dataset_info: DatasetInfo, dataset: Mapping[str, Any]) -> None:
    """Refuse images that the backbone of any trained stage does not accept.

    Raises:
        ImageSizeError: see `_check_backbone`.
        ConfigError: see `check_weights_map`.
    """
    trained = [stage.settings.backbone for stage in stages if stage.module is not None and stage.checkpoint is None]
    for backbone in {canonical_json(one): one for one in trained}.values():
        check_weights_map(backbone.get("weights"), backbone.get("weights_map"))  # the probe reads no weights
        check_backbone(backbone, dataset_info.image_shape, dataset)


def check_backbone(config: Mapping[str, Any], image_shape: ImageShape, dataset: Mapping[str, Any]) -> None:
    """Check a backbone with `_check_backbone`; a process does not repeat a check that passed."""
    _check_backbone(canonical_json(config), image_shape, "image_size" in dataset)


@functools.lru_cache(maxsize=256)
def _check_backbone(backbone: str, image_shape: ImageShape, resizable: bool) -> None:
    """Refuse images that a backbone does not accept, or whose border it would ignore.

    The check reads no weights and uses no random number of the run.

    Args:
        backbone: config of the backbone as JSON.
        image_shape: (C, H, W).
        resizable: True if the data set has ``image_size``, for the advice.

    Raises:
        ImageSizeError: the message has the nearest sides that the backbone accepts.
    """
    config = json.loads(backbone)
    if str(config.get("name", "")).startswith(HUB):
        return  # building it here would download its layout; `check_images` checks the network later
    shown = f"{_named(config)}: images of {image_shape[1]} x {image_shape[2]} pixels"

    free = {key: None if key == "img_size" else value for key, value in config.items()}
    deadline = time.monotonic() + _SEARCH_SECONDS
    built: dict[str, nn.Module] = {}  # networks by config, because most do not depend on the size

    def takes(side: int) -> bool:
        shape = (image_shape[0], side, side)
        try:
            if time.monotonic() > deadline:
                return False
            key = canonical_json(config_for_image_size(free, shape))
            built[key] = built.get(key) or _built(free, shape, "meta")
            return not _probed(built[key], shape).cut
        except Exception:  # libraries raise different errors
            return False

    try:
        network = _built(config, image_shape, "meta")
        result = _probed(network, image_shape)
    except ImageSizeError as error:
        raise ImageSizeError(f"{error} {_advice(resizable, nearest_sides(image_shape[1], takes), config)}") from error
    except LtrError:
        raise
    except Exception:  # the network may need tensors with values
        try:
            network = _built(config, image_shape, "cpu")
        except LtrError:
            raise
        except Exception:
            return  # an error in the constructor is not about the size
        try:
            result = _probed(network, image_shape)
        except Exception as error:
            if isinstance(error, LtrError) or is_out_of_memory(error):
                raise
            advice = _advice(resizable, nearest_sides(image_shape[1], takes), config)
            raise ImageSizeError(f"{shown} cannot be taken ({first_line(error)}). {advice}") from error
    if not result.cut:
        return
    ignored = ignored_share(_built(config, image_shape, "cpu"), image_shape)
    if ignored:
        patch = max(result.cut.values())
        advice = _advice(resizable, nearest_sides(image_shape[1], takes, multiples_of=patch), config)
        raise ImageSizeError(
            f"{shown} are cut into patches of {patch} x {patch}, which does not divide: {ignored:.0%} of every image "
            f"would be ignored. {advice}"
        )


def check_images(stage: Stage, network: Any, dataset_info: DatasetInfo, dataset: Mapping[str, Any]) -> list[str]:
    """Pass one blank image through the whole network of a stage, in the modes of its training.

    Returns:
        Names of the batch normalisation layers whose input is 1x1: one value per channel and image.

    Raises:
        ImageSizeError: the network does not accept the data set's images.
    """
    try:
        return probe(network, network.predict_headline, dataset_info.image_shape, network.rows_per_image).single_values
    except Exception as error:
        if isinstance(error, LtrError) or is_out_of_memory(error):
            raise
        _, height, width = dataset_info.image_shape
        advice = _advice("image_size" in dataset, "", stage.settings.backbone)
        raise ImageSizeError(
            f"stage '{stage.name}': {_named(stage.settings.backbone)}: {type(network).__name__} cannot take images of "
            f"{height} x {width} pixels ({first_line(error)}). {advice}"
        ) from error


def _built(config: Mapping[str, Any], image_shape: ImageShape, device: str) -> nn.Module:
    node = {**config_for_image_size(config, image_shape), **without_initial_weights(config)}
    with seeded_construction(0), torch.device(device):
        return instantiate(node, image_shape[0])


def _probed(network: nn.Module, image_shape: ImageShape) -> ProbeResult:
    return probe(network, network, image_shape)


def _named(config: Mapping[str, Any]) -> str:
    name = config.get("name")
    return f"backbone.name={name}" if name else f"backbone {class_name(config)}"


def _advice(resizable: bool, sides: str, config: Mapping[str, Any]) -> str:
    follow = " and backbone.img_size=null, which follows it" if config.get("img_size") is not None else ""
    if resizable:
        return f"Set dataset.image_size={sides or 'another number'}{follow}, or use another backbone"
    use = f"Set{follow[4:]}, or use another backbone" if follow else "Use another backbone"
    return f"{use}; this one takes {sides} pixels" if sides else use


def resized_for(stage: Stage, dataset_info: DatasetInfo) -> str:
    """Return a sentence if a stage's backbone is built for an image size other than its default; '' otherwise."""
    config = stage.settings.backbone
    is_trained = stage.module is not None and stage.checkpoint is None
    if not is_trained or config_for_image_size(config, dataset_info.image_shape) == config:
        return ""
    has_weights = config.get("pretrained") or config.get("weights")
    weights = "; position embeddings of its weights are resized" if has_weights else ""
    _, height, width = dataset_info.image_shape
    return (
        f"{stage.name}: {_named(config)} has another default size and is built for {height} x {width} pixels{weights}"
    )


def preprocessing_note(config: Mapping[str, Any], image_shape: ImageShape) -> str:
    """Return a line about the preprocessing of images for a run's pretrained weights; '' without such weights.

    Args:
        image_shape: (C, H, W) of its images.
    """
    backbone, dataset = config["backbone"], config["dataset"]
    if not backbone.get("pretrained") and not backbone.get("weights"):
        return ""
    described = weights_input(backbone)
    mean, std = list(dataset["mean"]), list(dataset["std"])
    if described is None:
        return f"preprocessing: the weights do not describe it; from the config: mean {mean}, std {std}"
    side, interpolation = image_shape[1], dataset.get("interpolation")
    resize = dataset.get("image_resize")
    values: list[tuple[str, Any, Any]] = [
        ("mean", mean, list(described.mean) if len(described.mean) == len(mean) else mean),
        ("std", std, list(described.std) if len(described.std) == len(std) else std),
        ("size", side, described.size or side),
    ]
    if "image_size" in dataset or dataset.get("resize_to"):
        values.append(("interpolation", interpolation or "bilinear", described.interpolation or "bilinear"))
    if "image_size" in dataset:
        values.append(("resize", resize or round(side * 8 / 7), described.resize_for(side) or round(side * 8 / 7)))
    shown = ", ".join(f"{name} {value}" for name, value, _ in values)
    differences = ", ".join(f"{name} {expected}" for name, value, expected in values if value != expected)
    return f"preprocessing of {described.source}: {shown}" + (
        f"; of the weights themselves: {differences}" if differences else ""
    )
