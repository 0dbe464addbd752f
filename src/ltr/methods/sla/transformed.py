"""Networks trained on M transformations of every image, with data augmentation and multi-task learning as baselines.

`method=data_augmentation` gives all M views the label of the image; `method=multi_task` also trains a second head to
predict the transformation. Both are baselines in the paper of self-supervised label augmentation (Lee et al., ICML
2020, section 2); its official code names but does not implement them. `ltr.methods.sla.method` has SLA itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ltr.configuration.targets import instantiate
from ltr.data.augmentation.joint_transforms import joint_transforms
from ltr.data.batch import Batch, Mix
from ltr.evaluation.scores import Scores
from ltr.identity import named
from ltr.losses import functional
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, NetworkSpec, Stage
from ltr.methods.sla.options import DataAugmentationOptions, MultiTaskOptions, TransformedOptions
from ltr.models.checkpointing import checkpoint_blocks
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed


class TransformedClassifier(ImageClassifier):
    """Base class of networks that train on B * M rows: row i * M + j is image i under transformation j.

    A subclass sets ``options`` and ``headline``, and implements `losses` and `answer`.

    Args:
        transform: a key of `ltr.data.augmentation.joint_transforms.TRANSFORMS`.
        checkpointing: see `TransformedOptions`.
        logit_counts: see `ImageClassifier`.

    Raises:
        ConfigError: the transformations do not support these images.
    """

    variants: tuple[str, ...] = ("single", "aggregated")

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        transform: str,
        checkpointing: bool,
        logit_counts: Sequence[int] | None = None,
    ) -> None:
        transforms = joint_transforms(transform)
        transforms.check(spec.dataset_info.image_shape)
        super().__init__(spec, logit_counts=logit_counts)
        self.transforms = transforms
        self.rows_per_image = len(transforms)
        if checkpointing:
            checkpoint_blocks(self.backbone)

    # -- learning ------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch.

        Args:
            batch: the B images before the transformations.
            features: features of the transformed images, [B * M, D].

        Returns:
            The loss; the logits [B, C] that training accuracy uses; scalars to log.
        """
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Compute the loss over all transformations; ``correct`` counts images, by the headline variant."""
        features = self.features(self.to_unit(self.transforms(batch.images)))
        loss, logits, logs = self.losses(batch, features)
        outcome: dict[str, Any] = {"loss": loss, "correct": (logits.detach().argmax(1) == batch.labels).sum()}
        return {**outcome, "logs": logs} if logs else outcome

    def repeat_labels(self, batch: Batch) -> tuple[Tensor, Mix | None]:
        """Repeat labels to int64 [B * M], and mixed labels, for the transformed rows."""
        count = len(self.transforms)
        mix = None if batch.mix is None else Mix(*(part.repeat_interleave(count) for part in batch.mix))
        return batch.labels.repeat_interleave(count), mix

    # -- prediction ----------------------------------------------------------------------------------------------

    def answer(self, variant: str, features: Tensor) -> Tensor:
        """Return class logits [B, C] of a variant.

        Args:
            features: features of the views, [B, M, D]; variants other than ``aggregated`` read the first view only.
        """
        raise NotImplementedError

    def view_features(self, images: Tensor, views: int) -> Tensor:
        """Return features [B, V, D] under the first V transformations, one pass of the backbone after another."""
        unit = self.to_unit(images)
        return torch.stack([self.features(self.transforms.one(unit, number)) for number in range(views)], dim=1)

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Scores]:
        """Return scores of every variant from M passes through the backbone; features are the untransformed image's."""
        features = self.view_features(images, len(self.transforms))
        shared = features[:, 0].float()
        return {name: Scores(self.answer(name, features).float(), shared) for name in self.variants}

    @torch.no_grad()
    def predict_headline(self, images: Tensor) -> Scores:
        """Return scores of the headline variant: M passes through the backbone for ``aggregated``, else one."""
        views = len(self.transforms) if self.headline == "aggregated" else 1
        features = self.view_features(images, views)
        return Scores(self.answer(self.headline, features).float(), features[:, 0].float())


@named("network/data_augmentation")
class AugmentedClassifier(TransformedClassifier):
    """Network trained with data augmentation by all M transformations at once: each has the label of the image.

    L = (1/M) sum_j L(z(t_j(x)), y), with the loss L of the configuration. ``aggregated`` is the mean of the M logits.

    Args:
        options: the fields of `DataAugmentationOptions`.
    """

    declaration: type[DataAugmentationOptions] = DataAugmentationOptions

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        declared = self.declaration(**options)
        super().__init__(spec, transform=declared.transform, checkpointing=declared.checkpointing)
        self.options = declared
        self.headline = declared.inference

    def losses(self, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        logits = self.head(features)
        training_logits = self._of_variant(self.headline, logits.unflatten(0, (-1, len(self.transforms))))
        return self.loss(logits, *self.repeat_labels(batch)), training_logits, {}

    def answer(self, variant: str, features: Tensor) -> Tensor:
        return self._of_variant(variant, self.head(features.flatten(0, 1)).unflatten(0, features.shape[:2]))

    def _of_variant(self, variant: str, logits: Tensor) -> Tensor:
        """Return logits [B, C] of a variant from the logits [B, V, C] of the views."""
        return logits[:, 0] if variant == "single" else logits.float().mean(1)


@named("network/multi_task")
class MultiTaskClassifier(AugmentedClassifier):
    """Network trained with data augmentation and a second head that predicts the transformation.

    L = (1/M) sum_j [ L(z(t_j(x)), y) + weight * CE(v(t_j(x)), j) ] (the paper's multi-task objective, weight 1). The
    second head is of the configured kind and has M rows; its loss is always plain cross-entropy, because
    all transformations are equally frequent.

    Args:
        options: the fields of `MultiTaskOptions`.
    """

    declaration = MultiTaskOptions

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        self.transform_weight = self.options["transform_weight"]
        with seeded_construction(derive_seed(spec.seed, spec.role, "transform head")):
            self.transform_head = instantiate(spec.settings.head, self.backbone.num_features, len(self.transforms))

    def losses(self, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        class_loss, training_logits, _ = super().losses(batch, features)
        numbers = torch.arange(len(self.transforms), device=features.device).repeat(len(batch.labels))
        transform_loss = functional.cross_entropy(self.transform_head(features), numbers).mean()
        logs = {"class_loss": class_loss.detach(), "transform_loss": transform_loss.detach()}
        return class_loss + self.transform_weight * transform_loss, training_logits, logs

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {"transform_head": self.transform_head}


class TransformedImagesMethod(Method):
    """Base class of methods with one stage, ``representation``, on transformed images."""

    provides = ("logits", "features")
    module: type[TransformedClassifier]

    options: TransformedOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.transforms = joint_transforms(self.options.transform)

    def check(self, dataset_info: DatasetInfo) -> None:
        self.transforms.check(dataset_info.image_shape)

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        return [Stage("representation", "representation", settings, module=self.module, options=dict(self.options))]


@named("method/data_augmentation")
class DataAugmentation(TransformedImagesMethod):
    """Method that trains on all M transformations of every image with the image's label.

    Raises:
        ConfigError: the transformations do not support these images.
    """

    module = AugmentedClassifier
    Options = DataAugmentationOptions


@named("method/multi_task")
class MultiTask(TransformedImagesMethod):
    """`DataAugmentation` with a second head that predicts the transformation.

    Raises:
        ConfigError: the transformations do not support these images.
    """

    module = MultiTaskClassifier
    Options = MultiTaskOptions
