"""A finished network as a teacher: its outputs for a batch, and checks that teacher and student match."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.files import checkpoint_file
from ltr.losses.distillation import HintRegressor, attention_transfer
from ltr.methods.core.checkpoint import load_network
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo
from ltr.models.backbones import Backbone


@dataclass(frozen=True)
class TeacherOutput:
    """Outputs of a teacher for a batch, without gradients."""

    features: Tensor  # [B, D]
    scores: Tensor  # of the head: logits [B, C], or embeddings [B, E]
    maps: list[Tensor]  # [B, C_l, H_l, W_l], coarsest last; empty if no loss needs them


class Teacher:
    """Frozen network in eval mode.

    It is not an `nn.Module`, so that the teacher is neither trained nor stored with the student. All loss terms of a
    student share one forward pass per batch.

    Args:
        network: the finished network; it normalises pixels by its own statistics.
    """

    def __init__(self, network: ImageClassifier) -> None:
        self.network = network.eval().requires_grad_(False)
        self.wants_maps = False
        self._last: tuple[Tensor, TeacherOutput] | None = None

    @property
    def embeds(self) -> bool:
        """True if the head computes embeddings instead of class logits."""
        return getattr(self.network.head, "head_kind", None) == "embedding"

    def __call__(self, batch: Batch) -> TeacherOutput:
        """Return the outputs for a training batch, on the batch's device."""
        if self._last is not None and self._last[0] is batch.images:
            return self._last[1]
        if next(self.network.parameters()).device != batch.images.device:
            self.network.to(batch.images.device)
        network, maps = self.network, []
        with torch.no_grad():
            unit = network.to_unit(batch.images)
            if self.wants_maps:
                features, maps = network.backbone.features_and_maps(network.normalise(unit))
            else:
                features = network.features(unit)
            output = TeacherOutput(features, network.head(features), maps)
        self._last = (batch.images, output)
        return output

    def relations(self, batch: Batch) -> Tensor:
        """Return the vectors for relations between images: embeddings if the network has them, else features."""
        output = self(batch)
        return output.scores if self.embeds else output.features


class FeatureMaps:
    """Feature maps of a backbone's latest forward pass, so that a student needs no second pass.

    The constructor replaces the backbone's ``forward`` by one that computes maps and features in one pass.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.maps: list[Tensor] = []
        # partial, not a closure: a deep copy of the network (for averaged weights) then copies this object, too
        backbone.forward = functools.partial(_forward_keeping_maps, backbone, self)  # type: ignore[method-assign]

    def take(self) -> list[Tensor]:
        """Return the maps [B, C_l, H_l, W_l], coarsest last, and drop the references to them."""
        maps, self.maps = self.maps, []
        return maps


def _forward_keeping_maps(backbone: Backbone, feature_maps: FeatureMaps, images: Tensor) -> Tensor:
    features, feature_maps.maps = backbone.features_and_maps(images)
    return features


def read_network(where: str) -> Any:
    """Return the network of a finished run's folder or of a checkpoint file.

    Raises:
        CheckpointError: the file cannot be read.
    """
    return load_network(checkpoint_file(Path(where)))


def check_maps(student: Backbone, teacher: Backbone, loss_name: str) -> None:
    """Refuse networks without feature maps, for a loss that compares them.

    Args:
        loss_name: the loss, for the message.

    Raises:
        ConfigError: a network has no feature maps.
    """
    for owner, backbone in (("the student's", student), ("the teacher's", teacher)):
        if not backbone.map_channels:
            raise ConfigError(
                f"{loss_name} compares feature maps, and {owner} backbone has none. Use backbone=resnet32, "
                "backbone=torchvision backbone.name=resnet50, or backbone=timm "
                "backbone.name=swin_tiny_patch4_window7_224"
            )


def hint_regressor(student: Sequence[int], teacher: Sequence[int], level: int, key: str) -> HintRegressor:
    """Build the regressor of FitNets, from the student's feature map of a level to the teacher's.

    Args:
        student, teacher: channels of their maps, coarsest last.
        level: -1 is the coarsest map, -2 the one before it.
        key: the option that needs the regressor, for the message.

    Raises:
        ConfigError: a network does not have this level.
    """
    shared = min(len(student), len(teacher))
    if not -shared <= level < 0:
        raise ConfigError(
            f"{key} with level={level}: both networks have the levels {-shared} to -1. Choose one of them"
        )
    return HintRegressor(student[level], teacher[level])


def attention_of_levels(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Return the attention transfer loss, summed over the levels of both networks, aligned at the coarsest."""
    pairs = zip(reversed(student), reversed(teacher))
    return torch.stack([attention_transfer(student_map, teacher_map) for student_map, teacher_map in pairs]).sum()


def check_teacher(network: Any, dataset_info: DatasetInfo, where: str, same_split: bool = True) -> None:
    """Refuse a teacher that was trained on other data, or on images of another shape.

    Args:
        where: origin of the teacher, for the message.
        same_split: require the same classes with the same numbers of images.

    Raises:
        ConfigError: the teacher does not match the student's data.
    """
    teacher_data, student_data = _describe(network.dataset_info), _describe(dataset_info)
    for name in ("shape", "classes", "counts") if same_split else ("shape",):
        if teacher_data[name] != student_data[name]:
            first, second = (
                textwrap.shorten(text[name], 80, placeholder=" ...") for text in (teacher_data, student_data)
            )
            raise ConfigError(
                f"the teacher {where} and the student have different data: {first} and {second}. Choose a teacher that "
                "was trained on this split"
            )


def _describe(dataset_info: DatasetInfo) -> dict[str, str]:
    names, counts = (", ".join(map(str, values)) for values in (dataset_info.class_names, dataset_info.class_counts))
    return {
        "shape": f"images of shape {dataset_info.image_shape}",
        "classes": f"{dataset_info.num_classes} classes ({names})",
        "counts": f"{sum(dataset_info.class_counts)} training images ({counts} per class)",
    }
