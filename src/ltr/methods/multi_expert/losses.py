"""The losses of RIDE and SADE as functions of the experts' logits [B, K, C]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nn_functional

from ltr.losses import functional
from ltr.losses.weights import ClassCounts, as_counts, log_prior
from ltr.methods.multi_expert.options import Divergence, TemperatureRule


def class_temperatures(
    class_counts: ClassCounts, temperature: float, reweight_factor: float, rule: TemperatureRule = "ratio"
) -> np.ndarray:
    """Return the temperature of each class in RIDE's divergence, float64 [C] (Wang et al., ICLR 2021, section 3).

    With b_k = gamma C n_k / N + 1 - gamma, the paper's temperature is alpha (b_k + 1 - max b), and that of the official
    code alpha b_k / max b. Rare classes have the lower one in either case.

    Args:
        class_counts: training images of each class, [C].
        temperature: alpha, above 0.
        reweight_factor: gamma in [0, 1].
        rule: ``ratio`` (code) or ``shift`` (paper).

    Raises:
        ValueError: a temperature is not above 0: gamma is too large for this tail.
    """
    counts = as_counts(class_counts)
    weights = reweight_factor * len(counts) * counts / counts.sum() + 1 - reweight_factor
    temperatures = temperature * (weights / weights.max() if rule == "ratio" else weights + 1 - weights.max())
    if not (temperatures > 0).all():
        raise ValueError("a class's temperature is not above 0")
    return temperatures


def diversity(expert_logits: Tensor, temperatures: Tensor, divergence: Divergence = "mean") -> Tensor:
    """Return how far the experts' predictions are apart, summed over the experts, [B].

    With q_i = softmax(z_i / T), classes divided by their own temperatures, and the mean temperature m:

    - ``mean``, the official code: m^2 sum_i KL(q || q_i), where q is that of the experts' mean logits and held fixed;
    - ``pairs``, the paper: m^2 / (K - 1) sum_i sum_{j != i} KL(q_i || q_j). The factor m^2 is the code's.

    Args:
        expert_logits: [B, K, C], any float type.
        temperatures: [C], above 0.
    """
    logits = functional.at_least_float32(expert_logits)
    size = temperatures.mean() ** 2
    log_experts = (logits / temperatures).log_softmax(2)
    if divergence == "mean":
        log_mean = (logits.detach().mean(1, keepdim=True) / temperatures).log_softmax(2)
        return size * (log_mean.exp() * (log_mean - log_experts)).sum((1, 2))
    experts = logits.shape[1]
    if experts == 1:
        return logits.new_zeros(len(logits))
    of_experts = log_experts.exp()
    negative_entropies = (of_experts * log_experts).sum((1, 2))
    cross = torch.einsum("bic,bjc->bij", of_experts, log_experts)
    # sum over all i, j of KL(q_i || q_j); the terms i = j are 0
    return size / (experts - 1) * (experts * negative_entropies - cross.sum((1, 2)))


def inverse_log_prior(class_counts: ClassCounts) -> np.ndarray:
    """Return the log of the inverse prior, float64 [C]: the k-th rarest class has the share of the k-th largest one.

    Classes of equal size are in the order of their numbers.
    """
    prior = log_prior(class_counts)
    order = np.argsort(prior, kind="stable")
    inverse = np.empty_like(prior)
    inverse[order] = prior[order[::-1]]
    return inverse


def expertise_losses(
    expert_logits: Tensor, labels: Tensor, log_priors: Tensor, inverse_log_priors: Tensor, tau: float
) -> Tensor:
    """Return the losses of SADE's three experts, [B, 3] (Zhang et al., NeurIPS 2022, equations 1 to 3).

    They are the cross-entropies of z_1 (the training's distribution), of z_2 + log pi (the uniform one), and of
    z_3 + log pi - tau log pi' with the inverse prior pi' (the inverse long tail).

    Args:
        expert_logits: [B, 3, C], any float type.
        labels: int64 [B].
        log_priors, inverse_log_priors: [C], log pi and log pi'.
        tau: the paper's lambda.
    """
    shifts = torch.stack([torch.zeros_like(log_priors), log_priors, log_priors - tau * inverse_log_priors])
    shifted = functional.at_least_float32(expert_logits) + shifts
    return torch.stack([functional.cross_entropy(logits, labels) for logits in shifted.unbind(1)], dim=1)


def routing_targets(expert_logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether another expert helps an image after the first i of them, bool [B, K - 1].

    It does if the mean of the first i experts is wrong and that of some larger number is right.

    Args:
        expert_logits: [B, K, C].
        labels: int64 [B].
    """
    is_correct = running_means(expert_logits).argmax(2) == labels[:, None]
    later = is_correct.flip(1).cummax(1).values.flip(1)[:, 1:]
    return ~is_correct[:, :-1] & later


def routing_losses(scores: Tensor, targets: Tensor, pos_weight: float) -> Tensor:
    """Return the binary cross-entropy of the routers, their mean for each image, [B].

    Args:
        scores: logits of "another expert helps", [B, K - 1].
        targets: bool [B, K - 1], see `routing_targets`.
        pos_weight: weight of the images that another expert helps.
    """
    losses = nn_functional.binary_cross_entropy_with_logits(
        functional.at_least_float32(scores),
        targets.float(),
        pos_weight=torch.full((), pos_weight, device=scores.device),
        reduction="none",
    )
    return losses.mean(1)


def running_means(expert_logits: Tensor) -> Tensor:
    """Return the mean logits of the first 1, 2, ..., K experts, float32 [B, K, C]."""
    logits = functional.at_least_float32(expert_logits)
    numbers = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    return logits.cumsum(1) / numbers[:, None]


def prediction_stability(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Return the cosine similarity of the predictions for two views of each image, [B].

    A prediction is the softmax of the weighted sum of the experts' logits.

    Args:
        first, second: logits of the two views, float32 [B, K, C].
        weights: weights of the experts, [K].
    """
    views = [torch.einsum("bkc,k->bc", logits, weights).softmax(1) for logits in (first, second)]
    return nn_functional.cosine_similarity(views[0], views[1], dim=1, eps=1e-6)
