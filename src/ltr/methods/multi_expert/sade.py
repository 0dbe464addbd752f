"""SADE (Zhang et al., NeurIPS 2022): three experts of different class distributions, aggregated anew at test time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.evaluation.protocol import Protocol
from ltr.identity import name_of, named
from ltr.losses.base import to_float32
from ltr.losses.weights import log_prior
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Computation, Method, NetworkSpec, Stage, StageOutput
from ltr.methods.multi_expert.aggregation import aggregation_rows, augmentation
from ltr.methods.multi_expert.losses import expertise_losses, inverse_log_prior
from ltr.methods.multi_expert.network import ExpertClassifier
from ltr.methods.multi_expert.options import AggregationOptions, SADEExpertsOptions, SADEOptions

EXPERTS = 3


@named("network/sade")
class SkilledExperts(ExpertClassifier):
    """The three experts of SADE, with the losses of `expertise_losses`.

    Args:
        spec: see `NetworkSpec`.
        options: the fields of `SADEExpertsOptions`.
    """

    declaration: type[SADEExpertsOptions] = SADEExpertsOptions
    options: SADEExpertsOptions
    log_priors: Tensor
    inverse_log_priors: Tensor

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        counts = spec.dataset_info.class_counts
        self.register_buffer("log_priors", to_float32(log_prior(counts)), persistent=False)
        self.register_buffer("inverse_log_priors", to_float32(inverse_log_prior(counts)), persistent=False)

    def expert_loss(self, expert_logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        losses = self._losses(expert_logits, batch.labels)
        if batch.mix is not None:
            weight = batch.mix.weight[:, None]
            losses = weight * losses + (1 - weight) * self._losses(expert_logits, batch.mix.labels)
        means = losses.mean(0)
        return means.sum(), {f"loss_{k}": one for k, one in enumerate(means.detach().unbind(), start=1)}

    def _losses(self, expert_logits: Tensor, labels: Tensor) -> Tensor:
        return expertise_losses(expert_logits, labels, self.log_priors, self.inverse_log_priors, self.options.tau)


@named("network/sade_aggregated")
class AggregatedExperts(SkilledExperts):
    """The trained experts of SADE, whose evaluation learns expert weights for several compositions of the test set.

    Its predictions are those of the experts' mean: weights belong to a set of images, not to the network.

    Args:
        spec: see `NetworkSpec`.
        options: the fields of `SADEOptions`.
    """

    declaration = SADEOptions
    options: SADEOptions

    def further_protocols(self, split: Any, evaluation: Mapping[str, Any], device: torch.device) -> list[Protocol]:
        """Return the rows of test-time aggregation."""
        return aggregation_rows(self, AggregationOptions(**self.options.aggregation), split, evaluation, device)


@named("computation/equal_expert_weights")
def equal_weights(computation: Computation) -> dict[str, np.ndarray]:
    """Return the weights that the aggregation starts from, float64 [3], as the stage ``aggregation``."""
    return {"weights": np.full(EXPERTS, 1 / EXPERTS)}


@named("method/sade")
class SADE(Method):
    """SADE: ``representation`` trains three experts; the evaluation learns their weights on unlabelled test images.

    Args:
        options: the fields of `SADEOptions`.

    Raises:
        ConfigError: the loss is another than cross-entropy.
    """

    Options = SADEOptions
    options: SADEOptions
    provides = ("logits", "features")

    def check(self, dataset_info: DatasetInfo) -> None:
        augmentation(AggregationOptions(**self.options.aggregation), dataset_info.image_shape)

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        loss = name_of(str(settings.loss["_target_"]))
        if loss != "loss/cross_entropy":
            raise ConfigError(
                f"loss={loss.rpartition('/')[2]}: the three experts of SADE have losses of their own, which follow "
                "from cross-entropy. Use loss=cross_entropy; method=ride takes other losses"
            )
        options = self.options.part(SADEExpertsOptions)
        experts = Stage("representation", "experts", settings, module=SkilledExperts, options=options)
        # the last stage is computed, so that the run's final network is the predictor
        last = Stage("aggregation", "aggregation", settings, compute=equal_weights, parents=("representation",))
        return [experts, last]

    def predictor(self, outputs: Mapping[str, StageOutput]) -> AggregatedExperts:
        network = outputs["representation"].load()
        aggregated = AggregatedExperts(network.spec, **self.options)
        aggregated.load_state_dict(network.state_dict())
        return aggregated.eval()
