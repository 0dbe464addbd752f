"""An ensemble of independently trained networks: what aggregating the views of one network is measured against.

The first member is the network that ERM trains, taken from the store where it is there; the others differ from it in
every draw: initial weights, order of the data, augmentation.
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
from ltr.methods.core.stage import Computation, DatasetInfo, Method, NetworkSpec, Settings, Stage, StageOutput
from ltr.methods.erm import ERM
from ltr.methods.sla.options import Average, EnsembleOptions


@named("network/ensemble")
class EnsembleClassifier(ImageClassifier):
    """Several networks that answer together.

    The first one is this module's own backbone and head. Variants: ``ensemble``, and ``single``, the first network
    alone. The ensemble's features are those of all members, one after the other.

    Args:
        spec: see `NetworkSpec`.
        members: number of networks.
        average: what is averaged: ``probabilities``, given as logits of the same link, or ``logits``.
    """

    headline = "ensemble"

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        members: int,
        average: Average,
    ) -> None:
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
        together = averaged(torch.stack(logits), self.average, self.link)
        return {
            "ensemble": Scores(together, torch.cat(features, dim=1).float()),
            "single": Scores(logits[0], features[0].float()),
        }


def averaged(logits: Tensor, average: Average, link: str) -> Tensor:
    """Return logits [B, C] of the mean answer of K networks.

    Args:
        logits: float32 [K, B, C].
        average: ``probabilities`` or ``logits``.
        link: ``softmax`` or ``sigmoid``: how probabilities follow from logits, before and after.
    """
    if average == "logits":
        return logits.mean(0)
    if link == "softmax":
        return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))
    # log p - log(1 - p) of the mean p, each from logarithms, so that a sure answer stays finite
    yes, no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return yes.logsumexp(0) - no.logsumexp(0)


def role_of(number: int) -> str:
    """Return the role of a member, counted from 1: the first has ERM's."""
    return "representation" if number == 1 else f"member_{number}"


@named("computation/ensemble_members")
def members_of(computation: Computation) -> dict[str, np.ndarray]:
    """Return the number of members; the work of the stage ``ensemble``, which depends on all of them."""
    return {"members": np.array(len(computation.parents))}


@named("method/ensemble")
class Ensemble(Method):
    """M networks trained as ERM trains its one, each with a role of its own, and the mean of their answers.

    Args:
        options: the fields of `EnsembleOptions`.
    """

    Options = EnsembleOptions
    options: EnsembleOptions
    provides = ("logits", "features")

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        (first,) = ERM().stages(settings, dataset_info)
        roles = [role_of(number) for number in range(2, self.options.members + 1)]
        trained = [first, *(Stage(role, role, settings, module=ImageClassifier) for role in roles)]
        # a last stage that is computed: what the run keeps as its final network is then the predictor's, not a member
        together = Stage(
            "ensemble", "ensemble", settings, compute=members_of, parents=tuple(stage.name for stage in trained)
        )
        return [*trained, together]

    def predictor(self, outputs: Mapping[str, StageOutput]) -> EnsembleClassifier:
        networks = [outputs[role_of(number)].load() for number in range(1, self.options.members + 1)]
        first = networks[0]
        ensemble = EnsembleClassifier(first.spec, **self.options)
        ensemble.take_backbone(first)
        ensemble.head.load_state_dict(first.head.state_dict())
        for member, network in zip(ensemble.others, networks[1:]):
            member.load_state_dict(network.state_dict())
        return ensemble.eval()
