"""Distillation terms that any classification method can add to its loss (``method.extras``).

    +method.extras=[{_target_: ltr.methods.distillation.terms.HKD, teacher: RUN}]

where RUN is a finished run's folder or a checkpoint. A term is built as `Term(network, dataset_info, **config)`, called
as `term(batch, features, logits)` at every training step, and added to the method's loss. Terms with the same teacher
share its forward pass.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from ltr.configuration.ranges import NonNegative, Positive, check_option
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses.distillation import hint_loss, kl_to_teacher
from ltr.losses.reductions import RelationalReduction
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.distillation.rkd import relational_terms
from ltr.methods.distillation.teacher import (
    FeatureMaps,
    Teacher,
    attention_of_levels,
    check_maps,
    check_teacher,
    hint_regressor,
    read_network,
)
from ltr.models.backbones import Backbone

Level = Annotated[int, "(-inf, 0)"]


class TeacherTerm(nn.Module):
    """Base class for terms that compare a student with a frozen teacher, which checkpoints do not contain.

    Args:
        network: the student under construction, with backbone and head.
        teacher: a finished run's folder or one of ltr's checkpoint files.
        same_split: refuse a teacher that was trained on other classes or other numbers of images.

    Raises:
        CheckpointError: the teacher cannot be read.
        ConfigError: the teacher does not match the student's data.
    """

    def __init__(self, network: ImageClassifier, dataset_info: DatasetInfo, teacher: str, same_split: bool) -> None:
        super().__init__()
        self.teacher = shared_teacher(network, teacher)
        check_teacher(self.teacher.network, dataset_info, teacher, same_split)

    def forward(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        """Return the weighted term of a training batch, a scalar.

        Args:
            features: the student's [B, D].
            logits: the student's [B, C].
        """
        raise NotImplementedError


@named("term/rkd")
class RKD(TeacherTerm):
    """Relational knowledge distillation: distances and angles between the batch's features (Park et al., CVPR 2019).

    Args:
        network, dataset_info, teacher, same_split: see `TeacherTerm`.
        distance_weight: weight of the distances; the paper's for classification.
        angle_weight: weight of the angles; the paper's for classification.
        reduction: mean over all entries of the matrices (the code), or over pairs and triples of different images.
    """

    def __init__(
        self,
        network: ImageClassifier,
        dataset_info: DatasetInfo,
        *,
        teacher: str,
        distance_weight: NonNegative = 25.0,
        angle_weight: NonNegative = 50.0,
        reduction: RelationalReduction = "all",
        same_split: bool = True,
    ) -> None:
        super().__init__(network, dataset_info, teacher, same_split)
        self.weights = {"distance": distance_weight, "angle": angle_weight}
        self.reduction = reduction
        if not any(self.weights.values()):
            raise ConfigError(
                "method.extras: RKD with distance_weight=0 and angle_weight=0 has no effect. Leave it out"
            )

    def forward(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        terms = relational_terms(features, self.teacher.relations(batch), self.weights, self.reduction)
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()


@named("term/hkd")
class HKD(TeacherTerm):
    """Divergence from the teacher's softened class probabilities (Hinton et al., 2015).

    Args:
        network, dataset_info, teacher, same_split: see `TeacherTerm`.
        weight: weight of the term; the divergence includes the factor T^2, 16 for T = 4 as in RKD's comparisons.
        temperature: T; comparisons in the literature use 4.
    """

    def __init__(
        self,
        network: ImageClassifier,
        dataset_info: DatasetInfo,
        *,
        teacher: str,
        weight: NonNegative = 1.0,
        temperature: Positive = 4.0,
        same_split: bool = True,
    ) -> None:
        super().__init__(network, dataset_info, teacher, same_split)
        teacher_info = self.teacher.network.dataset_info
        if self.teacher.embeds or teacher_info.num_classes != dataset_info.num_classes:
            raise ConfigError(
                f"method.extras: HKD compares the scores of {dataset_info.num_classes} classes, which {teacher} does "
                "not have. Choose a classifier that was trained on these classes"
            )
        check_option("method.extras.temperature", temperature, Positive)
        self.weight = weight
        self.temperature = temperature

    def forward(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        return self.weight * kl_to_teacher(logits, self.teacher(batch).scores, self.temperature).mean()


class _FeatureMapTerm(TeacherTerm):
    """Base class for terms that compare feature maps; the student's maps come from its forward pass."""

    def __init__(
        self, network: ImageClassifier, dataset_info: DatasetInfo, teacher: str, same_split: bool, weight: float
    ) -> None:
        super().__init__(network, dataset_info, teacher, same_split)
        self.teacher_channels = self.teacher.network.backbone.map_channels
        check_maps(network.backbone, self.teacher.network.backbone, f"method.extras: {type(self).__name__}")
        self.weight = weight
        self.student_maps = feature_maps_of(network.backbone)
        self.teacher.wants_maps = True


@named("term/fitnet")
class FitNet(_FeatureMapTerm):
    """FitNets: a learned 1x1 convolution maps a feature map of the student to the teacher's (Romero et al., ICLR 2015).

    The term is part of the only training, as in later comparisons; the paper pre-trains the first half with it.

    Args:
        network, dataset_info, teacher, same_split: see `TeacherTerm`.
        weight: weight of the term. Published comparisons use 100; SGD at 0.1 then diverges from random weights unless
            gradients are clipped.
        level: level of the map; -1 is the coarsest, -2 the one before it.
    """

    def __init__(
        self,
        network: ImageClassifier,
        dataset_info: DatasetInfo,
        *,
        teacher: str,
        weight: NonNegative = 1.0,
        level: Level = -2,
        same_split: bool = True,
    ) -> None:
        super().__init__(network, dataset_info, teacher, same_split, weight)
        self.level = level
        channels = network.backbone.map_channels
        self.regressor = hint_regressor(channels, self.teacher_channels, level, "method.extras: FitNet")

    def forward(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        hint = self.teacher(batch).maps[self.level]
        return self.weight * hint_loss(self.regressor(self.student_maps.maps[self.level]), hint)


@named("term/attention_transfer")
class AttentionTransfer(_FeatureMapTerm):
    """Attention transfer at every level that both networks have (Zagoruyko, Komodakis, ICLR 2017).

    Args:
        network, dataset_info, teacher, same_split: see `TeacherTerm`.
        weight: weight of the term; the official code uses 1000.
    """

    def __init__(
        self,
        network: ImageClassifier,
        dataset_info: DatasetInfo,
        *,
        teacher: str,
        weight: NonNegative = 1000.0,
        same_split: bool = True,
    ) -> None:
        super().__init__(network, dataset_info, teacher, same_split, weight)

    def forward(self, batch: Batch, features: Tensor, logits: Tensor) -> Tensor:
        return self.weight * attention_of_levels(self.student_maps.maps, self.teacher(batch).maps)


def shared_teacher(network: ImageClassifier, where: str) -> Teacher:
    """Return the teacher of this path, one object for all terms of a student."""
    teachers: dict[str, Teacher] = network.__dict__.setdefault("_teachers", {})
    if where not in teachers:
        teachers[where] = Teacher(read_network(where))
    return teachers[where]


def feature_maps_of(backbone: Backbone) -> FeatureMaps:
    """Return the feature maps of this backbone's forward passes, one object for all terms of a student."""
    feature_maps = getattr(backbone, "_feature_maps", None)
    if feature_maps is None:
        feature_maps = FeatureMaps(backbone)
        backbone.__dict__["_feature_maps"] = feature_maps
    return feature_maps
