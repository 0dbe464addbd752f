"""Preprocessing of images for pretrained weights, from the description of the weights."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ltr.models.hub_weights import HUB, hub_config

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing in the description of pretrained weights.

    Attributes:
        source: origin of the description, for messages.
        mean, std: per channel, for pixels in [0, 1].
        size: side of the network's input in pixels; None: unknown.
        resize: short side in pixels before evaluation's centre crop of ``size`` pixels, or (side, side) if images are
            stretched to a square; None: unknown.
        interpolation: interpolation of the resizing; None: unknown or not supported.
    """

    source: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None
    resize: int | tuple[int, int] | None = None
    interpolation: str | None = None

    def resize_for(self, size: int) -> int | list[int] | None:
        """Return ``resize`` for a crop of ``size`` pixels; None: 8/7 of it, the default of `FileCrop`."""
        if self.size is None or self.resize is None:
            return None
        if not isinstance(self.resize, int):
            return [round(side * size / self.size) for side in self.resize]
        scaled = round(self.resize * size / self.size)
        return None if scaled == round(size * 8 / 7) else max(size, scaled)


def timm_preprocessing(name: str, pretrained: bool, weights: str | None) -> Preprocessing | None:
    """Return the preprocessing of a timm model's weights; None without weights or without a description.

    For a file it is that of the ``config.json`` in its folder, in timm's layout; else of timm's weights with the name
    of the file; else of the model's default weights, because weights of one architecture mostly share it.

    Args:
        name: timm's name, with or without a tag.
        pretrained: True if timm's weights are downloaded.
        weights: a file, ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``.
    """
    if not pretrained and weights is None:
        return None
    if weights is not None and (recorded := checkpoint_preprocessing(weights)) is not None:
        return recorded
    import timm  # takes a second, and most runs do not use it

    try:
        if weights is not None and (described_beside := hub_config(weights)) is not None:
            described: Any = described_beside
        elif name.startswith(HUB):
            described = timm.models.load_model_config_from_hf(name.partition(":")[2])[0] if pretrained else None
        else:
            described = _timm_config(name, weights)
        config = described.to_dict() if hasattr(described, "to_dict") else dict(described or {})
    except Exception:  # an unknown name or no network: the construction of the backbone reports it
        return None
    if not config.get("mean") or not config.get("std"):
        return None
    size = tuple(config.get("input_size") or ())[1:]
    side = int(size[0]) if size and size[0] == size[1] else None
    resize: int | tuple[int, int] | None = None
    if side and config.get("crop_pct"):
        resize = int(side / float(config["crop_pct"]))
        resize = (resize, resize) if config.get("crop_mode") == "squash" else resize
    tag = config.get("tag")
    return Preprocessing(
        f"timm's {config.get('architecture') or name}{f'.{tag}' if tag else ''}",
        tuple(float(value) for value in config["mean"]),
        tuple(float(value) for value in config["std"]),
        side,
        resize,
        _known(config.get("interpolation")),
    )


@functools.lru_cache(maxsize=16)  # called for each value of a dataset config
def _timm_config(name: str, weights: str | None) -> Any:
    import timm

    if weights is not None:
        stem = name.partition(".")[0]
        for tagged in timm.list_pretrained(f"{stem}.*"):
            config = timm.get_pretrained_cfg(tagged)
            if config is not None and str(config.url or "").rpartition("/")[2] == Path(weights).name:
                return config
    return timm.get_pretrained_cfg(name)


def torchvision_preprocessing(name: str, pretrained: bool, weights: str | None) -> Preprocessing | None:
    """Return the preprocessing of a torchvision model's weights, from its weights enum.

    For a file it is that of the entry with the name of the file, else of the default entry; see `timm_preprocessing`.
    """
    if not pretrained and weights is None:
        return None
    if weights is not None and (recorded := checkpoint_preprocessing(weights)) is not None:
        return recorded
    import torchvision  # slow to import, like timm

    try:
        entries = list(torchvision.models.get_model_weights(name))
        default = torchvision.models.get_model_weights(name).DEFAULT
    except Exception:  # an unknown name, or no weights
        return None
    file = Path(weights).name if weights else ""
    entry = next((one for one in entries if one.url.rpartition("/")[2] == file), default)
    transform = entry.transforms()
    return Preprocessing(
        f"torchvision's {name} ({entry.name})",
        tuple(float(value) for value in transform.mean),
        tuple(float(value) for value in transform.std),
        int(transform.crop_size[0]),
        int(transform.resize_size[0]),
        _known(transform.interpolation.value),
    )


def checkpoint_preprocessing(weights: str | Path) -> Preprocessing | None:
    """Return the mean and standard deviation with which an ltr checkpoint was trained; None for other files."""
    path = Path(weights)
    try:
        stat = path.stat()
        return _described(path, stat.st_mtime_ns, stat.st_size)
    except Exception:  # no checkpoint, or a damaged one: the construction of the backbone reports it
        return None


@functools.lru_cache(maxsize=16)
def _described(path: Path, changed: int, size: int) -> Preprocessing | None:
    if path.suffix not in (".ckpt", ".pth", ".pt"):
        return None
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(content, Mapping) or content.get("format") != "ltr-stage":
        return None
    info = json.loads(content["description"])["facts"]
    mean, std = (tuple(float(value) for value in info[key]) for key in ("mean", "std"))
    return Preprocessing("the checkpoint", mean, std, None, None, _known(info.get("interpolation")))


def _known(interpolation: Any) -> str | None:
    return interpolation if interpolation in INTERPOLATIONS else None
