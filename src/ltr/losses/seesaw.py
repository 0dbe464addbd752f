"""Seesaw loss (Wang et al., CVPR 2021): smaller negative gradients from large classes to small classes."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ltr.configuration.ranges import NonNegative, check_option
from ltr.identity import named
from ltr.losses import functional
from ltr.losses.base import ClassificationLoss, Mixed
from ltr.losses.gathering import all_reduce_sum
from ltr.losses.weights import ClassCounts

Counts = Literal["seen", "training"]
_LEAST_PROBABILITY = 0.01  # floor of p_y in the compensation factor, as in the released code


def seesaw(logits: Tensor, labels: Tensor, counts: Tensor, p: float, q: float) -> Tensor:
    """Return the seesaw loss CE(z + log S_y), [B], with S_yj = M_yj C_yj for j != y and S_yy = 1.

    The mitigation M_yj = min(1, n_j / n_y)^p reduces the penalty on classes smaller than y; the compensation
    C_yj = max(1, p_j / p_y)^q raises it again for classes with a higher probability than y. No gradient flows through
    either factor.

    Args:
        logits: z [B, C], any float type.
        labels: y [B], any integer type.
        counts: n [C], images of each class; 0 is treated as 1.
        p: exponent of the mitigation, >= 0; 0 switches it off.
        q: exponent of the compensation, >= 0; 0 switches it off.
    """
    labels = functional.integer_labels(labels)
    logits = functional.at_least_float32(logits)
    log_counts = counts.to(logits.dtype).clamp_min(1.0).log()
    log_p = torch.log_softmax(logits.detach(), dim=1)
    label_log_p = log_p.gather(1, labels[:, None]).clamp_min(math.log(_LEAST_PROBABILITY))
    mitigation = p * (log_counts[None] - log_counts[labels][:, None]).clamp_max(0.0)
    compensation = q * (log_p - label_log_p).clamp_min(0.0)
    factors = (mitigation + compensation).scatter(1, labels[:, None], 0.0)
    return functional.cross_entropy(logits + factors, labels)


@named("loss/seesaw")
class Seesaw(ClassificationLoss):
    """Seesaw loss for a softmax classifier (Wang et al., CVPR 2021).

    Paper and code count the images of each class during training (``counts=seen``); after an epoch of instance-balanced
    sampling these counts have the ratios of the training set. The counts are saved in the checkpoint and cover all
    processes.

    Args:
        p: exponent of the mitigation factor; 0 switches it off.
        q: exponent of the compensation factor; 0 switches it off.
        counts: counts that the mitigation compares: `seen`, the images sampled so far (paper and code), or `training`,
            the images of the training set.
    """

    takes_background = False
    deterministic_by, potential_by = "loss.counts=training", "loss.q=0"
    seen: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        p: NonNegative = 0.8,
        q: NonNegative = 2.0,
        counts: Counts = "seen",
    ) -> None:
        super().__init__(class_counts, background)
        self.p = check_option("loss.p", p, NonNegative)
        self.q = check_option("loss.q", q, NonNegative)
        self.counts = check_option("loss.counts", counts, Counts)
        self.adjusts_prior = counts == "training" and p > 0
        self.is_deterministic = counts == "training"  # what was seen changes at every evaluation of the loss
        self.is_potential = q == 0  # the compensation depends on the logits, without a gradient
        # a day of training on a large data set exceeds 2^24, the whole numbers that float32 represents
        self.register_buffer("seen", torch.zeros(len(self.class_counts), dtype=torch.float64))

    @torch.no_grad()
    def remember(self, labels: Tensor, mix: Mixed | None) -> None:
        """Count the images of a batch over all processes; a mixed image counts for both its classes."""
        if self.counts != "seen":
            return
        share = torch.ones(len(labels), dtype=torch.float64, device=labels.device)
        new = torch.zeros_like(self.seen)
        if mix is None:
            new.index_add_(0, labels, share)
        else:
            first = mix[1].double().expand(len(labels))
            new.index_add_(0, labels, first)
            new.index_add_(0, mix[0], share - first)
        all_reduce_sum(new)
        self.seen += new

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        counts = self.seen if self.counts == "seen" else self.class_counts
        return seesaw(logits, labels, counts, self.p, self.q)
