"""Python API: `ltr.train`, `ltr.load`, `ltr.config` and `ltr.build`."""

from __future__ import annotations

import warnings
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
from ltr.configuration.targets import allow_packages, check_arguments
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


def config(
    overrides: Sequence[str] = (), *, config_dir: str | Path | None = None, allow: str | Sequence[str] = ()
) -> dict[str, Any]:
    """Return the configuration that ``ltr-train`` has with these overrides, resolved and checked, as plain data.

    ``ltr.config(["method=crt"])["method"]["classifier"]["epochs"]`` is 10. The rules of a config for its values
    are under ``_allowed_``.

    Args:
        overrides: a list of ``key=value``.
        config_dir: folder with your own configs, as ``--config-dir``.
        allow: packages whose code the configs may name, as ``--allow``.

    Raises:
        ConfigError: names everything that is wrong with the overrides.
    """
    texts = _override_list(overrides, "config")
    with allow_packages(_packages(allow)):
        resolved = load_config(texts, _folder(config_dir))
        refuse(check_arguments(resolved), "configs do not fit the code")
    return resolved


def train(
    overrides: Sequence[str] = (),
    quiet: bool = False,
    *,
    config_dir: str | Path | None = None,
    allow: str | Sequence[str] = (),
) -> Outcome:
    """Train like ``ltr-train`` with overrides, e.g. ``ltr.train(["loss=ldam", "seed=1"])``.

    Args:
        overrides: a list of ``key=value``.
        quiet: print nothing.
        config_dir: folder with your own configs, as ``--config-dir``.
        allow: packages whose code the configs may name, as ``--allow``, e.g. ``["my_project"]``.

    Returns:
        The run directory and the content of its ``result.json``. Figures are not drawn.

    Raises:
        LtrError: anything that the command would report.
    """
    texts = _override_list(overrides, "train")
    with allow_packages(_packages(allow)), plain_warnings():
        return run(load_config(texts, _folder(config_dir)), texts, Console(quiet=quiet))


def _override_list(overrides: Sequence[str], function: str) -> list[str]:
    """Return overrides as a list; a text is not a list of texts, and flags of the command are arguments here.

    Raises:
        ConfigError: it is not a list of texts, or a flag is among them.
    """
    if isinstance(overrides, str):
        raise ConfigError(f"overrides={overrides!r}: a list is needed. Write ltr.{function}([{overrides!r}])")
    if not isinstance(overrides, Sequence) or not all(isinstance(text, str) for text in overrides):
        raise ConfigError(
            f"overrides={overrides!r}: a list of texts is needed. Write for instance ltr.{function}(['seed=1'])"
        )
    flags = [text for text in overrides if text.startswith("-")]
    if flags:
        raise ConfigError(
            f"{flags[0]}: a flag of ltr-train, not an override. Write ltr.{function}([...], config_dir='FOLDER', "
            "allow=['PACKAGE']) for --config-dir and --allow, and leave other flags out"
        )
    return list(overrides)


def _packages(allow: str | Sequence[str]) -> list[str]:
    return [allow] if isinstance(allow, str) else list(allow)


def _folder(config_dir: str | Path | None) -> str | None:
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"config_dir={config_dir}: there is no such folder. Name the folder of your own configs")
    return None if config_dir is None else str(config_dir)


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
            images: uint8 [N, H, W, C] with the channels and the size of the training images. Images are neither
                resized nor cropped; another size gives a warning. ``ltr-predict`` reads and resizes image files.
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
        channels, height, width = self.network.dataset_info.image_shape
        if not isinstance(images, (np.ndarray, torch.Tensor)):
            entries = f" of {type(images[0]).__name__}" if isinstance(images, (list, tuple)) and images else ""
            raise ConfigError(
                f"images: {type(images).__name__}{entries}, and the network reads an array, uint8 "
                f"[N, H, W, {channels}]. For image files run ltr-predict, which also resizes them; images of PIL are "
                "np.stack([np.asarray(image) for image in images])"
            )
        pixels = torch.as_tensor(images)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != channels:
            kind = str(pixels.dtype).removeprefix("torch.")
            raise ConfigError(
                f"images: {kind} {list(pixels.shape)}, and the network reads uint8 [N, H, W, {channels}]. Give pixels "
                "from 0 to 255, channels last"
            )
        if tuple(pixels.shape[1:3]) != (height, width):
            warnings.warn(
                f"images of {pixels.shape[1]}x{pixels.shape[2]} pixels (height x width), and the network was trained "
                f"on {height}x{width}. predict does not resize them: resize them, or run ltr-predict on their files",
                stacklevel=3,
            )
        return pixels.permute(0, 3, 1, 2)

    def _headline(self, images: torch.Tensor) -> dict[str, Scores]:
        return {"headline": self.network.predict_headline(images)}


def load(
    run_or_checkpoint: str | Path,
    accelerator: str = "auto",
    precision: str = "auto",
    *,
    allow: str | Sequence[str] = (),
) -> Classifier:
    """Load a finished run (its directory) or a checkpoint file of this project.

    Args:
        run_or_checkpoint: directory of a run, or a checkpoint file.
        accelerator: ``auto``, ``gpu`` or ``cpu``.
        precision: ``auto``, ``bf16`` or ``fp32``.
        allow: packages whose code the run uses, as ``--allow``.

    Raises:
        CheckpointError: nothing there, damaged, or not of this project.
    """
    checkpoint, _ = find(Path(run_or_checkpoint))
    device = resolve_device(accelerator)
    with allow_packages(_packages(allow)):
        network = load_network(checkpoint)
    return Classifier(network.to(device), device, resolve_precision(precision, device))
