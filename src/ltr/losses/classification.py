"""Classification losses that a config can name; each binds a function of `functional` to the class counts."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from ltr.configuration.ranges import BelowOne, Fraction, NonNegative, Positive, check_option
from ltr.identity import named
from ltr.losses import functional
from ltr.losses.base import ClassificationLoss, to_float32
from ltr.losses.reductions import Reduction
from ltr.losses.weights import ClassCounts, as_counts, ldam_margins, log_prior

Base = Literal["softmax", "sigmoid", "focal"]


@named("loss/cross_entropy")
class CrossEntropy(ClassificationLoss):
    """Softmax cross-entropy, unweighted."""

    def __init__(self, class_counts: ClassCounts | None = None, background: int | None = None) -> None:
        super().__init__(class_counts, background)

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return functional.cross_entropy(logits, labels, weight)


@named("loss/focal_softmax")
class FocalSoftmax(ClassificationLoss):
    """Softmax focal loss, the "Focal" of LDAM-DRW's and M2m's tables (gamma 1, no weights).

    A beta adds class-balanced weights. LDAM-DRW's and M2m's code then put the weight inside the modulating factor
    (`weight_inside=True`) and divide by the batch; the default puts it outside.

    Args:
        gamma: exponent of the modulating factor; 0 is cross-entropy.
        weight_inside: True puts the weight inside the modulating factor too.
    """

    def __init__(
        self,
        class_counts: ClassCounts | None = None,
        background: int | None = None,
        *,
        gamma: NonNegative = 1.0,
        beta: BelowOne | None = None,
        weight_inside: bool = False,
        reduction: Reduction = "batch",
        defer_from: Fraction | None = None,
    ) -> None:
        super().__init__(class_counts, background, beta=beta, reduction=reduction, defer_from=defer_from)
        self.gamma = check_option("loss.gamma", gamma, NonNegative)
        self.weight_inside = weight_inside

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return functional.focal_softmax(logits, labels, self.gamma, weight, self.weight_inside)


@named("loss/focal_sigmoid")
class FocalSigmoid(ClassificationLoss):
    """Sigmoid focal loss summed over classes, unweighted, the "Focal" of Cui et al.'s tables.

    The last layer's bias starts at -log(C - 1), without weight decay.

    Args:
        gamma: exponent of the modulating factor; 0.5, 1 and 2 in the paper; 0 is sigmoid cross-entropy.
    """

    link = "sigmoid"

    def __init__(
        self, class_counts: ClassCounts | None = None, background: int | None = None, *, gamma: NonNegative = 1.0
    ) -> None:
        super().__init__(class_counts, background)
        self.gamma = check_option("loss.gamma", gamma, NonNegative)

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return functional.focal_sigmoid(logits, labels, self.gamma, weight, background=self.background)


@named("loss/class_balanced")
class ClassBalanced(ClassificationLoss):
    """Class-balanced loss (Cui et al., CVPR 2019, section 4): one of three bases, weighted by the effective number.

    Args:
        beta: of the effective number of samples: 0 weights classes alike, values towards 1 by inverse frequency.
            Undeferred, .9999 harms CIFAR-100.
        base: the loss that is weighted, over softmax or sigmoids; `focal` is over sigmoids, as in the paper. The last
            two start the last layer's bias at -log(C - 1).
        gamma: of base `focal`; 0.5, 1 and 2 in the paper.
        weight_inside: of base `focal`: True puts the weight inside the modulating factor; paper and code do not.
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        beta: BelowOne,
        base: Base = "softmax",
        gamma: NonNegative = 1.0,
        weight_inside: bool = False,
        reduction: Reduction = "batch",
        defer_from: Fraction | None = None,
    ) -> None:
        check_option("loss.base", base, Base)
        super().__init__(class_counts, background, beta=beta, reduction=reduction, defer_from=defer_from)
        self.base = base
        self.link = "softmax" if base == "softmax" else "sigmoid"
        self.gamma = check_option("loss.gamma", gamma, NonNegative)
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
        max_margin: margin of the rarest class, on the cosine; 0.3 in the paper for iNaturalist.
        scale: factor by which the head multiplies its cosines; 1 for a head that does not scale.
        beta: of the class-balanced weights, 0.9999 in the paper; None: no weights.
        defer_from: fraction of the stage after which the weights are on, 0.8 in the paper; None: from the start.
    """

    margins: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        max_margin: NonNegative = 0.5,
        scale: Positive,
        beta: BelowOne | None = None,
        reduction: Reduction = "weight_sum",
        defer_from: Fraction | None = None,
    ) -> None:
        super().__init__(class_counts, background, beta=beta, reduction=reduction, defer_from=defer_from)
        self.scale = check_option("loss.scale", scale, Positive)
        counts = as_counts(class_counts)
        if background is None:
            margins = ldam_margins(counts, max_margin)
        else:
            margins = np.insert(ldam_margins(np.delete(counts, background), max_margin), background, 0.0)
        self.register_buffer("margins", to_float32(margins))

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return functional.ldam(logits, labels, self.margins, self.scale, weight)


class _PriorAdjusted(ClassificationLoss):
    """Base class of losses that shift logits by the log prior; plain cross-entropy until they are on.

    Args:
        defer_from: fraction of the stage after which the prior is added; None: from the start.
    """

    takes_background = False
    log_prior: Tensor

    def __init__(
        self, class_counts: ClassCounts, background: int | None = None, *, defer_from: Fraction | None = None
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
    """Logit-adjusted loss (Menon et al., ICLR 2021, eq. 10).

    Args:
        tau: factor of the log prior: 1, the paper's, is balanced softmax, 0 is cross-entropy.
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        tau: NonNegative = 1.0,
        defer_from: Fraction | None = None,
    ) -> None:
        super().__init__(class_counts, background, defer_from=defer_from)
        self.tau = check_option("loss.tau", tau, NonNegative)
        self.adjusts_prior = tau > 0.0

    def adjusted(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.logit_adjusted(logits, labels, self.log_prior, self.tau)


@named("loss/vs")
class VS(_PriorAdjusted):
    """Vector-scaling loss (Kini et al., NeurIPS 2021); see `functional.vs`. Defaults: the authors' code's.

    Args:
        gamma: exponent of the factor (n / n_max)^gamma of the logits; 0 is the logit-adjusted loss.
        tau: factor of the log prior.
        defer_from: fraction of the stage after which factor and prior are on; None: from the start.
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        gamma: NonNegative = 0.3,
        tau: NonNegative = 1.0,
        defer_from: Fraction | None = None,
    ) -> None:
        super().__init__(class_counts, background, defer_from=defer_from)
        self.gamma = check_option("loss.gamma", gamma, NonNegative)
        self.tau = check_option("loss.tau", tau, NonNegative)
        self.adjusts_prior = gamma > 0.0 or tau > 0.0

    def adjusted(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.vs(logits, labels, self.log_prior, self.gamma, self.tau)
