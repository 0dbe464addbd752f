"""Weight balancing (Alshammari et al., CVPR 2022): tuned weight decay, then a classifier of bounded weight norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ltr.configuration.targets import locate
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import NetworkSpec, Stage
from ltr.methods.decoupling.representation import FromRepresentation, classifier_stage
from ltr.methods.decoupling.retrained import SecondStage
from ltr.methods.weight_balancing.options import BalancedOptions, WeightBalancingOptions


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
    """The representation with its own classifier, which learns on with weights inside a ball (MaxNorm).

    Args:
        spec: see `NetworkSpec`; its parent is ``representation``.
        options: the fields of `BalancedOptions`.
    """

    is_solvable = False
    radius: Tensor

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        chosen = BalancedOptions(**options)
        self._fraction = chosen.radius
        super().__init__(spec, freeze_bn_stats=chosen.freeze_bn_stats)
        self.options = chosen
        start = max_norm_radius(self.head.weight.detach(), self._fraction)
        self.register_buffer("radius", start)  # of the representation's classifier: fixed while this one trains

    def start_from(self, network: ImageClassifier) -> None:
        super().start_from(network)
        self.head.load_state_dict(network.head.state_dict())

    @property
    def graph_obstacle(self) -> str | None:  # type: ignore[override]
        is_by_epoch = self.options["projection"] == "epoch"
        return "method.projection=epoch projects after the last step of an epoch alone" if is_by_epoch else None

    def optimizer_step(self, *arguments: Any, **named_arguments: Any) -> None:
        super().optimizer_step(*arguments, **named_arguments)
        when = self.options["projection"]
        # within the step, so that whatever is saved after it is projected
        if when == "step" or (when == "epoch" and self.trainer.is_last_batch):
            with torch.no_grad():
                self.head.weight.copy_(project_rows(self.head.weight, self.radius))

    def no_weight_decay(self) -> list[str]:
        return []  # the official code decays the bias too


@named("method/weight_balancing")
class WeightBalancing(FromRepresentation):
    """Weight balancing: a representation with tuned weight decay, then ``classifier``.

    Args:
        options: the fields of `WeightBalancingOptions`.

    Raises:
        ConfigError: the head is not linear.
    """

    Options = WeightBalancingOptions
    options: WeightBalancingOptions

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        target = settings.head["_target_"]
        if getattr(locate(target, "head"), "head_kind", None) != "linear":
            raise ConfigError(
                f"method=weight_balancing needs head=linear, not {target.rsplit('.', 1)[-1]}: it bounds the norms of a "
                "linear classifier's weights"
            )
        second = settings.for_stage(self.options.classifier, "method.classifier")
        options = self.options.part(BalancedOptions)
        return [*self.representation(settings, dataset_info), classifier_stage(second, BalancedClassifier, options)]
