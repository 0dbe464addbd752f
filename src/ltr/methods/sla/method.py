"""Self-supervised label augmentation (Lee, Hwang, Shin, ICML 2020): classes and transformations learned jointly.

An image x of class y under transformation t_j has the joint label (y, j), numbered y * M + j. Since no class is told
to look the same turned around, transformations that change what an image looks like do no harm, and the M views of an
image are M opinions whose mean can be taken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ltr.configuration.targets import instantiate
from ltr.data.batch import Batch, Mix
from ltr.data.joint_transforms import joint_transforms
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses.distillation import kl_to_teacher
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.sla.options import SLAOptions
from ltr.methods.sla.transformed import OnTransformedImages, TransformedClassifier
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed


@named("network/sla")
class JointClassifier(TransformedClassifier):
    """A head with a row for each pair of class and transformation; with self-distillation a second one with C rows.

    The loss is (1/M) sum_j L(z(t_j(x)), (y, j)) with the configuration's L, times M where ``loss_scale`` is M. With
    self-distillation T^2 KL(softmax(a / T) || softmax(u / T)) + weight * L(u, y) is added,
    with the aggregated logits a as a fixed target and u the second head's logits of the untransformed image. Under a
    loss of sigmoids the KL is the sum of the classes' own, between yes and no.

    Variants: ``single`` reads z(x) at the labels (., 0); ``aggregated`` the mean over j of z(t_j(x)) at (., j);
    ``distilled`` u(x).

    Class weights, margins and priors of a joint class follow its y: it is given as many images as y has.

    Args:
        spec: see `NetworkSpec`.
        options: the fields of `SLAOptions`.

    Raises:
        ConfigError: images that the transformations are not made for; ``distilled`` without its head.
    """

    options: SLAOptions

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        chosen = SLAOptions(**options)
        count = len(joint_transforms(chosen.transform))
        super().__init__(
            spec,
            transform=chosen.transform,
            checkpointing=chosen.checkpointing,
            logit_counts=[n for n in spec.dataset_info.class_counts for _ in range(count)],
        )
        self.options = chosen
        self.headline = headline_of(chosen.inference, chosen.self_distillation)
        self.aggregation = chosen.aggregation
        self.loss_scale = count if chosen.loss_scale == "M" else 1
        self.temperature = chosen.temperature
        self.distilled_weight = chosen.distilled_weight
        self.self_distillation = chosen.self_distillation
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
        """Return labels y * M + j, int64 [B * M], and mixed ones: both images of a mix went through the same j."""
        count = len(self.transforms)
        labels, mix = self.repeated(batch)
        numbers = torch.arange(count, device=labels.device).repeat(len(batch.labels))
        joint_mix = None if mix is None else Mix(mix.labels * count + numbers, mix.weight)
        return labels * count + numbers, joint_mix

    def aggregated(self, joint: Tensor) -> Tensor:
        """Return class logits [B, C], float32, of joint logits [B, M, C * M] of the M views."""
        count = len(self.transforms)
        own = joint.float().unflatten(2, (-1, count)).diagonal(dim1=1, dim2=3)  # [B, C, M]
        return own.mean(-1) if self.aggregation == "mean" else own.sum(-1)

    # -- learning ------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        joint = self.head(features)
        loss = self.loss(joint, *self.joint_labels(batch))
        if self.loss_scale != 1:
            loss = loss * self.loss_scale
        views = joint.unflatten(0, (-1, len(self.transforms)))
        if not self.self_distillation:
            return loss, self._of_joint(self.headline, views.detach()), {}
        target = self.aggregated(views.detach())
        student = self.distilled_head(features.unflatten(0, (len(target), -1))[:, 0])
        own = self.distilled_loss(student, batch.labels, batch.mix)
        to_target = self._distance(student, target)
        logs = {"joint_loss": loss.detach(), "distilled_loss": own.detach(), "distillation": to_target.detach()}
        shown = student if self.headline == "distilled" else self._of_joint(self.headline, views.detach())
        return loss + self.distilled_weight * own + to_target, shown, logs

    def _distance(self, student: Tensor, target: Tensor) -> Tensor:
        """T^2 KL of the second head's answers [B, C] to the aggregated ones, mean over images."""
        if self.link == "softmax":
            return kl_to_teacher(student, target, self.temperature).mean()
        # a sigmoid is a softmax over (z, 0)
        pairs, targets = (torch.stack([logits, torch.zeros_like(logits)], dim=-1) for logits in (student, target))
        return kl_to_teacher(pairs, targets, self.temperature).sum(1).mean()

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        if self.self_distillation:
            self.distilled_loss.start_epoch(epoch, self.settings.epochs)

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {"distilled_head": self.distilled_head} if self.self_distillation else {}

    def undecayed(self) -> list[str]:
        more = ["distilled_head.bias"] if self.self_distillation and self._distilled_prior else []
        return [*super().undecayed(), *more]

    @property
    def _distilled_prior(self) -> bool:
        return self.distilled_loss.prior_bias is not None and self.distilled_head.bias is not None

    # -- prediction ----------------------------------------------------------------------------------------------

    def answer(self, variant: str, features: Tensor) -> Tensor:
        if variant == "distilled":
            return self.distilled_head(features[:, 0])
        used = features[:, :1] if variant == "single" else features
        return self._of_joint(variant, self.head(used.flatten(0, 1)).unflatten(0, used.shape[:2]))

    def _of_joint(self, variant: str, joint: Tensor) -> Tensor:
        """``single`` or ``aggregated`` [B, C] of the views' joint logits [B, V, C * M]."""
        return self.aggregated(joint) if variant == "aggregated" else joint[:, 0, :: len(self.transforms)]

    def as_classifier(self) -> ImageClassifier:
        """Return the plain network with a row per class that answers alike from one pass.

        Its head is the second one where that is the headline, else the joint head's rows of j = 0.
        """
        plain = ImageClassifier(self.spec)
        plain.take_backbone(self)
        if self.headline == "distilled":
            plain.head.load_state_dict(self.distilled_head.state_dict())
        else:
            rows, step = self.dataset_info.num_classes * len(self.transforms), len(self.transforms)
            state = self.head.state_dict()
            own = {name: t[::step] if t.ndim and len(t) == rows else t for name, t in state.items()}
            plain.head.load_state_dict(own)
        return plain.eval()


def headline_of(inference: str | None, self_distillation: bool) -> str:
    """Return the variant that a run is evaluated by.

    Raises:
        ConfigError: ``distilled`` without self-distillation.
    """
    if inference == "distilled" and not self_distillation:
        raise ConfigError(
            "method.inference=distilled needs method.self_distillation=true; single and aggregated do without"
        )
    return inference or ("distilled" if self_distillation else "aggregated")


@named("method/sla")
class SLA(OnTransformedImages):
    """One stage, ``representation``, trained on joint labels.

    Args:
        options: the fields of `SLAOptions`.

    Raises:
        ConfigError: ``distilled`` without self-distillation; images that the transformations are not made for.
    """

    module = JointClassifier
    Options = SLAOptions
    options: SLAOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        headline_of(self.options.inference, self.options.self_distillation)
