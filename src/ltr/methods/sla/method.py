"""Self-supervised label augmentation (Lee, Hwang, Shin, ICML 2020): classes and transformations learned jointly.

An image x of class y under transformation t_j has the joint label (y, j), numbered y * M + j. The network need not be
invariant to the transformations, and predictions for the M views can be averaged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ltr.configuration.targets import instantiate
from ltr.data.augmentation.joint_transforms import joint_transforms
from ltr.data.batch import Batch, Mix
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses.distillation import kl_to_teacher
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.sla.options import SLAOptions
from ltr.methods.sla.transformed import TransformedClassifier, TransformedImagesMethod
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed


@named("network/sla")
class JointClassifier(TransformedClassifier):
    """Network with a head of one row per pair of class and transformation; self-distillation adds a head of C rows.

    The loss is (1/M) sum_j L(z(t_j(x)), (y, j)) with the configuration's L, times M where ``loss_scale`` is M. With
    self-distillation T^2 KL(softmax(a / T) || softmax(u / T)) + weight * L(u, y) is added,
    where the aggregated logits a are a fixed target and u are the second head's logits of the untransformed image. For
    a sigmoid loss the KL is the sum of the binary KLs of the classes.

    Variants: ``single`` reads z(x) at the labels (., 0); ``aggregated`` the mean over j of z(t_j(x)) at (., j);
    ``distilled`` u(x).

    Class weights, margins and priors of a joint class (y, j) follow from the number of images of y.

    Args:
        options: the fields of `SLAOptions`.

    Raises:
        ConfigError: the transformations do not support these images; ``distilled`` without self-distillation.
    """

    options: SLAOptions

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        declared = SLAOptions(**options)
        count = len(joint_transforms(declared.transform))
        super().__init__(
            spec,
            transform=declared.transform,
            checkpointing=declared.checkpointing,
            logit_counts=[n for n in spec.dataset_info.class_counts for _ in range(count)],
        )
        self.options = declared
        self.headline = headline_of(declared.inference, declared.self_distillation)
        self.loss_scale = count if declared.loss_scale == "M" else 1
        self.self_distillation = declared.self_distillation
        if self.self_distillation:
            self.variants = ("single", "aggregated", "distilled")
            self.distilled_loss = instantiate(spec.settings.loss, spec.dataset_info.class_counts)
            with seeded_construction(derive_seed(spec.seed, spec.role, "distilled head")):
                num_classes = spec.dataset_info.num_classes
                self.distilled_head = instantiate(spec.settings.head, self.backbone.num_features, num_classes)
            if self._distilled_prior:
                self.distilled_head.init_bias(self.distilled_loss.prior_bias)

    # -- joint labels --------------------------------------------------------------------------------------------

    def joint_labels(self, batch: Batch) -> tuple[Tensor, Mix | None]:
        """Return labels y * M + j, int64 [B * M], and mixed ones; both images of a mix have the same j."""
        count = len(self.transforms)
        labels, mix = self.repeat_labels(batch)
        numbers = torch.arange(count, device=labels.device).repeat(len(batch.labels))
        joint_mix = None if mix is None else Mix(mix.labels * count + numbers, mix.weight)
        return labels * count + numbers, joint_mix

    def aggregate(self, joint: Tensor) -> Tensor:
        """Aggregate joint logits [B, M, C * M] of the M views to class logits float32 [B, C]."""
        count = len(self.transforms)
        joint_diagonal = joint.float().unflatten(2, (-1, count)).diagonal(dim1=1, dim2=3)  # [B, C, M]
        return joint_diagonal.mean(-1) if self.options.aggregation == "mean" else joint_diagonal.sum(-1)

    # -- learning ------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        joint = self.head(features)
        loss = self.loss(joint, *self.joint_labels(batch))
        if self.loss_scale != 1:
            loss = loss * self.loss_scale
        views = joint.unflatten(0, (-1, len(self.transforms)))
        if not self.self_distillation:
            return loss, self._of_joint(self.headline, views.detach()), {}
        target = self.aggregate(views.detach())
        student = self.distilled_head(features.unflatten(0, (len(target), -1))[:, 0])
        distilled_loss = self.distilled_loss(student, batch.labels, batch.mix)
        to_target = self._distillation(student, target)
        logs = {
            "joint_loss": loss.detach(),
            "distilled_loss": distilled_loss.detach(),
            "distillation": to_target.detach(),
        }
        training_logits = student if self.headline == "distilled" else self._of_joint(self.headline, views.detach())
        return loss + self.options.distilled_weight * distilled_loss + to_target, training_logits, logs

    def _distillation(self, student: Tensor, target: Tensor) -> Tensor:
        """Return T^2 KL from the aggregated logits to the second head's logits [B, C], mean over images."""
        if self.link == "softmax":
            return kl_to_teacher(student, target, self.options.temperature).mean()
        # a sigmoid is a softmax over (z, 0)
        pairs, targets = (torch.stack([logits, torch.zeros_like(logits)], dim=-1) for logits in (student, target))
        return kl_to_teacher(pairs, targets, self.options.temperature).sum(1).mean()

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        if self.self_distillation:
            self.distilled_loss.start_epoch(epoch, self.settings.epochs)

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {"distilled_head": self.distilled_head} if self.self_distillation else {}

    def no_weight_decay(self) -> list[str]:
        distilled_names = ["distilled_head.bias"] if self.self_distillation and self._distilled_prior else []
        return [*super().no_weight_decay(), *distilled_names]

    @property
    def _distilled_prior(self) -> bool:
        return self.distilled_loss.prior_bias is not None and self.distilled_head.bias is not None

    # -- prediction ----------------------------------------------------------------------------------------------

    def answer(self, variant: str, features: Tensor) -> Tensor:
        if variant == "distilled":
            return self.distilled_head(features[:, 0])
        view_features = features[:, :1] if variant == "single" else features
        return self._of_joint(variant, self.head(view_features.flatten(0, 1)).unflatten(0, view_features.shape[:2]))

    def _of_joint(self, variant: str, joint: Tensor) -> Tensor:
        """Return ``single`` or ``aggregated`` logits [B, C] from the views' joint logits [B, V, C * M]."""
        return self.aggregate(joint) if variant == "aggregated" else joint[:, 0, :: len(self.transforms)]

    def as_classifier(self) -> ImageClassifier:
        """Return a plain classifier with one row per class that predicts from a single pass.

        Its head is the distilled one if that is the headline, else the rows of the joint head with j = 0.
        """
        plain = ImageClassifier(self.spec)
        plain.take_backbone(self)
        if self.headline == "distilled":
            plain.head.load_state_dict(self.distilled_head.state_dict())
        else:
            rows, step = self.dataset_info.num_classes * len(self.transforms), len(self.transforms)
            state = self.head.state_dict()
            class_rows = {name: t[::step] if t.ndim and len(t) == rows else t for name, t in state.items()}
            plain.head.load_state_dict(class_rows)
        return plain.eval()


def headline_of(inference: str | None, self_distillation: bool) -> str:
    """Return the headline variant.

    Raises:
        ConfigError: ``distilled`` without self-distillation.
    """
    if inference == "distilled" and not self_distillation:
        raise ConfigError(
            "method.inference=distilled needs method.self_distillation=true. Set it, or inference=single or aggregated"
        )
    return inference or ("distilled" if self_distillation else "aggregated")


@named("method/sla")
class SLA(TransformedImagesMethod):
    """Method of one stage, ``representation``, trained on joint labels.

    Raises:
        ConfigError: ``distilled`` without self-distillation; the transformations do not support these images.
    """

    module = JointClassifier
    Options = SLAOptions
    options: SLAOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        headline_of(self.options.inference, self.options.self_distillation)

    def check(self, dataset_info: DatasetInfo) -> None:
        super().check(dataset_info)
        if self.options.self_distillation:
            return
        changed = SLAOptions.changed(self.options)
        for key in ("temperature", "distilled_weight"):
            if key in changed:
                raise ConfigError(
                    f"method.{key}={self.options[key]:g} has no effect without the distilled head. Set "
                    f"method.self_distillation=true, or leave method.{key} out"
                )
