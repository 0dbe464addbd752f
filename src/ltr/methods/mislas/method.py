"""MiSLAS (Zhong et al., CVPR 2021): mixup for the representation, label-aware smoothing for a rescaled classifier."""

from __future__ import annotations

from typing import Any

from torch import nn

from ltr.identity import named
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import NetworkSpec, Stage
from ltr.methods.decoupling.representation import FromRepresentation, classifier_stage
from ltr.methods.decoupling.retrained import ScaledHead, SecondStage
from ltr.methods.mislas.options import CalibratedOptions, MiSLASOptions


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
        self.head = ScaledHead(self.head, spec.dataset_info.num_classes, frozen=False)

    def start_from(self, network: ImageClassifier) -> None:
        super().start_from(network)
        self.head.load_state_dict(network.head.state_dict())  # not yet followed by factors

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {"scales": nn.ParameterList([self.head.scales])}  # with a learning rate of their own

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
        options = self.options.part(CalibratedOptions)
        return [
            *self.representation(settings, dataset_info),
            classifier_stage(second, CalibratedClassifier, options),
        ]
