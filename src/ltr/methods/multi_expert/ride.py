"""RIDE (Wang et al., ICLR 2021): diverse experts of one loss, and routers that choose between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ltr.configuration.configs import read_config, without_private
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses.base import first_epoch, to_float32
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, NetworkSpec, Stage
from ltr.methods.multi_expert.losses import class_temperatures, diversity
from ltr.methods.multi_expert.network import ExpertClassifier
from ltr.methods.multi_expert.options import DEFAULT_TOP_CHOICES, RIDEExpertsOptions, RIDEOptions, RoutersOptions
from ltr.methods.multi_expert.routing import RoutedClassifier


@named("network/ride")
class DiverseExperts(ExpertClassifier):
    """The experts of RIDE: the configuration's loss of each, plus the factor times their divergence.

    Args:
        spec: see `NetworkSpec`.
        options: the fields of `RIDEExpertsOptions`.

    Raises:
        ConfigError: see `ExpertClassifier`; ``reweight_factor`` is too large for this long tail.
    """

    declaration = RIDEExpertsOptions
    options: RIDEExpertsOptions
    temperatures: Tensor
    plain_temperatures: Tensor
    deferred_options = ("temperature_from",)

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        chosen = self.options
        counts, alpha = spec.dataset_info.class_counts, chosen.diversity_temperature
        try:
            by_class = class_temperatures(counts, alpha, chosen.reweight_factor, chosen.temperature_rule)
        except ValueError as error:
            raise ConfigError(
                f"method.reweight_factor={chosen.reweight_factor} with method.temperature_rule="
                f"{chosen.temperature_rule}: {error}. Lower the factor, or use temperature_rule=ratio"
            ) from error
        self.register_buffer("temperatures", to_float32(by_class), persistent=False)
        self.register_buffer("plain_temperatures", torch.full((len(by_class),), float(alpha)), persistent=False)
        self._by_class = chosen.temperature_from == 0

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._by_class = epoch >= first_epoch(self.options.temperature_from, self.settings.epochs)

    def expert_loss(self, expert_logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if self.options.loss_of == "mean":
            base = self.experts * self.loss(expert_logits.mean(1), batch.labels, batch.mix)
        else:
            base = torch.stack([self.loss(one, batch.labels, batch.mix) for one in expert_logits.unbind(1)]).sum()
        temperatures = self.temperatures if self._by_class else self.plain_temperatures
        apart = diversity(expert_logits, temperatures, self.options.divergence).mean()
        logs = {"expert_loss": base.detach() / self.experts, "diversity": apart.detach()}
        return base + self.options.diversity_factor * apart, logs


@named("method/ride")
class RIDE(Method):
    """RIDE: ``representation`` trains the experts, ``assignment`` the routers between them.

    The loss of the configuration is that of each expert: the paper's is LDAM with deferred class weights.

    Args:
        options: the fields of `RIDEOptions`.
    """

    Options = RIDEOptions
    options: RIDEOptions
    provides = ("logits", "features")

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        if self.options.experts < 2:
            raise ConfigError("method.experts=1: routers choose between experts, and there is one. Give 2 or more")
        classes = dataset_info.num_classes
        if self.options.top_choices > max(classes, DEFAULT_TOP_CHOICES):
            raise ConfigError(
                f"method.top_choices={self.options.top_choices}: the data set has {classes} classes. Give {classes} or "
                "fewer"
            )
        stage_config = dict(self.options.assignment)
        batch_size = stage_config.pop("batch_size", None) or settings.batch_size
        # routers have a loss of their own; this one says how probabilities follow from the experts' logits
        softmax = without_private(read_config("loss/cross_entropy"))
        top_choices = min(self.options.top_choices, classes)  # the default, on a data set of fewer classes
        second = settings.for_stage({**stage_config, "loss": softmax}, "method.assignment")
        return [
            Stage(
                "representation",
                "experts",
                settings,
                module=DiverseExperts,
                options=self.options.part(RIDEExpertsOptions),
            ),
            Stage(
                "assignment",
                "assignment",
                second.replaced(batch_size=batch_size),
                module=RoutedClassifier,
                parents=("representation",),
                options={**self.options.part(RoutersOptions), "top_choices": top_choices},
            ),
        ]
