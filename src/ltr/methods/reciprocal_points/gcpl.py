"""GCPL: generalised convolutional prototype learning (Yang et al., CVPR 2018), each class a set of prototypes."""

from __future__ import annotations

from torch import Tensor

from ltr.identity import named
from ltr.methods.reciprocal_points import losses as open_set
from ltr.methods.reciprocal_points.base import PointMethod, PointNetwork
from ltr.methods.reciprocal_points.heads import Measured, Prototypes


@named("network/gcpl")
class PrototypeNetwork(PointNetwork):
    """Distance cross-entropy over prototypes, and the pull to the nearest one of the own class."""

    head_type = Prototypes

    def terms(self, measured: Measured, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        distances = self.head.distances(measured)
        return {
            "class_term": open_set.prototype_class(distances, labels, self.head.gamma),
            "prototype_term": open_set.prototype_pull(open_set.of_labels(distances, labels)),
        }


@named("method/gcpl")
class GCPL(PointMethod):
    """Generalised convolutional prototype learning.

    Args:
        num_points, init_std, divided, gamma: see `ltr.methods.reciprocal_points.heads.Prototypes`.
        prototype_weight: of the pull to the own class's nearest prototype; >= 0.
        feature_dim: see `PointNetwork`.

    Raises:
        ConfigError: a value outside its range, or another loss than cross-entropy.
    """

    module = PrototypeNetwork

    def __init__(
        self,
        *,
        num_points: int = 1,
        init_std: float = 0.1,
        divided: bool = False,
        gamma: float = 1.0,
        prototype_weight: float = 0.1,
        feature_dim: int | None = None,
    ) -> None:
        super().__init__(
            {"prototype_term": prototype_weight},
            num_points=num_points,
            init_std=init_std,
            divided=divided,
            gamma=gamma,
            feature_dim=feature_dim,
        )
