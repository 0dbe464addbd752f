"""Heads with points of the classes in feature space: reciprocal points, far from the class, and prototypes, near to it.

Heads map features [B, D] to logits [B, C]. Squared distances come from inner products,
||f - p||^2 = ||f||^2 + ||p||^2 - 2 f.p, as one matrix product over all points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltr.identity import named
from ltr.methods.reciprocal_points.options import Distance, Divided, RadiusKind


class PointDistances(NamedTuple):
    """Distances and inner products of features and class points, float32 or better."""

    squares: Tensor  # [B, C, M], squared Euclidean distances, not divided
    dots: Tensor  # [B, C, M], inner products


class ClassPoints(nn.Module):
    """Base class of heads with M points per class, [C, M, D], initialised from N(0, init_std^2).

    Args:
        num_features: feature width D.
        num_classes: number of classes C.
        num_points: points per class M, >= 1.
        init_std: standard deviation, >= 0; with 0 the points of a class start at the origin and stay equal.
    """

    bias = None

    def __init__(self, num_features: int, num_classes: int, *, num_points: int = 1, init_std: float = 0.1) -> None:
        super().__init__()
        self.points = nn.Parameter(init_std * torch.randn(num_classes, num_points, num_features))

    def measure(self, features: Tensor) -> PointDistances:
        """Return squared distances and inner products of features [B, D] and all points, in float32 under autocast."""
        classes, per_class, _ = self.points.shape
        with torch.autocast(features.device.type, enabled=False):  # avoids cancellation in half precision
            wide = torch.promote_types(features.dtype, self.points.dtype)
            x, points = features.to(wide), self.points.to(wide).flatten(0, 1)
            dots = F.linear(x, points)
            lengths = x.square().sum(1, keepdim=True) + points.square().sum(1)
            squares = torch.add(lengths, dots, alpha=-2)
        return PointDistances(squares.unflatten(1, (classes, per_class)), dots.unflatten(1, (classes, per_class)))

    def logits(self, measured: PointDistances) -> Tensor:
        """Return logits [B, C] from the result of `measure`."""
        raise NotImplementedError

    def knownness(self, measured: PointDistances, logits: Tensor) -> Tensor:
        """Return the knownness score [B] from distances to the predicted class; higher is more likely known."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        return self.logits(self.measure(features))

    def linear(self) -> tuple[Tensor, Tensor] | None:
        """Return weight [C, D] and bias [C] of a linear classifier with the same softmax; None if there is none."""
        return None

    def extra_repr(self) -> str:
        classes, per_class, width = self.points.shape
        return f"{width}, {classes}, num_points={per_class}"


