"""Classification losses that a config can name; each binds a function of `functional` to the class counts."""

from __future__ import annotations

import warnings
from types import MappingProxyType
from typing import Literal

import numpy as np
from torch import Tensor

from ltr.configuration.ranges import BelowOne, Fraction, NonNegative, Positive, check_option
from ltr.configuration.unwritten import left_to_subclasses
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
    """Softmax focal loss, called "Focal" in the tables of LDAM-DRW and M2m (gamma 1, no weights).

    With `beta` the loss is class-balanced. The code of LDAM-DRW and M2m then puts the weight inside the modulating
    factor (`weight_inside=True`) and divides by the batch size; the default puts it outside.

    Args:
        gamma: exponent of the modulating factor; 0 is cross-entropy.
        weight_inside: True puts the weight inside the modulating factor too.
    """

    only_weighted = MappingProxyType({"reduction": (), "defer_from": (), "weight_inside": ()})

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
        if beta is None:
            self.warn_of_unweighted(weight_inside=weight_inside)

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return functional.focal_softmax(logits, labels, self.gamma, weight, self.weight_inside)


@named("loss/focal_sigmoid")
class FocalSigmoid(ClassificationLoss):
    """Sigmoid focal loss summed over classes, unweighted, called "Focal" in the tables of Cui et al. (CVPR 2019).

    The last layer's bias starts at -log(C - 1), without weight decay.

    Args:
        gamma: exponent of the modulating factor; the paper uses 0.5, 1 and 2; 0 is sigmoid cross-entropy.
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
        beta: beta of the effective number of samples, in [0, 1): 0 gives all classes the same weight, values near 1
            give inverse frequency. Without deferral, 0.9999 lowers the accuracy on CIFAR-100.
        base: loss that is weighted: cross-entropy over `softmax` or `sigmoid`, or `focal` over sigmoids, as in the
            paper. With `sigmoid` and `focal` the last layer's bias starts at -log(C - 1).
        gamma: exponent of the modulating factor of `focal`; the paper uses 0.5, 1 and 2.
        weight_inside: True puts the weight inside the modulating factor of `focal`; the paper and its code do not.
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
        if base != "focal" and (gamma != 1.0 or weight_inside):  # earlier checkpoints may hold such options
            warnings.warn(
                f"loss.gamma={gamma:g}, loss.weight_inside={weight_inside}: only loss.base=focal uses them, and they "
                f"have no effect with base={base}. Leave them out.",
                stacklevel=2,
            )

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        if self.base == "softmax":
            return functional.cross_entropy(logits, labels, weight)
        if self.base == "sigmoid":
            return functional.sigmoid_cross_entropy(logits, labels, weight, self.background)
        return functional.focal_sigmoid(logits, labels, self.gamma, weight, self.weight_inside, self.background)


@named("loss/ldam")
class LDAM(ClassificationLoss):
    """Label-distribution-aware margin loss (Cao et al., NeurIPS 2019); see `functional.ldam`.

    With `beta` and `defer_from` it is LDAM-DRW: re-weighting is deferred, the margins apply from the start. The default
    reduction divides by the sum of the weights, as the authors' code does.

    Args:
        max_margin: margin of the rarest class, on the cosine; 0.3 in the paper for iNaturalist.
        scale: factor by which the head multiplies its cosines; 1 for a head that does not scale.
        beta: beta of the class-balanced weights, 0.9999 in the paper; None: no weights.
        defer_from: fraction of the stage after which the weights are on, 0.8 in the paper; None: from the start.
    """

    margins: Tensor
    only_weighted = MappingProxyType({"reduction": (), "defer_from": (0.8,)})

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
    """Base class of losses that shift logits by the log prior, with plain cross-entropy before `defer_from`.

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

    @left_to_subclasses("losses")
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
        tau: factor of the log prior; 1, as in the paper, is balanced softmax, 0 is cross-entropy.
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
    """Vector-scaling loss (Kini et al., NeurIPS 2021); see `functional.vs`.

    The defaults are those of the authors' code.

    Args:
        gamma: exponent of the factor (n / n_max)^gamma on the logits; 0 is the logit-adjusted loss.
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
