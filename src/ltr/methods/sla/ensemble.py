"""Ensemble of independently trained networks, the baseline for aggregating the views of one network.

The first member is the network that ERM trains, from the stage cache if it is there. The other members use different
random numbers for initial weights, order of the data and augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ltr.evaluation.scores import Scores
from ltr.identity import named
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Computation, Method, NetworkSpec, Stage, StageOutput
from ltr.methods.erm import ERM
from ltr.methods.sla.options import Average, EnsembleOptions


@named("network/ensemble")
class EnsembleClassifier(ImageClassifier):
    """Ensemble of several networks.

    The backbone and head of this module are the first member. Variants: ``ensemble``, and ``single``, the first member
    alone. The features of the ensemble are the concatenated features of all members.

    Args:
        average: ``probabilities``, returned as logits of the same link, or ``logits``.
    """

    headline = "ensemble"

    def __init__(self, spec: NetworkSpec, *, members: int, average: Average) -> None:
        super().__init__(spec)
        self.options = {"members": members, "average": average}
        self.average = average
        self.others = nn.ModuleList(
            ImageClassifier(spec.replaced(role=role_of(number), parents={})) for number in range(2, members + 1)
        )

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Scores]:
        """Return scores of the ensemble and of its first member."""
        unit = self.to_unit(images)
        networks = [self, *self.others]
        features = [network.features(unit) for network in networks]
        logits = [network.head(feature).float() for network, feature in zip(networks, features)]
        ensemble_logits = average_logits(torch.stack(logits), self.average, self.link)
        return {
            "ensemble": Scores(ensemble_logits, torch.cat(features, dim=1).float()),
            "single": Scores(logits[0], features[0].float()),
        }


def average_logits(logits: Tensor, average: Average, link: str) -> Tensor:
    """Average the predictions of K networks and return logits [B, C].

    Args:
        logits: float32 [K, B, C].
        average: ``probabilities`` or ``logits``.
        link: ``softmax`` or ``sigmoid``, the function from logits to probabilities before and after averaging.
    """
    if average == "logits":
        return logits.mean(0)
    if link == "softmax":
        return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))
    # log p - log(1 - p) of the mean p in log space, so that confident predictions stay finite
    log_positive, log_negative = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return log_positive.logsumexp(0) - log_negative.logsumexp(0)


def role_of(number: int) -> str:
    """Return the role of a member, counted from 1; the first has ERM's role."""
    return "representation" if number == 1 else f"member_{number}"


@named("computation/ensemble_members")
def members_of(computation: Computation) -> dict[str, np.ndarray]:
    """Return the number of members, as the stage ``ensemble``, which depends on all of them."""
    return {"members": np.array(len(computation.parents))}


@named("method/ensemble")
class Ensemble(Method):
    """Method that trains M networks like ERM, each with a separate role, and averages their predictions."""

    Options = EnsembleOptions
    options: EnsembleOptions
    provides = ("logits", "features")

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        (first,) = ERM().stages(settings, dataset_info)
        roles = [role_of(number) for number in range(2, self.options.members + 1)]
        member_stages = [first, *(Stage(role, role, settings, module=ImageClassifier) for role in roles)]
        # the last stage is computed, so that the run's final network is the predictor and not a member
        last_stage = Stage(
            "ensemble", "ensemble", settings, compute=members_of, parents=tuple(stage.name for stage in member_stages)
        )
        return [*member_stages, last_stage]

    def predictor(self, outputs: Mapping[str, StageOutput]) -> EnsembleClassifier:
        networks = [outputs[role_of(number)].load() for number in range(1, self.options.members + 1)]
        first = networks[0]
        ensemble = EnsembleClassifier(first.spec, **self.options)
        ensemble.take_backbone(first)
        ensemble.head.load_state_dict(first.head.state_dict())
        for member, network in zip(ensemble.others, networks[1:]):
            member.load_state_dict(network.state_dict())
        return ensemble.eval()
