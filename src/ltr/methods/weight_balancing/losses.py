"""The class-balanced loss as the released code of weight balancing computes it."""

from __future__ import annotations

import torch
from torch import Tensor

from ltr.configuration.ranges import BelowOne
from ltr.identity import named
from ltr.losses import functional
from ltr.losses.base import ClassificationLoss
from ltr.losses.weights import ClassCounts

_LEAST = 1e-30  # of -log p, where log(1 - p) and its gradient stay finite


def softmax_binary_cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return -w_y / C (log p_y + sum over j != y of log(1 - p_j)), [B], with p = softmax(z).

    Args:
        weight: class weights w [C]; None: 1.
    """
    labels = functional.integer_labels(labels)
    log_p = torch.log_softmax(functional.at_least_float32(logits), dim=1)
    log_rest = torch.log(-torch.expm1(log_p.clamp_max(-_LEAST)))
    label_log_p = log_p.gather(1, labels[:, None])
    terms = log_rest.scatter(1, labels[:, None], label_log_p)
    losses = -terms.mean(1)
    return losses if weight is None else weight[labels] * losses


@named("loss/class_balanced_bce")
class ClassBalancedBCE(ClassificationLoss):
    """Binary cross-entropies of softmax probabilities, averaged over classes and weighted by the effective number.

    The class-balanced code that weight balancing imports computes its ``softmax`` variant in this way; the loss of Cui
    et al. (CVPR 2019), which the paper names, is ``loss=class_balanced``, whose gradient is about C times as large.

    Args:
        beta: beta of the effective number of samples: 0 gives equal weights, values near 1 inverse frequency; 0.9999
            in the code.
    """

    takes_background = False

    def __init__(self, class_counts: ClassCounts, background: int | None = None, *, beta: BelowOne = 0.9999) -> None:
        super().__init__(class_counts, background, beta=beta)

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return softmax_binary_cross_entropy(logits, labels, weight)
