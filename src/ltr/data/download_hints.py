"""Where each data set page says that its files lie, found out without reading or listing any of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ltr.configuration.configs import read_page
from ltr.errors import DataError

# of sources whose place no key of the page says, below the folder of all data
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
_KEYS = ("folder", "lists", "file")


def places(name: str, data: str | os.PathLike[str]) -> list[Path] | None:
    """The folders and files that ``dataset=name`` reads, below ``data`` (``paths.data``).

    Returns:
        Paths whether or not they exist, [] where everything is in the package, None where the page does not say.
    """
    page = _with_bases(name)
    try:
        whole = OmegaConf.create({"paths": {"data": str(data)}, "dataset": page})
        source = OmegaConf.to_container(whole.dataset.source, resolve=True)
    except (OmegaConfBaseException, AttributeError):
        return None
    if not isinstance(source, Mapping):
        return None
    root = Path(str(source.get("root") or data)).expanduser()
    target = str(source.get("_target_", "")).removeprefix(_SOURCES)
    if target in _FIXED:
        return [root / place for place in _FIXED[target]]
    named = [str(source[key]) for key in _KEYS if source.get(key)]
    if named:
        return [root / Path(place).expanduser() for place in named]
    return [root] if source.get("root") else None


def _with_bases(name: str) -> dict[str, Any]:
    """A shipped page over the pages that it starts from."""
    page = read_page(f"dataset/{name}")
    if not page:
        raise DataError(f"there is no page dataset/{name}")
    merged: dict[str, Any] = {}
    for base in page.get("defaults", []):
        if isinstance(base, str) and base != "_self_":
            merged |= _with_bases(base)
    return merged | {key: value for key, value in page.items() if key != "defaults"}
