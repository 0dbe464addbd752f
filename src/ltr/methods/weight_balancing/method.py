"""Weight balancing (Alshammari et al., CVPR 2022): tuned weight decay, then a classifier of bounded weight norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ltr.configuration.targets import class_name
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import NetworkSpec, Stage
from ltr.methods.decoupling.representation import TwoStages
from ltr.methods.decoupling.retrained import SecondStage
from ltr.methods.weight_balancing.options import BalancedOptions, WeightBalancingOptions
from ltr.models.heads import head_kind


def max_norm_radius(weight: Tensor, fraction: float) -> Tensor:
    """Return the radius at ``fraction`` in [0, 1] between the smallest and largest row norm of ``weight`` [C, D]."""
    norms = weight.norm(dim=1)
    return norms.min() + fraction * (norms.max() - norms.min())


def project_rows(weight: Tensor, radius: Tensor) -> Tensor:
    """Return ``weight`` [C, D] with each row whose norm exceeds ``radius`` scaled to that norm."""
    norms = weight.norm(dim=1, keepdim=True)
    return torch.where(norms > radius, weight * (radius / norms.clamp_min(torch.finfo(norms.dtype).tiny)), weight)


@named("network/balanced_classifier")
class BalancedClassifier(SecondStage):
    """Network of the second stage: the trained classifier, trained further with weights inside a ball (MaxNorm).

    Args:
        spec: see `NetworkSpec`; its parent is ``representation``.
        options: the fields of `BalancedOptions`.
    """

    keeps_head = True
    is_solvable = False
    options: BalancedOptions
    radius: Tensor

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        declared = BalancedOptions(**options)
        super().__init__(spec, freeze_bn_stats=declared.freeze_bn_stats)
        self.options = declared
        # from the representation's classifier, and fixed while this one trains
        self.register_buffer("radius", max_norm_radius(self.head.weight.detach(), declared.radius))

    @property
    def graph_obstacle(self) -> str | None:  # type: ignore[override]
        is_by_epoch = self.options.projection == "epoch"
        return "method.projection=epoch projects only after the last step of an epoch" if is_by_epoch else None

    def optimizer_step(self, *arguments: Any, **named_arguments: Any) -> None:
        super().optimizer_step(*arguments, **named_arguments)
        when = self.options.projection
        # within the step, so that every saved state is projected
        if when == "step" or (when == "epoch" and self.trainer.is_last_batch):
            with torch.no_grad():
                self.head.weight.copy_(project_rows(self.head.weight, self.radius))

    def no_weight_decay(self) -> list[str]:
        return []  # the official code decays the bias too


@named("method/weight_balancing")
class WeightBalancing(TwoStages):
    """Weight balancing: a representation with tuned weight decay, then ``classifier``.

    Raises:
        ConfigError: the head is not linear.
    """

    Options = WeightBalancingOptions
    options: WeightBalancingOptions
    module = BalancedClassifier
    declaration = BalancedOptions

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        if head_kind(settings.head) != "linear":
            raise ConfigError(
                f"method=weight_balancing needs head=linear, not {class_name(settings.head)}: it bounds the norms of a "
                "linear classifier's weights"
            )
        return super().stages(settings, dataset_info)
