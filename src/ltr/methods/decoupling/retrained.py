"""cRT and LWS: class-balanced training of the classifier on a trained backbone (Kang et al., ICLR 2020)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ltr.configuration.configs import read_config, without_private
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import Settings
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.decoupling.options import CRTOptions, LWSOptions, RescaledOptions, RetrainedOptions
from ltr.methods.decoupling.representation import TwoStages, network_of


@named("network/retrained_classifier")
class SecondStage(ImageClassifier):
    """Network of cRT: a trained backbone, and a new head that is trained.

    Args:
        spec: see `NetworkSpec`; its parent is ``representation``.
        options: the fields of `RetrainedOptions`. Training updates the backbone's BatchNorm statistics, unless
            ``freeze_bn_stats`` keeps it in eval mode.

    Attributes:
        keeps_head: True starts from the representation's head instead of a new one.
    """

    keeps_head: ClassVar[bool] = False

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec)
        declared = RetrainedOptions(**options)
        self.options = declared
        self.frozen = declared.trainable == "classifier"
        self.freeze_bn_stats = declared.freeze_bn_stats
        self.cached = declared.features == "cached"
        self._cache: FeatureCache | None = None
        if spec.parents:
            representation = network_of(spec.parents)
            self.take_backbone(representation)
            if self.keeps_head:
                self.head.load_state_dict(representation.head.state_dict())
        if declared.trainable != "all":
            self.backbone.requires_grad_(False)
            if self.pool is not None:  # a part of the representation
                self.pool.requires_grad_(False)
        if declared.trainable == "last_block":
            self.backbone.last_block().requires_grad_(True)
        self.train()  # Lightning keeps the modes in which modules are when training starts

    def train(self, mode: bool = True) -> SecondStage:
        super().train(mode)
        if self.freeze_bn_stats:
            self.backbone.eval()
        return self

    def features(self, unit: Tensor) -> Tensor:
        if not self.frozen:
            return super().features(unit)
        with torch.no_grad():
            return super().features(unit)

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.cached:
            with self.trainer.precision_plugin.forward_context(), torch.no_grad():
                self._cache = FeatureCache(self, self.trainer.datamodule)  # type: ignore[attr-defined]

    def batch_features(self, batch: Batch) -> Tensor:
        return super().batch_features(batch) if self._cache is None else self._cache.features(batch.indices)


class FeatureCache:
    """In-memory cache of the features of un-augmented training images, on the device, indexed by source index.

    Args:
        network: network that computes the features, in its current mode.
    """

    def __init__(self, network: ImageClassifier, data: Any) -> None:
        device = network.device
        feature_batches, indices = [], []
        for batch in data.evaluation_loader(data.split.train):  # every process caches all images
            feature_batches.append(network.features(network.to_unit(batch.images)))
            indices.append(batch.indices)
        self._features = torch.cat(feature_batches)
        self._row = torch.full((len(data.source),), -1, dtype=torch.int64, device=device)
        self._row[torch.cat(indices)] = torch.arange(len(self._features), device=device)

    def features(self, indices: Tensor) -> Tensor:
        """Return features [B, D] of source indices int64 [B]."""
        return self._features[self._row[indices]]


@named("head/scaled")
class ScaledHead(nn.Module):
    """Trained head with a learned scale per class, [C], initialised to 1.

    The scale multiplies the whole logit, f_j (w_j . x + b_j), as in the official code; the paper's equation is f_j w_j,
    without bias.

    Args:
        head: the trained head.
        num_classes: C.
        frozen: keep the head as it was trained (LWS); False trains it further.
    """

    head_kind = "scaled"
    bias = None

    def __init__(self, head: nn.Module, num_classes: int, *, frozen: bool = True) -> None:
        super().__init__()
        self.head = head.requires_grad_(not frozen)
        self.scales = nn.Parameter(torch.ones(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features) * self.scales

    @torch.no_grad()
    def weight_norms(self) -> Tensor | None:
        """Return the norms of the head's weights times the scales, float64 [C]; None if it has no norms."""
        of_head = getattr(self.head, "weight_norms", None)
        return None if of_head is None or (norms := of_head()) is None else norms * self.scales.double().abs()

    def linear_map(self) -> tuple[Tensor, Tensor] | None:
        """Return weight [C, D] and bias [C] of the scaled logits; None if the head is not linear."""
        of_head = getattr(self.head, "linear_map", None)
        if of_head is None or (linear := of_head()) is None:
            return None
        return linear[0] * self.scales.unsqueeze(1), linear[1] * self.scales


@named("network/rescaled_classifier")
class RescaledClassifier(SecondStage):
    """Network of LWS: frozen backbone and classifier, and one trained scale per class.

    Args:
        spec: see `NetworkSpec`; its parent is ``representation``.
        options: the fields of `RescaledOptions`.
    """

    keeps_head = True

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        self.options = RescaledOptions(**options)
        self.head = ScaledHead(self.head, spec.dataset_info.num_classes)

    def no_weight_decay(self) -> list[str]:
        return []  # the bias is frozen; the scales decay, as in the official code


class _CachingTwoStages(TwoStages):
    """Base class of cRT and LWS, which can train on cached features."""

    options: LWSOptions | CRTOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        is_cached = self.options.features == "cached"
        if is_cached and not self.options.freeze_bn_stats:
            raise ConfigError(
                "method.features=cached needs method.freeze_bn_stats=true: features change with BatchNorm statistics "
                "and cannot be cached"
            )
        trainable = self.options.get("trainable", "classifier")
        if is_cached and trainable != "classifier":
            raise ConfigError(
                f"method.features=cached needs method.trainable=classifier, not {trainable}: features of a "
                "backbone that is trained cannot be cached"
            )

    def classifier_settings(self, settings: Settings) -> Settings:
        second = super().classifier_settings(settings)
        if self.options.features != "cached":
            return second
        if "augment" in self.options.classifier:
            raise ConfigError(
                "method.classifier.augment: method.features=cached takes the features of images without augmentation. "
                "Leave it out, or set method.features=augmented"
            )
        return second.replaced(augment=without_private(read_config("augment/none")))


@named("method/crt")
class CRT(_CachingTwoStages):
    """Classifier re-training (cRT): train a new classifier with class-balanced sampling on the frozen backbone.

    Raises:
        ConfigError: cached features of a backbone that changes in training.
    """

    Options = CRTOptions
    module = SecondStage
    declaration = RetrainedOptions


@named("method/lws")
class LWS(_CachingTwoStages):
    """Learnable weight scaling (LWS): keep the classifier and train one scale per class.

    Raises:
        ConfigError: cached features of a backbone that changes in training.
    """

    keeps_head = True
    Options = LWSOptions
    module = RescaledClassifier
    declaration = RescaledOptions
