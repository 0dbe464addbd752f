"""Python API: `ltr.train`, `ltr.load`, `ltr.config` and `ltr.build`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from ltr.commands.evaluate import find
from ltr.configuration.overrides import load_config
from ltr.configuration.targets import check_arguments
from ltr.console import plain_warnings
from ltr.errors import refuse
from ltr.evaluation.scores import log_normaliser, probabilities
from ltr.methods.core.checkpoint import load_network
from ltr.networks import build
from ltr.runs.processes.device import autocast, resolve_device, resolve_precision
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

    def predict(self, images: np.ndarray | torch.Tensor, batch_size: int = 1000) -> np.ndarray:
        """Return class probabilities [N, C] as float32 of uint8 images [N, H, W, C]."""
        pixels = torch.as_tensor(images).permute(0, 3, 1, 2)
        batches = []
        with torch.inference_mode(), autocast(self.device, self.precision):
            for batch in pixels.split(batch_size):
                scores = self.network.predict_headline(batch.to(self.device))
                logits, link = scores.logits.float(), self.network.link
                batches.append(probabilities(logits, log_normaliser(logits, link), link).cpu().numpy())
        return np.concatenate(batches) if batches else np.empty((0, len(self.class_names)), np.float32)


def load(run_or_checkpoint: str | Path, accelerator: str = "auto", precision: str = "auto") -> Classifier:
    """Load a finished run (its directory) or a checkpoint file of this project.

    Raises:
        CheckpointError: nothing there, damaged, or not of this project.
    """
    checkpoint, _ = find(Path(run_or_checkpoint))
    device = resolve_device(accelerator)
    return Classifier(load_network(checkpoint).to(device), device, resolve_precision(precision, device))
