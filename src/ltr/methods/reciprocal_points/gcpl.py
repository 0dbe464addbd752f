"""GCPL: generalised convolutional prototype learning (Yang et al., CVPR 2018), each class a set of prototypes."""

from __future__ import annotations

from torch import Tensor

from ltr.identity import named
from ltr.methods.reciprocal_points import losses as open_set
from ltr.methods.reciprocal_points.base import PointMethod, PointNetwork
from ltr.methods.reciprocal_points.heads import PointDistances, Prototypes
from ltr.methods.reciprocal_points.options import GCPLOptions


@named("network/gcpl")
class PrototypeNetwork(PointNetwork):
    """Distance cross-entropy over prototypes, and the pull to the nearest one of the own class."""

    head_type = Prototypes

    def terms(self, measured: PointDistances, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        distances = self.head.distances(measured)
        return {
            "class_term": open_set.prototype_class(distances, labels, self.head.gamma),
            "prototype_term": open_set.prototype_pull(open_set.label_distances(distances, labels)),
        }


@named("method/gcpl")
class GCPL(PointMethod):
    """Generalised convolutional prototype learning.

    Raises:
        ConfigError: a value outside its range, or another loss than cross-entropy.
    """

    module = PrototypeNetwork
    Options = GCPLOptions
    terms = ("prototype_term",)
