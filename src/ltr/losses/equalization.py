"""Equalisation losses: images of large classes push rare classes down less (Tan et al., CVPR 2020 and CVPR 2021)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as nn_functional

from ltr.configuration.ranges import Fraction, NonNegative, Positive, check_option
from ltr.identity import named
from ltr.losses import functional
from ltr.losses.base import ClassificationLoss, Mixed
from ltr.losses.gathering import all_reduce_sum
from ltr.losses.weights import ClassCounts, as_counts

_INITIAL_RATIO = 100.0  # of positive to negative gradient, before any image: both weights then are 1; the code's
_LEAST_GRADIENT = 1e-10


def softmax_equalization(logits: Tensor, labels: Tensor, ignored: Tensor) -> Tensor:
    """Return the softmax equalisation loss -log(e^{z_y} / sum_k w_k e^{z_k}), [B] (Tan et al., CVPR 2020, eq. 6-8).

    Args:
        ignored: bool [B, C], the classes with w = 0; the label's own weight always is 1.
    """
    labels = functional.integer_labels(labels)
    logits = functional.at_least_float32(logits)
    ignored = ignored.scatter(1, labels[:, None], False)
    return functional.cross_entropy(logits.masked_fill(ignored, -torch.inf), labels)


def gradient_weights(
    positive: Tensor, negative: Tensor, gamma: float, mu: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """Return the weights of positive and negative gradients of each class, two [C] (Tan et al., CVPR 2021, eq. 5-6).

    With g the ratio of the accumulated gradients, the negative weight is r = 1 / (1 + exp(-gamma (g - mu))), the
    positive one 1 + alpha (1 - r). Without any gradients so far both are 1.

    Args:
        positive, negative: accumulated absolute gradients of each class's logit, [C].
    """
    ratio = torch.where(positive + negative == 0, _INITIAL_RATIO, positive / (negative + _LEAST_GRADIENT))
    negative_weights = torch.sigmoid(gamma * (ratio - mu))
    return 1 + alpha * (1 - negative_weights), negative_weights


@named("loss/equalization")
class Equalization(ClassificationLoss):
    """Softmax equalisation loss (Tan et al., CVPR 2020, section 3.4): rare classes are often left out of the softmax.

    A class counts as rare below a share of the training images. In the softmax of an image of another class it is left
    out with probability ``gamma``, drawn anew for each image and class. In evaluation mode no class is left out.

    Args:
        threshold: share of the training images below which a class is rare. The paper and Bag of Tricks (AAAI 2021)
            choose it for each data set: 0.003 and 0.005 on CIFAR-100-LT, 0.05 (Bag of Tricks) on CIFAR-10-LT, 0.00043
            (the paper) on ImageNet-LT.
        gamma: probability of leaving a rare class out; 0 is cross-entropy, and 1 would leave rare classes without any
            negative images.
    """

    takes_background = False
    is_deterministic = False
    distributed_numerics_version = 2  # 1: each process drew the classes of its images from a separate generator
    rare: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        threshold: Fraction = 0.005,
        gamma: Fraction = 0.9,
    ) -> None:
        super().__init__(class_counts, background)
        self.gamma = check_option("loss.gamma", gamma, Fraction)
        counts = as_counts(class_counts)
        rare = counts / max(counts.sum(), 1) < check_option("loss.threshold", threshold, Fraction)
        self.register_buffer("rare", torch.from_numpy(rare))

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        if not self.training:
            return functional.cross_entropy(logits, labels)
        return softmax_equalization(logits, labels, (self._uniforms(logits) < self.gamma) & self.rare)

    def _uniforms(self, logits: Tensor) -> Tensor:
        """Return a number for each image and class, [B, C], the same in any number of processes."""
        if self.numbers is None:
            return torch.rand(logits.shape, device=logits.device)  # from torch's generator, which a step seeds
        return self.numbers.uniforms(len(logits), logits.shape[1], logits.device)


@named("loss/equalization_v2")
class EqualizationV2(ClassificationLoss):
    """Equalisation loss v2 (Tan et al., CVPR 2021): binary cross-entropies, weighted by each class's gradients so far.

    The authors' detector also has an objectness output, which a classifier of images has not. The accumulated gradients
    belong to the checkpoint, and span all processes.

    Args:
        gamma: slope of the weight as a function of the ratio of gradients; 12 in the paper.
        mu: ratio at which the weight of negatives is 1/2; 0.8 in the paper.
        alpha: by how much positives are weighted up where negatives are weighted down; 4 in the paper.
    """

    link = "sigmoid"
    takes_background = False
    is_deterministic = False
    positive: Tensor
    negative: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        gamma: Positive = 12.0,
        mu: NonNegative = 0.8,
        alpha: NonNegative = 4.0,
    ) -> None:
        super().__init__(class_counts, background)
        self.gamma = check_option("loss.gamma", gamma, Positive)
        self.mu = check_option("loss.mu", mu, NonNegative)
        self.alpha = check_option("loss.alpha", alpha, NonNegative)
        for name in ("positive", "negative"):
            self.register_buffer(name, torch.zeros(len(self.class_counts), dtype=torch.float64))

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        labels = functional.integer_labels(labels)
        logits = functional.at_least_float32(logits)
        weights = self._weights(labels, logits)
        targets = nn_functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
        terms = nn_functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (weights * terms).sum(1)

    def per_image(self, logits: Tensor, labels: Tensor, mix: Mixed | None = None) -> Tensor:
        losses = super().per_image(logits, labels, mix)  # with the weights of earlier batches
        if self.training:
            self._accumulate(logits, labels, mix)
        return losses

    def _weights(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Return the weight of each term, [B, C]."""
        pair = gradient_weights(self.positive, self.negative, self.gamma, self.mu, self.alpha)
        positive_weights, negative_weights = (one.to(logits.dtype) for one in pair)
        is_label = nn_functional.one_hot(labels, logits.shape[1]).bool()
        return torch.where(is_label, positive_weights, negative_weights)

    @torch.no_grad()
    def _accumulate(self, logits: Tensor, labels: Tensor, mix: Mixed | None) -> None:
        """Add the gradients of a batch to those so far."""
        if mix is None:
            sums = self._gradients(logits, labels, 1.0)
        else:
            share = mix[1][:, None]
            sums = self._gradients(logits, labels, share) + self._gradients(logits, mix[0], 1 - share)
        all_reduce_sum(sums)
        self.positive += sums[0]
        self.negative += sums[1]

    def _gradients(self, logits: Tensor, labels: Tensor, share: Tensor | float) -> Tensor:
        """Return the sums of weighted absolute positive and negative gradients of each class, float64 [2, C].

        Args:
            share: share of the labels in a mixed image, [B, 1].
        """
        labels = functional.integer_labels(labels)
        logits = functional.at_least_float32(logits)
        probabilities = torch.sigmoid(logits)
        is_label = nn_functional.one_hot(labels, logits.shape[1]).bool()
        gradients = torch.where(is_label, 1 - probabilities, probabilities) * self._weights(labels, logits) * share
        return torch.stack([(gradients * is_label).sum(0), (gradients * ~is_label).sum(0)]).double()
