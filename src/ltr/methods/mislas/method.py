"""MiSLAS (Zhong et al., CVPR 2021): mixup for the representation, label-aware smoothing for a rescaled classifier."""

from __future__ import annotations

from typing import Any

from torch import nn

from ltr.identity import named
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.decoupling.representation import TwoStages
from ltr.methods.decoupling.retrained import ScaledHead, SecondStage
from ltr.methods.mislas.options import CalibratedOptions, MiSLASOptions


@named("network/calibrated_classifier")
class CalibratedClassifier(SecondStage):
    """Network of the second stage: the trained classifier, trained further at a small rate, and a factor per class.

    ``optimizer.head_lr`` is the learning rate of the classifier and ``optimizer.extra_lr`` that of the factors.

    Args:
        spec: see `NetworkSpec`; its parent is ``representation``.
        options: the fields of `CalibratedOptions`.
    """

    keeps_head = True
    is_solvable = False

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        self.options = CalibratedOptions(**options)
        self.head = ScaledHead(self.head, spec.dataset_info.num_classes, frozen=False)

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {"scales": nn.ParameterList([self.head.scales])}  # a group with a separate learning rate

    def no_weight_decay(self) -> list[str]:
        return []  # the official code decays weights, biases and factors alike


@named("method/mislas")
class MiSLAS(TwoStages):
    """MiSLAS: a representation, which the paper trains with mixup, then a calibrated ``classifier``."""

    Options = MiSLASOptions
    options: MiSLASOptions
    module = CalibratedClassifier
    declaration = CalibratedOptions
