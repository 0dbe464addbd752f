"""Networks of several experts: shared early stages, and late stages and a classifier for each expert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ltr.configuration.targets import class_name, instantiate
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.evaluation.scores import Scores
from ltr.losses import functional
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import Settings
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.multi_expert.options import ExpertsOptions
from ltr.methods.multi_expert.splitting import FanMode, Halves, narrow, split, width_of
from ltr.models.backbones import Backbone, config_for_image_size
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.digits_net import DigitsNet
from ltr.models.narrow_maps import guard_narrow_maps
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed


class ExpertBackbone(Backbone):
    """Shared early stages and K late ones; the features are those of all experts, one after the other.

    Args:
        trunk: normalised images to a feature map.
        branches: branches of the experts, the map to features [B, D].
        width: D.
        last_blocks: the last block of each branch.
    """

    map_channels = ()
    map_strides = ()

    def __init__(
        self, trunk: nn.Module, branches: Sequence[nn.Module], width: int, last_blocks: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.branches = nn.ModuleList(branches)
        self.num_features = width * len(branches)
        self._last_blocks = tuple(last_blocks)  # a tuple, so that they are not registered twice

    def forward(self, images: Tensor) -> Tensor:
        shared = self.trunk(images)
        return torch.cat([branch(shared) for branch in self.branches], dim=1)

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        raise ConfigError(
            "a network of several experts has no single set of feature maps. Use method=erm where maps are needed"
        )

    def last_block(self) -> nn.Module:
        return nn.ModuleList(self._last_blocks)


class ExpertHeads(nn.Module):
    """A classifier for each of K experts; the logits are the mean of the experts' logits.

    Args:
        heads: K classifiers of [B, D].
        width: D.
        num_classes: C.
    """

    head_kind = "experts"
    bias = None

    def __init__(self, heads: Sequence[nn.Module], width: int, num_classes: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(heads)
        self.num_features = width * len(heads)
        self.num_classes = num_classes

    def parts(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return the features [B, D] of each expert."""
        return features.chunk(len(self.experts), dim=1)

    def each(self, features: Tensor) -> Tensor:
        """Return the logits of each expert, float32 [B, K, C], from the features [B, K D]."""
        logits = [head(part) for head, part in zip(self.experts, self.parts(features))]
        return functional.at_least_float32(torch.stack(logits, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        return self.each(features).mean(1)


class ExpertClassifier(ImageClassifier):
    """Base class of networks of several experts; a subclass implements `expert_loss`.

    Variants: ``ensemble``, the mean of the experts' logits, and ``expert_1`` to ``expert_K``.

    Args:
        spec: see `NetworkSpec`.
        options: the fields of ``declaration``.

    Raises:
        ConfigError: see `check_settings`; the backbone cannot be split; the loss is none of a softmax.
    """

    declaration: type[ExpertsOptions]
    headline = "ensemble"
    is_solvable = False
    options: Any

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        chosen = self.declaration(**options)
        check_settings(spec.settings, chosen.reduce_dimension)
        super().__init__(spec)
        if self.link != "softmax":
            raise ConfigError(
                f"loss={class_name(spec.settings.loss)}: several experts are trained with a softmax, and it is a loss "
                "of sigmoids. Use loss=ldam, cross_entropy or another loss of a softmax"
            )
        self.options = chosen
        self.experts = int(chosen.get("experts", 3))
        self.backbone = self._built(spec, chosen.reduce_dimension)
        self.backbone.to(memory_format=torch.channels_last)
        guard_narrow_maps(self.backbone)
        width = self.backbone.num_features // self.experts
        classes, heads = spec.dataset_info.num_classes, []
        for number in range(1, self.experts + 1):
            with seeded_construction(derive_seed(spec.seed, spec.role, "expert head", number)):
                heads.append(instantiate(spec.settings.head, width, classes))
        self.head = ExpertHeads(heads, width, classes)

    def _built(self, spec: NetworkSpec, reduce_dimension: bool) -> ExpertBackbone:
        """Return the backbone; the shared stages are those of the configured backbone's initial weights."""
        shape = spec.dataset_info.image_shape
        halves: list[Halves] = []
        last_blocks = []
        for number in range(1, self.experts + 1):
            with seeded_construction(derive_seed(spec.seed, spec.role, "expert", number)):
                backbone = (
                    self.backbone
                    if number == 1
                    else instantiate(config_for_image_size(spec.settings.backbone, shape), shape[0])
                )
                last_blocks.append(backbone.last_block())
                halves.append(split(backbone))
                if reduce_dimension:
                    mode: FanMode = "fan_in" if isinstance(backbone, (CifarResNet, DigitsNet)) else "fan_out"
                    narrow(halves[-1], shape, mode=mode)
        width = width_of(halves[0], shape)
        return ExpertBackbone(halves[0].trunk, [half.branch for half in halves], width, last_blocks)

    # -- learning ------------------------------------------------------------------------------------------------

    def expert_loss(self, expert_logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and numbers to log.

        Args:
            expert_logits: float32 [B, K, C].
        """
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        expert_logits = self.head.each(self.batch_features(batch))
        loss, logs = self.expert_loss(expert_logits, batch)
        correct = (expert_logits.detach().mean(1).argmax(1) == batch.labels).sum()
        return {"loss": loss, "correct": correct, "logs": logs}

    # -- prediction ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Scores]:
        features = self.features(self.to_unit(images))
        return self.scores_of(features, self.head.each(features))

    def scores_of(self, features: Tensor, expert_logits: Tensor) -> dict[str, Scores]:
        """Return the scores of all variants from features [B, K D] and logits [B, K, C]."""
        parts = zip(self.head.parts(features), expert_logits.unbind(1))
        experts = {f"expert_{k}": Scores(logits, part.float()) for k, (part, logits) in enumerate(parts, start=1)}
        return {"ensemble": Scores(expert_logits.mean(1), features.float()), **experts}

    def as_classifier(self) -> ImageClassifier:
        raise ConfigError(
            "a network of several experts is not a representation of one vector and one classifier. Start from "
            "method=erm"
        )


def check_settings(settings: Settings, reduce_dimension: bool) -> None:
    """Refuse settings that networks of several experts do not have.

    Raises:
        ConfigError: a part of the backbone is tuned, or initial or loaded weights do not fit.
    """
    if settings.tune is not None:
        raise ConfigError(
            "tune: several experts train the stages of each of them, and take no tuning of one backbone. Use tune=all"
        )
    if settings.head.get("initial") is not None:
        raise ConfigError(
            f"head.initial={settings.head['initial']}: several experts have a classifier each, which start from random "
            "weights. Set head.initial=null"
        )
    if reduce_dimension and settings.backbone.get("initial") is not None:
        raise ConfigError(
            f"backbone.initial={settings.backbone['initial']}: stages of three quarters of the channels start "
            "Kaiming-normal. Set backbone.initial=null, or method.reduce_dimension=false"
        )
    weights = settings.backbone.get("weights") or settings.backbone.get("pretrained")
    if reduce_dimension and weights:
        raise ConfigError(
            "backbone.weights and backbone.pretrained do not fit stages of three quarters of the channels. Set "
            "method.reduce_dimension=false, or leave the weights out"
        )
