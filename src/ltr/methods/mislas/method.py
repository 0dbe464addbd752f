"""MiSLAS (Zhong et al., CVPR 2021): mixup for the representation, label-aware smoothing for a rescaled classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ltr.identity import named
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import DatasetInfo, NetworkSpec, Settings, Stage
from ltr.methods.decoupling.representation import FromRepresentation
from ltr.methods.decoupling.retrained import SecondStage
from ltr.methods.mislas.options import CalibratedOptions, MiSLASOptions


@named("module/class_scales")
class ClassScales(nn.Module):
    """A learned factor for each class's logit [C], 1 at first."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.ones(num_classes))

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.scales


@named("head/calibrated")
class CalibratedHead(nn.Module):
    """A trained head that goes on learning, followed by a learned factor per class: f_j (w_j . x + b_j)."""

    head_kind = "calibrated"
    bias = None

    def __init__(self, head: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.head = head
        self.rescaling = ClassScales(num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.rescaling(self.head(features))

    @torch.no_grad()
    def weight_norms(self) -> Tensor | None:
        """Return the head's norms times the factors, float64 [C]; None if it has none."""
        norms = getattr(self.head, "weight_norms", None)
        norms = None if norms is None else norms()
        return None if norms is None else norms * self.rescaling.scales.double().abs()


@named("network/calibrated_classifier")
class CalibratedClassifier(SecondStage):
    """The representation with its own classifier, which learns on at a small rate beside a factor per class.

    ``optimizer.head_lr`` is the classifier's rate and ``optimizer.extra_lr`` that of the factors.

    Args:
        spec: see `NetworkSpec`; its parent is ``representation``.
        options: the fields of `CalibratedOptions`.
    """

    is_solvable = False

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        chosen = CalibratedOptions(**options)
        super().__init__(spec, freeze_bn_stats=chosen.freeze_bn_stats)
        self.options = chosen
        self.head = CalibratedHead(self.head, spec.dataset_info.num_classes)

    def start_from(self, network: ImageClassifier) -> None:
        super().start_from(network)
        self.head.load_state_dict(network.head.state_dict())  # not yet followed by factors

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {"rescaling": self.head.rescaling}

    def no_weight_decay(self) -> list[str]:
        return []  # the official code decays weights, biases and factors alike


@named("method/mislas")
class MiSLAS(FromRepresentation):
    """MiSLAS: a representation, which the paper trains with mixup, then ``classifier``.

    Args:
        options: the fields of `MiSLASOptions`.
    """

    Options = MiSLASOptions
    options: MiSLASOptions

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        second = settings.for_stage(self.options.classifier, "method.classifier")
        return [
            *self.representation(settings, dataset_info),
            Stage(
                "classifier",
                "classifier",
                second,
                module=CalibratedClassifier,
                parents=("representation",),
                options=self.options.part(CalibratedOptions),
            ),
        ]
