"""Reciprocal point learning: RPL (ECCV 2020), RPL++ with prototypes beside the points, ARPL (TPAMI 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ltr.identity import named
from ltr.losses.gathering import all_reduce_sum, world_size
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.reciprocal_points import losses as open_set
from ltr.methods.reciprocal_points.base import PointMethod, PointNetwork
from ltr.methods.reciprocal_points.heads import ClassPoints, PointDistances, Prototypes, ReciprocalPoints
from ltr.methods.reciprocal_points.options import ARPLOptions, RadiusInit, RPLOptions, RPLPlusPlusOptions
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed


@named("network/rpl")
class ReciprocalNetwork(PointNetwork):
    """RPL: class term and open-space term; see `PointNetwork` and `heads.ReciprocalPoints`.

    Args:
        radius_init: a number, or ``first_batch``: the mean squared distance of the first batch's images to the points
            of their classes. The open-space term then narrows the spread of distances; from 0 it pulls to the points.
    """

    head_type = ReciprocalPoints

    def __init__(self, spec: NetworkSpec, *, radius_init: RadiusInit = "first_batch", **options: Any) -> None:
        self._from_first_batch = radius_init == "first_batch"
        self._radius_init = 0.0 if radius_init == "first_batch" else float(radius_init)
        super().__init__(spec, **options)
        self.options = {**self.options, "radius_init": radius_init}

    def build_points(self, width: int, points: dict[str, Any]) -> ClassPoints:
        return ReciprocalPoints(width, self.dataset_info.num_classes, radius_init=self._radius_init, **points)

    @torch.no_grad()
    def start(self, measured: PointDistances, labels: Tensor) -> None:
        if not self._from_first_batch:
            return
        mean = open_set.label_distances(self.head.open_space_distances(measured), labels).mean()
        all_reduce_sum(mean)
        self.head.radius.copy_((mean / world_size()).expand_as(self.head.radius))

    def terms(self, measured: PointDistances, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        distances = open_set.label_distances(self.head.open_space_distances(measured), labels)
        return {
            "class_term": open_set.reciprocal_class(self.head.distances(measured), labels, self.head.gamma),
            **self.bounds(distances, self.head.radius_of(labels)),
        }

    def bounds(self, distances: Tensor, radius: Tensor) -> dict[str, Tensor]:
        """Return the term that bounds the distances [B, M] to the label's points by the radius [B]."""
        return {"open_space_term": open_set.open_space(distances, radius)}


@named("network/arpl")
class AdversarialNetwork(ReciprocalNetwork):
    """ARPL: RPL's class term on both kinds of distance, and a margin term instead of the open-space term."""

    def bounds(self, distances: Tensor, radius: Tensor) -> dict[str, Tensor]:
        return {"margin_term": open_set.adversarial_margin(distances, radius)}


@named("network/rpl_pp")
class ReciprocalPrototypeNetwork(ReciprocalNetwork):
    """RPL++: RPL with GCPL's prototype term; each class has prototypes beside its reciprocal points."""

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        with seeded_construction(derive_seed(self.seed, self.role, "prototypes")):
            self.prototypes = Prototypes(
                self.head.points.shape[2],
                self.dataset_info.num_classes,
                num_points=self.head.points.shape[1],
                init_std=options["init_std"],
                divided=options["divided"] != "none",
            )

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {**super().parameter_modules(), "prototypes": self.prototypes}

    def terms(self, measured: PointDistances, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        distances = self.prototypes.distances(self.prototypes.measure(features))
        pull = open_set.prototype_pull(open_set.label_distances(distances, labels))
        return {**super().terms(measured, features, labels), "prototype_term": pull}

    def knownness(self, features: Tensor, measured: PointDistances, logits: Tensor) -> Tensor:
        """Return the knownness [B]: high far from the predicted class's reciprocal points and near its prototypes."""
        prototype_knownness = self.prototypes.knownness(self.prototypes.measure(features), logits)
        return super().knownness(features, measured, logits) + prototype_knownness


@named("method/rpl")
class RPL(PointMethod):
    """Reciprocal point learning (Chen et al., ECCV 2020).

    Raises:
        ConfigError: a value outside its range, or another loss than cross-entropy.
    """

    module: type[PointNetwork] = ReciprocalNetwork
    Options = RPLOptions
    terms = ("open_space_term",)


@named("method/rpl_pp")
class RPLPlusPlus(PointMethod):
    """RPL with GCPL's prototype term; the papers name RPL++ without code, so this definition is ltr's own.

    Raises:
        ConfigError: a value outside its range, or another loss than cross-entropy.
    """

    module = ReciprocalPrototypeNetwork
    Options = RPLPlusPlusOptions
    terms = ("open_space_term", "prototype_term")


@named("method/arpl")
class ARPL(PointMethod):
    """Adversarial reciprocal point learning (Chen et al., TPAMI 2021) without confusing samples.

    Raises:
        ConfigError: a value outside its range, or another loss than cross-entropy.
    """

    module: type[PointNetwork] = AdversarialNetwork
    Options = ARPLOptions
    terms = ("margin_term",)
