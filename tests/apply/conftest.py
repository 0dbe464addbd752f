"""A network with known logits, and pools of small images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ltr.apply.model import Model
from ltr.data.images.crop import FileCrop
from ltr.evaluation.scores import Scores

SIDE = 8


class Redness(torch.nn.Module):
    """Class c has the logit (c + 1) * red - c * green of an image's mean pixels in [0, 1], times 4."""

    headline = "default"

    def __init__(self, classes: int, background: int | None, link: str) -> None:
        super().__init__()
        self.link = link
        names = tuple(f"class {c}" for c in range(classes))
        counts = tuple(1000 // (c + 1) ** 3 for c in range(classes))
        self.dataset_info = SimpleNamespace(
            class_names=names, class_counts=counts, background=background, image_shape=(3, SIDE, SIDE)
        )

    def predict(self, images: torch.Tensor) -> dict[str, Scores]:
        red, green, _ = images.float().mean(dim=(2, 3)).div(255).unbind(dim=1)
        c = torch.arange(len(self.dataset_info.class_names))
        return {"default": Scores(4 * (red[:, None] * (c + 1) - green[:, None] * c))}


@pytest.fixture
def redness() -> Callable[..., Model]:
    def make(classes: int = 6, background: int | None = None, link: str = "softmax", batch_size: int = 4) -> Model:
        network = Redness(classes, background, link)
        crop = FileCrop(SIDE, resize=SIDE)
        return Model(network, torch.device("cpu"), "fp32", crop, batch_size, 0, many_above=100, few_below=20)

    return make


def picture(path: Path, seed: int) -> np.ndarray:
    """A small PNG of one random colour; returns its pixels."""
    colour = np.random.default_rng(seed).integers(0, 256, 3, dtype=np.uint8)
    pixels = np.broadcast_to(colour, (SIDE, SIDE, 3)).copy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def pool(tmp_path) -> Path:
    """A folder of 13 images in two folders, two of them broken."""
    folder = tmp_path / "pool"
    for number in range(11):
        picture(folder / f"part {number % 2}" / f"{number:02d}.png", number)
    (folder / "part 0" / "05 broken.jpg").write_bytes(b"no image")
    (folder / "part 1" / "empty.png").touch()
    (folder / "notes.txt").write_text("not an image by its name")
    return folder


@pytest.fixture
def draw() -> Callable[[Path, int], np.ndarray]:
    return picture


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """The weights of a short run on digits."""
    from ltr.cli import train_main

    outputs = tmp_path_factory.mktemp("trained")
    assert train_main([f"paths.outputs={outputs}", "debug=fast", "figures=none", "callbacks.progress=none"]) == 0
    return next(outputs.glob("*/*/*/checkpoints/final.ckpt"))
