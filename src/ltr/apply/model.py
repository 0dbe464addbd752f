"""Trained network for prediction on image files, with its device, precision and preprocessing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ltr.configuration.configs import read_config
from ltr.configuration.ranges import check_option
from ltr.data.images.crop import FileCrop
from ltr.data.parallel import cores
from ltr.data.source import PLAIN, Decoding, ImageFiles
from ltr.data.sources.camera_traps import is_name_of_crops
from ltr.data.sources.part_division import AUTO
from ltr.errors import CheckpointError, ConfigError
from ltr.evaluation.scores import Scores
from ltr.methods.core.checkpoint import describe, network_from_description
from ltr.runs.evaluation.views import Views, averaged
from ltr.runs.processes.device import keep_freed_memory, predicting, resolve_device, resolve_precision
from ltr.runs.result import RESULT


@dataclass(frozen=True)
class Model:
    """Network in eval mode with all settings for prediction on image files.

    Attributes:
        network: an `ltr.methods.core.network.ImageClassifier` on ``device``.
        device, precision: device and precision of the forward pass.
        crop: crop of decoded files to the network's input, as in evaluation.
        batch_size: images per batch.
        workers: number of decoding processes.
        many_above, few_below: the run's bounds of many- and few-shot classes.
        decoding: conversion of files to RGB, with matte and white level as in training.
        exif: True applies the EXIF orientation; False if the training on a user's own images ignored it.
        crop_margin, crop_square: extension of the boxes of detections, as in training.
        trained_on_crops: True if the training images were crops of boxes.
        views: views of each image over which scores are averaged, as by ``evaluation.views``; None: the image alone.
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
    exif: bool = True
    crop_margin: float = 0.1
    crop_square: bool = True
    trained_on_crops: bool = False
    views: str | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.network.dataset_info.class_names

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of training images of each class."""
        return self.network.dataset_info.class_counts

    @property
    def background(self) -> int | None:
        """Label of the background; None without one."""
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
        """Run the block in inference mode with the model's precision."""
        with predicting(self.network, self.device, self.precision):
            yield

    def scores(self, images: torch.Tensor) -> Scores:
        """Return scores of the headline variant for uint8 images [B, C, H, W]; logits are float32 [B, classes].

        Raises:
            ConfigError: the network has no score for each class.
        """
        predicted = averaged(images, self.views, self.network.predict)[self.network.headline]
        logits = class_logits(self.network, predicted)
        return predicted._replace(logits=logits.float())


def class_logits(network: Any, scores: Scores) -> torch.Tensor:
    """Return the logits [B, classes] of a network's scores.

    Raises:
        ConfigError: the network has no score for each class, such as those of metric learning.
    """
    logits, number = scores.logits, len(network.dataset_info.class_names)
    if logits is None or logits.ndim != 2 or logits.shape[1] != number:
        raise ConfigError(
            f"{type(network).__name__} does not give a score for each of its {number} classes, so it cannot classify "
            "images. Choose a run of a classifier"
        )
    return logits


def load_model(
    checkpoint: Path,
    config: Mapping[str, Any] | None = None,
    *,
    accelerator: str = "auto",
    precision: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    views: str | None = None,
) -> Model:
    """Load a weights file of this project for prediction on image files.

    Args:
        checkpoint: path of the file.
        config: configuration of its run, for batch size and precision; None: the defaults.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        precision: ``auto``, ``bf16``, ``fp16`` or ``fp32``; None: the run's.
        batch_size: images per batch; None: that of the run's evaluation.
        workers: number of decoding processes; None: one per core.
        views: ``flip``, ``five_crops`` or ``ten_crops``; None: the image alone, whatever the run's evaluation used.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: the device or precision is not available, images are not square, or there are no such views.
    """
    if views is not None:
        check_option("views", views, Views)
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
        decoding=Decoding(matte=network.dataset_info.matte, white_level=network.dataset_info.white_level),
        exif=bool(dataset.get("exif", True)),  # the key of a user's own data set; published ones have none
        crop_margin=float(dataset.get("crop_margin", Model.crop_margin)),
        crop_square=bool(dataset.get("crop_square", Model.crop_square)),
        trained_on_crops=was_trained_on_crops(description, checkpoint),
        views=views,
    )


def was_trained_on_crops(description: Mapping[str, Any], checkpoint: Path) -> bool:
    """Return whether the training images of a checkpoint were crops of boxes.

    Checkpoints of earlier versions lack this fact. It follows from the configuration, unless ``dataset.crop=auto`` left
    the choice to the annotation file; the name of the split, in the run's ``result.json``, shows the outcome.

    Args:
        description: see `ltr.methods.core.checkpoint.describe`.
    """
    cut_by_box = description["facts"].get("cut_by_box")
    if cut_by_box is not None:
        return bool(cut_by_box)
    dataset = description.get("dataset") or {}
    if dataset.get("crop") != AUTO:
        return dataset.get("crop") == "box"
    if dataset.get("detections") is not None:
        return True
    try:
        result = json.loads((checkpoint.absolute().parent.parent / RESULT).read_text(encoding="utf-8"))
        return is_name_of_crops(str(result["data"]["split"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False  # a checkpoint without its run


def file_crop(image_shape: tuple[int, int, int], dataset: Mapping[str, Any], checkpoint: Path) -> FileCrop:
    """Return the crop that evaluation applies to a file of a data set.

    For a network trained on image files, it is the centre crop of the dataset config. For a network trained on arrays
    (CIFAR, digits), the short side is resized to their size and the centre is cropped.

    Raises:
        CheckpointError: the network's images are not square.
    """
    _, height, width = image_shape
    if height != width:
        raise CheckpointError(
            f"{checkpoint}: its images are {width} x {height}, and files are cropped to squares only. Choose a run on "
            "square images"
        )
    if dataset.get("image_size") is None:
        return FileCrop(height, resize=height)
    return FileCrop(height, resize=dataset.get("image_resize"), interpolation=dataset.get("interpolation"))