@named("head/reciprocal_points")
class ReciprocalPoints(ClassPoints):
    """Head with reciprocal points, which represent everything but their class: larger distances give larger logits.

    Chen et al., ECCV 2020. logits_k = gamma * d(f, P^k), where d(f, P^k) is the mean over the M points of

    - ``l2``: ||f - p||^2, divided by D or not. ||f||^2 is the same for all classes, so the softmax is that of a
      linear classifier with weights -2 gamma mean_i p_i and biases gamma mean_i ||p_i||^2;
    - ``dot``: -f.p. The official code uses f.p, which is the same up to the sign of p;
    - ``both``: the sum of the two, of which only the l2 part is divided by D or not (ARPL, TPAMI 2021).

    The radius R of the open-space and margin terms is a parameter, [C], or [1] if all classes share it.

    Args:
        num_features, num_classes, num_points, init_std: see `ClassPoints`.
        distance: ``l2``, ``dot`` or ``both``.
        divided: terms whose squared distances are divided by D: ``both`` (logits and open-space term),
            ``open_space``, or ``none`` as in the paper's equations.
        gamma: factor of the logits, > 0; 1 / temperature in the official code.
        radius: ``per_class`` or ``scalar``.
        radius_init: initial value of the radius, >= 0.
    """

    head_kind = "reciprocal_points"

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        num_points: int = 1,
        init_std: float = 0.1,
        distance: Distance = "l2",
        divided: Divided = "both",
        gamma: float = 1.0,
        radius: RadiusKind = "per_class",
        radius_init: float = 0.0,
    ) -> None:
        super().__init__(num_features, num_classes, num_points=num_points, init_std=init_std)
        self.distance = distance
        self.gamma = gamma
        self.logit_divisor = num_features if divided == "both" else 1
        self.open_divisor = 1 if divided == "none" else num_features
        self.radius = nn.Parameter(torch.full((num_classes if radius == "per_class" else 1,), float(radius_init)))

    def distances(self, measured: PointDistances) -> Tensor:
        """Return d(f, p) for each point, [B, C, M], as used by the logits."""
        if self.distance == "dot":
            return -measured.dots
        squares = measured.squares / self.logit_divisor
        return squares if self.distance == "l2" else squares - measured.dots

    def logits(self, measured: PointDistances) -> Tensor:
        return self.gamma * self.distances(measured).mean(2)

    @torch.no_grad()
    def linear(self) -> tuple[Tensor, Tensor]:
        mean, squares = self.points.mean(1), self.points.square().sum(2).mean(1)
        if self.distance == "dot":
            return -self.gamma * mean, torch.zeros_like(squares)
        dots = 2 / self.logit_divisor + (1 if self.distance == "both" else 0)
        return -self.gamma * dots * mean, self.gamma * squares / self.logit_divisor

    def open_space_distances(self, measured: PointDistances) -> Tensor:
        """Return the squared distances [B, C, M] that the open-space and margin terms compare with the radius."""
        return measured.squares / self.open_divisor

    def radius_of(self, labels: Tensor) -> Tensor:
        """Return the radius R^y [B] of labels int64 [B]."""
        return self.radius.expand(self.points.shape[0])[labels]

    def knownness(self, measured: PointDistances, logits: Tensor) -> Tensor:
        """Return the mean squared distance (over D) to the reciprocal points of the predicted class, [B]."""
        mean = measured.squares.mean(2) / self.points.shape[2]
        return mean.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)


@named("head/prototypes")
class Prototypes(ClassPoints):
    """Head with prototypes, which represent their class: smaller distances give larger logits.

    GCPL (Yang et al., CVPR 2018): p(y=k|f) = sum_i exp(-gamma d(f, o_i^k)) / sum_j sum_i exp(-gamma d(f, o_i^j)), so
    logits_k = logsumexp_i(-gamma d(f, o_i^k)). With one prototype per class, as in ARPL's code, logits_k = -gamma d.

    Args:
        num_features, num_classes, num_points, init_std: see `ClassPoints`.
        divided: True divides squared distances by D.
        gamma: factor of the distances, > 0.
    """

    head_kind = "prototypes"

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        num_points: int = 1,
        init_std: float = 0.1,
        divided: bool = True,
        gamma: float = 1.0,
    ) -> None:
        super().__init__(num_features, num_classes, num_points=num_points, init_std=init_std)
        self.gamma = gamma
        self.divisor = num_features if divided else 1

    def distances(self, measured: PointDistances) -> Tensor:
        """Return d(f, o) for each prototype, [B, C, M]."""
        return measured.squares / self.divisor

    @torch.no_grad()
    def linear(self) -> tuple[Tensor, Tensor] | None:
        if self.points.shape[1] > 1:
            return None
        factor, points = self.gamma / self.divisor, self.points[:, 0]
        return 2 * factor * points, -factor * points.square().sum(1)

    def logits(self, measured: PointDistances) -> Tensor:
        return (-self.gamma * self.distances(measured)).logsumexp(2)

    def knownness(self, measured: PointDistances, logits: Tensor) -> Tensor:
        """Return minus the squared distance (over D) to the nearest prototype of the predicted class, [B]."""
        nearest = measured.squares.amin(2) / self.points.shape[2]
        return -nearest.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
