"""Python API: `ltr.train`, `ltr.load`, `ltr.config` and `ltr.build`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from ltr.apply.model import class_logits
from ltr.commands.evaluate import find
from ltr.configuration.overrides import load_config
from ltr.configuration.ranges import check_option
from ltr.configuration.targets import check_arguments
from ltr.console import plain_warnings
from ltr.errors import ConfigError, refuse
from ltr.evaluation.scores import Scores, log_normaliser, probabilities
from ltr.methods.core.checkpoint import load_network
from ltr.networks import build
from ltr.runs.evaluation.views import Views, averaged
from ltr.runs.processes.device import predicting, resolve_device, resolve_precision
from ltr.runs.result import Outcome
from ltr.runs.runner import run

__all__ = ["Classifier", "build", "config", "load", "train"]


def config(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the configuration that ``ltr-train`` has with these overrides, resolved and checked, as plain data.

    ``ltr.config(["method=crt"])["method"]["classifier"]["epochs"]`` is 10. The rules of a config for its values
    are under ``_allowed_``.

    Raises:
        ConfigError: names everything that is wrong with the overrides.
    """
    resolved = load_config(overrides)
    refuse(check_arguments(resolved), "configs do not fit the code")
    return resolved


def train(overrides: Sequence[str] = (), quiet: bool = False) -> Outcome:
    """Train like ``ltr-train`` with overrides, e.g. ``ltr.train(["loss=ldam", "seed=1"])``.

    Returns:
        The run directory and the content of its ``result.json``. Figures are not drawn.

    Raises:
        LtrError: anything that the command would report.
    """
    resolved = load_config(overrides)
    with plain_warnings():
        return run(resolved, list(overrides), Console(quiet=quiet))


@dataclass(frozen=True)
class Classifier:
    """A trained network ready to predict."""

    network: Any
    device: torch.device
    precision: str

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.network.dataset_info.class_names

    def predict(
        self, images: np.ndarray | torch.Tensor, batch_size: int = 1000, views: str | None = None
    ) -> np.ndarray:
        """Return class probabilities [N, C] as float32.

        Args:
            images: uint8 [N, H, W, C] with the channels of the training images.
            batch_size: images per forward pass.
            views: mean scores over views of each image, as by ``evaluation.views``: ``flip``, ``five_crops`` or
                ``ten_crops``; None: the image alone, whatever the run's evaluation used.

        Raises:
            ConfigError: images of another type or shape, unknown views, or a network without a score for each class.
        """
        if views is not None:
            check_option("views", views, Views)
        pixels = self._pixels(images)
        batches = []
        with predicting(self.network, self.device, self.precision):
            for batch in pixels.split(batch_size):
                scores = averaged(batch.to(self.device), views, self._headline)["headline"]
                logits, link = class_logits(self.network, scores).float(), self.network.link
                batches.append(probabilities(logits, log_normaliser(logits, link), link).cpu().numpy())
        return np.concatenate(batches)  # splitting no images gives one empty batch

    def _pixels(self, images: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return images as uint8 [N, C, H, W]; numbers in [0, 1] would be read as black images, so they are refused."""
        pixels = torch.as_tensor(images)
        channels = self.network.dataset_info.image_shape[0]
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != channels:
            kind = str(pixels.dtype).removeprefix("torch.")
            raise ConfigError(
                f"images: {kind} {list(pixels.shape)}, and the network reads uint8 [N, H, W, {channels}]. Give pixels "
                "from 0 to 255, channels last"
            )
        return pixels.permute(0, 3, 1, 2)

    def _headline(self, images: torch.Tensor) -> dict[str, Scores]:
        return {"headline": self.network.predict_headline(images)}


def load(run_or_checkpoint: str | Path, accelerator: str = "auto", precision: str = "auto") -> Classifier:
    """Load a finished run (its directory) or a checkpoint file of this project.

    Raises:
        CheckpointError: nothing there, damaged, or not of this project.
    """
    checkpoint, _ = find(Path(run_or_checkpoint))
    device = resolve_device(accelerator)
    return Classifier(load_network(checkpoint).to(device), device, resolve_precision(precision, device))
