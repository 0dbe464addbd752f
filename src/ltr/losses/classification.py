"""Classification losses that a config can name; each binds a function of `functional` to the class counts."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses import functional
from ltr.losses.base import ClassificationLoss, check_non_negative, to_float32
from ltr.losses.weights import ClassCounts, as_counts, ldam_margins, log_prior


@named("loss/cross_entropy")
class CrossEntropy(ClassificationLoss):
    """Softmax cross-entropy, unweighted."""

    def __init__(self, class_counts: ClassCounts | None = None, background: int | None = None) -> None:
        super().__init__(class_counts, background)

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return functional.cross_entropy(logits, labels, weight)


@named("loss/focal_softmax")
class FocalSoftmax(ClassificationLoss):
    """Softmax focal loss, the "Focal" of LDAM-DRW's and M2m's tables (gamma 1, no weights); gamma >= 0.

    A beta adds class-balanced weights. LDAM-DRW's and M2m's code then put the weight inside the modulating factor
    (`weight_inside=True`) and divide by the batch; the default puts it outside.
    """

    def __init__(
        self,
        class_counts: ClassCounts | None = None,
        background: int | None = None,
        *,
        gamma: float = 1.0,
        beta: float | None = None,
        weight_inside: bool = False,
        reduction: str = "batch",
        defer_from: float | None = None,
    ) -> None:
        super().__init__(class_counts, background, beta=beta, reduction=reduction, defer_from=defer_from)
        self.gamma = check_non_negative("gamma", gamma)
        self.weight_inside = weight_inside

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return functional.focal_softmax(logits, labels, self.gamma, weight, self.weight_inside)


@named("loss/focal_sigmoid")
class FocalSigmoid(ClassificationLoss):
    """Sigmoid focal loss summed over classes, unweighted, the "Focal" of Cui et al.'s tables; gamma >= 0."""

    link = "sigmoid"

    def __init__(
        self, class_counts: ClassCounts | None = None, background: int | None = None, *, gamma: float = 1.0
    ) -> None:
        super().__init__(class_counts, background)
        self.gamma = check_non_negative("gamma", gamma)

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return functional.focal_sigmoid(logits, labels, self.gamma, weight, background=self.background)


@named("loss/class_balanced")
class ClassBalanced(ClassificationLoss):
    """Class-balanced loss (Cui et al., CVPR 2019, section 4): one of three bases, weighted by the effective number.

    Args:
        beta: in [0, 1); 0 gives equal weights.
        base: `softmax`, `sigmoid` or `focal` (over sigmoids, as in the paper).
        gamma: used by base `focal` only.
        weight_inside: used by base `focal` only; paper and code put the weight outside.
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        beta: float,
        base: str = "softmax",
        gamma: float = 1.0,
        weight_inside: bool = False,
        reduction: str = "batch",
        defer_from: float | None = None,
    ) -> None:
        if base not in ("softmax", "sigmoid", "focal"):
            raise ConfigError(f"loss.base = {base}: expected one of softmax, sigmoid, focal.")
        super().__init__(class_counts, background, beta=beta, reduction=reduction, defer_from=defer_from)
        self.base = base
        self.link = "softmax" if base == "softmax" else "sigmoid"
        self.gamma = check_non_negative("gamma", gamma)
        self.weight_inside = weight_inside

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        if self.base == "softmax":
            return functional.cross_entropy(logits, labels, weight)
        if self.base == "sigmoid":
            return functional.sigmoid_cross_entropy(logits, labels, weight, self.background)
        return functional.focal_sigmoid(logits, labels, self.gamma, weight, self.weight_inside, self.background)


@named("loss/ldam")
class LDAM(ClassificationLoss):
    """LDAM, with (deferred) re-weighting where beta is given (Cao et al., NeurIPS 2019); see `functional.ldam`.

    Only the weights are deferred; margins act from the start. The default reduction divides by the sum of the weights,
    as the authors' code does.

    Args:
        max_margin: margin of the rarest class before scaling, >= 0.
        scale: factor by which the head multiplies its cosines; 1 for a head that does not scale.
        beta: parameter of the weights, 0.9999 in the paper; None: no weights.
    """

    margins: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        max_margin: float = 0.5,
        scale: float,
        beta: float | None = None,
        reduction: str = "weight_sum",
        defer_from: float | None = None,
    ) -> None:
        super().__init__(class_counts, background, beta=beta, reduction=reduction, defer_from=defer_from)
        if not 0.0 < scale < math.inf:
            raise ConfigError(f"loss.scale = {scale}: expected a finite number above 0, the head's scale.")
        self.scale = scale
        counts = as_counts(class_counts)
        if background is None:
            margins = ldam_margins(counts, max_margin)
        else:
            margins = np.insert(ldam_margins(np.delete(counts, background), max_margin), background, 0.0)
        self.register_buffer("margins", to_float32(margins))

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return functional.ldam(logits, labels, self.margins, self.scale, weight)


class _PriorAdjusted(ClassificationLoss):
    """Base class of losses that shift logits by the log prior; plain cross-entropy until they are on."""

    takes_background = False
    log_prior: Tensor

    def __init__(
        self, class_counts: ClassCounts, background: int | None = None, *, defer_from: float | None = None
    ) -> None:
        super().__init__(class_counts, background, defer_from=defer_from)
        self.adjusts_prior = True
        self.register_buffer("log_prior", to_float32(log_prior(class_counts)))

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return self.adjusted(logits, labels) if self.active else functional.cross_entropy(logits, labels)

    def adjusted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the adjusted loss of each image, [B]."""
        raise NotImplementedError


@named("loss/balanced_softmax")
class BalancedSoftmax(_PriorAdjusted):
    """Balanced softmax (Ren et al., NeurIPS 2020): trains on z + log n and predicts from z."""

    def adjusted(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.balanced_softmax(logits, labels, self.log_prior)


@named("loss/logit_adjusted")
class LogitAdjusted(_PriorAdjusted):
    """Logit-adjusted loss (Menon et al., ICLR 2021, eq. 10), tau >= 0; the paper's tau = 1 is balanced softmax."""

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        tau: float = 1.0,
        defer_from: float | None = None,
    ) -> None:
        super().__init__(class_counts, background, defer_from=defer_from)
        self.tau = check_non_negative("tau", tau)
        self.adjusts_prior = tau > 0.0

    def adjusted(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.logit_adjusted(logits, labels, self.log_prior, self.tau)


@named("loss/vs")
class VS(_PriorAdjusted):
    """Vector-scaling loss (Kini et al., NeurIPS 2021), gamma and tau >= 0; see `functional.vs`."""

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        gamma: float = 0.3,
        tau: float = 1.0,
        defer_from: float | None = None,
    ) -> None:
        super().__init__(class_counts, background, defer_from=defer_from)
        self.gamma = check_non_negative("gamma", gamma)
        self.tau = check_non_negative("tau", tau)
        self.adjusts_prior = gamma > 0.0 or tau > 0.0

    def adjusted(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.vs(logits, labels, self.log_prior, self.gamma, self.tau)
