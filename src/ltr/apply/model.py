"""Trained network for prediction on image files, with device, precision and the evaluation crop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ltr.configuration.configs import read_config
from ltr.data.images.crop import FileCrop
from ltr.data.parallel import cores
from ltr.data.source import PLAIN, Decoding, ImageFiles
from ltr.errors import CheckpointError, ConfigError
from ltr.evaluation.scores import Scores
from ltr.methods.core.checkpoint import describe, network_from_description
from ltr.runs.processes.device import autocast, keep_freed_memory, resolve_device, resolve_precision


@dataclass(frozen=True)
class Model:
    """Network in eval mode with all settings for prediction on image files.

    Attributes:
        network: an `ltr.methods.core.network.ImageClassifier` on ``device``.
        crop: crop of decoded files to the network's input, as in the evaluation of the run.
        batch_size: images per batch, as in evaluation.
        workers: number of decoding processes.
        decoding: conversion of files to RGB, with matte and white level as in training.
        crop_margin, crop_square: extension of the boxes of detections, as in training.
        trained_on_crops: True if the training images were cut by box.
        few_below, many_above: the run's bounds of few- and many-shot classes.
    """

    network: Any
    device: torch.device
    precision: str
    crop: FileCrop
    batch_size: int
    workers: int
    many_above: int = 100
    few_below: int = 20
    decoding: Decoding = PLAIN
    crop_margin: float = 0.1
    crop_square: bool = True
    trained_on_crops: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.network.dataset_info.class_names

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Return the number of training images of each class."""
        return self.network.dataset_info.class_counts

    @property
    def background(self) -> int | None:
        """Return the label of the background; None without a background."""
        return self.network.dataset_info.background

    @property
    def channels(self) -> int:
        return self.network.dataset_info.image_shape[0]

    @property
    def link(self) -> str:
        return self.network.link

    def decoding_of(self, files: ImageFiles) -> Decoding:
        """Return the decoding options for a pool: those of training, with the EXIF option of the pool."""
        return replace(self.decoding, exif=files.decoding.exif)

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """Set inference mode and the precision within the block."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            yield

    def scores(self, images: torch.Tensor) -> Scores:
        """Return scores of the headline variant for uint8 images [B, C, H, W]; logits are float32 [B, classes].

        Raises:
            ConfigError: the network has no score for each class.
        """
        predicted = self.network.predict(images)[self.network.headline]
        logits = predicted.logits
        if logits is None or logits.ndim != 2 or logits.shape[1] != len(self.class_names):
            raise ConfigError(
                f"{type(self.network).__name__} gives no score for each of its {len(self.class_names)} classes, so it "
                "cannot say which class an image is of. Choose a run of a classifier"
            )
        return predicted._replace(logits=logits.float())


def load_model(
    checkpoint: Path,
    config: Mapping[str, Any] | None = None,
    *,
    accelerator: str = "auto",
    precision: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Model:
    """Load a weights file of this project for work on image files.

    Args:
        checkpoint: path of the file.
        config: configuration of its run with batch size, precision and workers, if there is one.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        precision: ``auto``, ``bf16``, ``fp16`` or ``fp32``; None: the run's.
        batch_size: images per batch; None: the run's for evaluation.
        workers: number of decoding processes; None: one per core.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: the device or precision is not available, or images are not square.
    """
    description = describe(checkpoint)
    network = network_from_description(description, checkpoint)
    device = resolve_device(accelerator)
    if device.type == "cpu":
        keep_freed_memory()
    evaluation = {**read_config("evaluation/default"), **((config or {}).get("evaluation") or {})}
    trainer = (config or {}).get("trainer") or {}
    dataset = description.get("dataset") or {}
    return Model(
        network.to(device).eval(),
        device,
        resolve_precision(precision or trainer.get("precision", "auto"), device),
        file_crop(network.dataset_info.image_shape, dataset, checkpoint),
        batch_size or int(evaluation["batch_size"]),
        cores() if workers is None else workers,
        int(evaluation["many_above"]),
        int(evaluation["few_below"]),
        Decoding(matte=network.dataset_info.matte, white_level=network.dataset_info.white_level),
        crop_margin=float(dataset.get("crop_margin", Model.crop_margin)),
        crop_square=bool(dataset.get("crop_square", Model.crop_square)),
        trained_on_crops=dataset.get("crop") == "box" or dataset.get("detections") is not None,
    )


def file_crop(image_shape: tuple[int, int, int], dataset: Mapping[str, Any], checkpoint: Path) -> FileCrop:
    """Return the crop that evaluation applies to a file of this data set.

    A network trained on image files gets the centre crop of its dataset config. A network trained on arrays (CIFAR,
    digits) has seen whole images of one size: the short side is resized to it and the centre is cropped, which does not
    change images of that size.

    Raises:
        CheckpointError: its images are not square.
    """
    _, height, width = image_shape
    if height != width:
        raise CheckpointError(f"{checkpoint}: its images are {width} x {height}; only square ones can be made of files")
    if dataset.get("image_size") is None:
        return FileCrop(height, resize=height)
    return FileCrop(height, resize=dataset.get("image_resize"), interpolation=dataset.get("interpolation"))
