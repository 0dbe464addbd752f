"""Paths that each dataset config reads, without access to the file system."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ltr.configuration.configs import read_config

# paths below the data folder of sources whose config has no key for them
_FIXED = {
    "digits.digits": (),
    "cifar.cifar10": ("cifar-10-batches-py",),
    "cifar.cifar100": ("cifar-100-python",),
    "combined.cifar10_and_cifar100": ("cifar-10-batches-py", "cifar-100-python"),
    "mnist.mnist": ("MNIST/raw",),
    "torchvision_sets.svhn": ("train_32x32.mat", "test_32x32.mat"),
    "torchvision_sets.cars": ("stanford_cars",),
    "torchvision_sets.aircraft": ("fgvc-aircraft-2013b",),
}
_SOURCES = "ltr.data.sources."
_KEYS = ("folder", "lists", "file", "annotations")


def dataset_paths(name: str, data: str | os.PathLike[str]) -> list[Path] | None:
    """Return the folders and files that ``dataset=name`` reads, below ``data`` (``paths.data``).

    Returns:
        Paths that may not exist, [] for data that a package contains, or None if the config does not determine them.
    """
    config = read_config(f"dataset/{name}")
    config.pop("defaults", None)
    try:
        whole = OmegaConf.create({"paths": {"data": str(data)}, "dataset": config})
        source = OmegaConf.to_container(whole.dataset.source, resolve=True)
    except (OmegaConfBaseException, AttributeError):
        return None
    if not isinstance(source, Mapping):
        return None
    root = Path(str(source.get("root") or data)).expanduser()
    target = str(source.get("_target_", "")).removeprefix(_SOURCES)
    if target in _FIXED:
        return [root / path for path in _FIXED[target]]
    named = [str(source[key]) for key in _KEYS if source.get(key)]
    if named:
        return [root / Path(path).expanduser() for path in named]
    return [root] if source.get("root") else None
