"""A finished network as a teacher: its outputs for a batch, and checks that teacher and student fit."""

from __future__ import annotations

import functools
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
from ltr.methods.core.stage import DatasetInfo
from ltr.models.backbones import Backbone


@dataclass(frozen=True)
class Lesson:
    """A teacher's outputs for a batch, without gradients."""

    features: Tensor  # [B, D]
    scores: Tensor  # of the head: logits [B, C], or embeddings [B, E]
    maps: list[Tensor]  # [B, C_l, H_l, W_l], coarsest last; empty where nobody wants them


class Teacher:
    """A network in eval mode and without gradients.

    It is no module, so that it is neither trained nor stored with the student. Losses of one student that share a
    teacher share its pass through a batch.

    Args:
        network: the finished network; it normalises pixels in its own way.
    """

    def __init__(self, network: ImageClassifier) -> None:
        self.network = network.eval().requires_grad_(False)
        self.wants_maps = False
        self._seen: tuple[Tensor, Lesson] | None = None

    @property
    def embeds(self) -> bool:
        """Return whether its head gives embeddings, not class logits."""
        return getattr(self.network.head, "head_kind", None) == "embedding"

    def __call__(self, batch: Batch) -> Lesson:
        """Return its outputs for a training batch, on the batch's device."""
        if self._seen is not None and self._seen[0] is batch.images:
            return self._seen[1]
        if next(self.network.parameters()).device != batch.images.device:
            self.network.to(batch.images.device)
        network, maps = self.network, []
        with torch.no_grad():
            unit = network.to_unit(batch.images)
            if self.wants_maps:
                features, maps = network.backbone.features_and_maps(network.normalise(unit))
            else:
                features = network.features(unit)
            lesson = Lesson(features, network.head(features), maps)
        self._seen = (batch.images, lesson)
        return lesson

    def relations(self, batch: Batch) -> Tensor:
        """Return the vectors that relations between images are measured on: embeddings if any, else features."""
        lesson = self(batch)
        return lesson.scores if self.embeds else lesson.features


class KeptMaps:
    """The feature maps of a backbone's last pass, caught on the way, so that a student needs no second one.

    From now on the backbone's ``forward`` makes maps and features in one pass.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.maps: list[Tensor] = []
        # partial, not a closure: a copy of the network (an average of weights) then holds a copy of this, too
        backbone.forward = functools.partial(_forward_keeping_maps, backbone, self)  # type: ignore[method-assign]

    def take(self) -> list[Tensor]:
        """Return the maps [B, C_l, H_l, W_l], coarsest last, which are then let go."""
        maps, self.maps = self.maps, []
        return maps


def _forward_keeping_maps(backbone: Backbone, kept: KeptMaps, images: Tensor) -> Tensor:
    features, kept.maps = backbone.features_and_maps(images)
    return features


def read_network(where: str) -> Any:
    """Return the network of a finished run's folder or of a checkpoint file.

    Raises:
        CheckpointError: it cannot be read.
    """
    return load_network(checkpoint_file(Path(where)))


def check_maps(student: Backbone, teacher: Backbone, what: str) -> None:
    """Refuse networks without feature maps where those are compared.

    Args:
        what: compares them, for the message.

    Raises:
        ConfigError: one of them has none.
    """
    for whose, backbone in (("the student's", student), ("the teacher's", teacher)):
        if not backbone.map_channels:
            raise ConfigError(
                f"{what} compares feature maps, and {whose} backbone has none; backbone=resnet32, torchvision with "
                "backbone.name=resnet50 and timm with backbone.name=swin_tiny_patch4_window7_224 have some"
            )


def hint_regressor(student: Sequence[int], teacher: Sequence[int], level: int, what: str) -> HintRegressor:
    """FitNets' learned map from the student's feature map of a level to the teacher's.

    Args:
        student, teacher: channels of their maps, coarsest last.
        level: -1 is the coarsest map, -2 the one before it.
        what: asks for it, for the message.

    Raises:
        ConfigError: a level that one of them has not.
    """
    shared = min(len(student), len(teacher))
    if not -shared <= level < 0:
        raise ConfigError(f"{what} with level={level}; the networks share the levels {-shared} to -1")
    return HintRegressor(student[level], teacher[level])


def attention_of_levels(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Attention transfer summed over the levels that both have, the coarsest with the coarsest."""
    pairs = zip(reversed(student), reversed(teacher))
    return torch.stack([attention_transfer(ours, theirs) for ours, theirs in pairs]).sum()


def check_teacher(network: Any, dataset_info: DatasetInfo, where: str, same_split: bool = True) -> None:
    """Refuse a teacher that saw other images, or images of another form.

    Args:
        network: the teacher.
        dataset_info: of the student's data.
        where: the teacher comes from, for the message.
        same_split: it must have learnt the same classes from as many images of each.

    Raises:
        ConfigError: it does not fit.
    """
    theirs: DatasetInfo = network.dataset_info
    differences = []
    if theirs.image_shape != dataset_info.image_shape:
        differences.append(f"its images have the shape {theirs.image_shape}, the student's {dataset_info.image_shape}")
    if same_split and theirs.class_names != dataset_info.class_names:
        differences.append(
            f"it knows {_shown(theirs.class_names)}, the student learns {_shown(dataset_info.class_names)}"
        )
    elif same_split and theirs.class_counts != dataset_info.class_counts:
        differences.append(
            f"it learnt from {sum(theirs.class_counts)} images ({_shown(theirs.class_counts)} per class), the student "
            f"learns from {sum(dataset_info.class_counts)} ({_shown(dataset_info.class_counts)})"
        )
    if differences:
        raise ConfigError(
            f"the teacher {where} and the student are of different data: {'; '.join(differences)}. Take a teacher that "
            "was trained on this split"
        )


def _shown(values: tuple[Any, ...]) -> str:
    return f"{', '.join(map(str, values[:3]))}{', ...' if len(values) > 3 else ''}"
