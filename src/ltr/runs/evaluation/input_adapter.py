"""Check that a trained network can be evaluated on a data set, and adaptation of the images to the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltr.data.loaders.device import resize_images
from ltr.data.source import ImageFiles, Source
from ltr.data.split import Split
from ltr.errors import CheckpointError, ConfigError, LtrError, first_line
from ltr.evaluation.scores import Scores
from ltr.methods.core.settings import DatasetInfo, describe_other_names
from ltr.names import counted
from ltr.runs.evaluation.protocols import CPU, check_labels, check_parts, protocols_of

_PROBES = 2  # number of blank images in a check


class InputAdapter(nn.Module):
    """Predictor around a network that resizes its input and repeats a single channel.

    Args:
        size: (H, W) to which images are resized, bilinear and antialiased; None keeps their size.
        repeat: number of copies of the single channel.
    """

    def __init__(self, network: Any, size: tuple[int, int] | None, repeat: int = 1) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.repeat = repeat

    @property
    def headline(self) -> str:
        return self.network.headline

    @property
    def link(self) -> str:
        return self.network.link

    def predict(self, images: Tensor) -> dict[str, Scores]:
        """Return the scores of uint8 images [B, C, H, W] by variant."""
        return self.network.predict(self.adapt(images))

    def examples(self, images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
        return self.network.examples(self.adapt(images), labels)

    def locations(self, images: Tensor) -> dict[str, Tensor]:
        return self.network.locations(self.adapt(images))

    def predict_with_locations(self, images: Tensor) -> tuple[Mapping[str, Scores], dict[str, Tensor]]:
        return self.network.predict_with_locations(self.adapt(images))

    def adapt(self, images: Tensor) -> Tensor:
        """Resize uint8 images [B, C, H, W] and repeat their channel, as the network requires."""
        if self.repeat > 1:
            images = images.repeat_interleave(self.repeat, dim=1)
        if self.size is not None:
            images = resize_images(images, self.size)
        return images.contiguous(memory_format=torch.channels_last)


def adapted_dataset(
    dataset: Mapping[str, Any], source: Source, trained: DatasetInfo, requested_size: int | None
) -> dict[str, Any]:
    """Return a dataset config with the image size of a network that was trained on another data set.

    The size is ``requested_size``, or else the network's training size; the interpolation is that of training. The
    ratio of crop size to resized size is that of the config.
    """
    if not isinstance(source.images, ImageFiles):
        return dict(dataset) if requested_size is None else {**dataset, "image_size": requested_size}
    size = trained.image_shape[1] if requested_size is None else requested_size
    resize, usual_size = dataset.get("image_resize"), dataset["image_size"]
    if isinstance(resize, list):  # stretches images to a square
        resize = [round(side * size / usual_size) for side in resize]
    elif resize is not None:
        resize = round(resize * size / usual_size)
    adapted = {**dataset, "image_size": size, "image_resize": resize}
    return adapted if trained.interpolation is None else {**adapted, "interpolation": trained.interpolation}


def adapt_input(network: Any, dataset: Mapping[str, Any], source: Source) -> tuple[Any, str]:
    """Return a predictor for a source's images, and a sentence about changes to the images ('' for none).

    Arrays are resized to the config's ``image_size`` if it has one, else to the network's training size.

    Raises:
        ConfigError: network and images differ in the number of channels, and the images have more than one.
    """
    channels, height, width = network.dataset_info.image_shape
    source_shape = _image_shape(source, dataset)
    configured = dataset.get("image_size")
    size = (height, width) if configured is None else (configured, configured)  # that of image files already
    if source_shape[0] not in (1, channels):
        raise ConfigError(
            f"the network takes images of {channels} channel{'s' if channels > 1 else ''}, those of {source.name} have "
            f"{source_shape[0]}. Choose a data set of {channels}, or a network that was trained on {source_shape[0]}"
        )
    repeat = channels // source_shape[0]
    new_size = None if size == source_shape[1:] else size
    if new_size is None and repeat == 1:
        return network, ""
    changes = []
    if new_size is not None:
        changes.append(f"{source_shape[1]} x {source_shape[2]} pixels are resized to {size[0]} x {size[1]}")
    changes += [f"their one channel is repeated {repeat} times"] if repeat > 1 else []
    return InputAdapter(network, new_size, repeat), f"images of {source.name}: {', '.join(changes)}"


def _image_shape(source: Source, dataset: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return (C, H, W) of the images that a loader gives."""
    if isinstance(source.images, ImageFiles):
        return 3, dataset["image_size"], dataset["image_size"]
    _, height, width, channels = source.images.shape
    return channels, height, width


def check_evaluable(
    predictor: Any,
    network: Any,
    split: Split,
    source: Source,
    dataset: Mapping[str, Any],
    part: str,
    evaluation: Mapping[str, Any],
) -> None:
    """Check on two blank images that an evaluation cannot fail midway.

    Args:
        split, source, dataset: data of the evaluation, with the dataset config.
        part: part of the split to evaluate.

    Raises:
        ConfigError: the images are missing or of classes that a protocol does not evaluate, or the network does not
            accept them.
        DataError: there are too few images for a protocol.
        CheckpointError: the network has other classes than the data set, or its predictions lack what a protocol needs.
    """
    if not len(getattr(split, part)):
        raise ConfigError(f"--split {part}: the split '{split.name}' has no such images. Choose another part")
    protocols = protocols_of(split, evaluation, network.link, CPU, keep_predictions=False)
    for protocol in protocols:
        if part == "test":
            check_parts(protocol, split)
        check_labels(protocol, split, source, part)
    needs = {need for protocol in protocols for need in protocol.needs}
    names = tuple(network.dataset_info.class_names)
    if "logits" in needs and not network.embeds and tuple(split.class_names) != names:
        raise CheckpointError(
            f"it has {counted(len(names), 'class', 'classes')}, the data set has {split.num_classes}: "
            f"{describe_other_names(names, split.class_names)}. Choose a data set with the classes of its training"
        )
    kind, evaluated = type(network).__name__, " and ".join(dict.fromkeys(protocol.name for protocol in protocols))
    for variant, scores in _probe(predictor, source, dataset).items():
        provided = {
            "logits": scores.logits is not None and scores.logits.shape[1:] == (len(split.class_names),),
            "features": scores.features is not None,
            "knownness": scores.knownness is not None,
        }
        lacking = [need for need in sorted(needs) if not provided[need]]
        if lacking == ["knownness"]:
            raise ConfigError(
                f"evaluation.scorers={evaluation['scorers']}: {kind} has no distance to score by. Leave 'distance' out"
            )
        if lacking:
            raise CheckpointError(
                f"'{split.name}' is evaluated by {evaluated}, which needs {' and '.join(lacking)}; {kind} gives none"
                f"{'' if variant == 'default' else f' as {variant}'}. Choose another dataset config, or a run that "
                f"{'classifies' if 'logits' in lacking else 'gives them'}"
            )


def _probe(predictor: Any, source: Source, dataset: Mapping[str, Any]) -> dict[str, Scores]:
    shape = _image_shape(source, dataset)
    blank = torch.zeros(_PROBES, *shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            return predictor.eval().predict(blank)
    except LtrError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"the network cannot take images of {' x '.join(map(str, shape))} ({first_line(error)}). Set "
            "dataset.image_size to its training size"
        ) from error
