"""Network with a classifier, which learns from the first view of an image, and a contrastive branch for the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltr.configuration.targets import class_name, instantiate
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.losses.functional import at_least_float32
from ltr.methods.contrastive.options import ProjectionOptions
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, NetworkSpec, Stage
from ltr.models.heads import head_kind
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed


class ContrastiveClassifier(ImageClassifier):
    """Base class of networks with a contrastive branch; a subclass implements `contrastive_loss`.

    All views of a batch pass through the backbone together, and batch normalisation sees all of them, as in the
    official codes. Prediction uses backbone and classifier alone.

    Args:
        spec: see `NetworkSpec`.
        options: the fields of ``declaration``.
    """

    declaration: type[ProjectionOptions]
    options: Any
    is_solvable = False
    classification_weight = 1.0
    contrastive_weight = 1.0

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec)
        self.options = self.declaration(**options)
        self.projection = self.build_projection("projection")

    def build_projection(self, name: str) -> nn.Sequential:
        """Return a projection from features [B, D] to [B, ``feature_dim``]: two layers with batch normalisation."""
        width = self.num_features
        hidden = self.options.hidden_dim or width
        with seeded_construction(derive_seed(self.seed, self.role, name)):
            return nn.Sequential(
                nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, self.options.feature_dim)
            )

    def contrastive_loss(self, projections: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of the contrastive branch, a scalar.

        Args:
            projections: of unit length, float32 [2, B, D], of the second and the third view.
            labels: int64 [B].
        """
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        images = len(batch.labels)
        features = self.features(torch.cat([self.to_unit(view) for view in (batch.images, *batch.views)]))
        logits = self.head(features[:images])
        class_loss = self.loss(logits, batch.labels, batch.mix)
        projections = unit_length(self.projection(features)).unflatten(0, (-1, images))[1:]
        contrastive_loss = self.contrastive_loss(projections, batch.labels)
        return {
            "loss": self.classification_weight * class_loss + self.contrastive_weight * contrastive_loss,
            "correct": (logits.detach().argmax(1) == batch.labels).sum(),
            "logs": {"class_loss": class_loss.detach(), "contrastive_loss": contrastive_loss.detach()},
        }

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {"projection": self.projection}


class ContrastiveMethod(Method):
    """Base class of methods with one trained stage, ``representation``, on three views of each image."""

    provides = ("logits", "features")
    module: ClassVar[type[ContrastiveClassifier]]
    head_kinds: tuple[str, ...] = ()  # of the heads that the contrastive branch reads; empty: any
    options: Any

    def check(self, dataset_info: DatasetInfo) -> None:
        augment = instantiate(self.options.contrast_augment, dataset_info.image_shape)
        if getattr(augment, "mix", None) is not None:
            raise ConfigError(
                f"method.contrast_augment.mix={augment.mix}: the contrastive branch compares images by their classes, "
                "and a mixed image has two. Use an augmentation that does not mix, such as "
                "method.contrast_augment=simaugment; augment, the classifier's, may mix"
            )

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        if self.head_kinds and head_kind(settings.head) not in self.head_kinds:
            raise ConfigError(
                f"head={class_name(settings.head)}: the contrastive branch of {type(self).__name__} "
                f"reads a weight vector of each class. Use head={' or head='.join(self.head_kinds)}"
            )
        views: Mapping[str, Any] = self.options.contrast_augment
        options = self.options.part(self.module.declaration)
        with_views = settings.replaced(views=(views, views))
        return [Stage("representation", "representation", with_views, module=self.module, options=options)]


def unit_length(rows: Tensor) -> Tensor:
    """Return rows [N, D] of unit length, in float32 or better."""
    return functional.normalize(at_least_float32(rows), dim=1)
