"""Classification losses as pure functions: logits [B, C] and labels [B] of any integer type to losses [B].

`weight` is always the class weights w [C]; the loss of an image is multiplied by the weight of its label.
Half-precision logits are converted to float32 first; float32 and float64 are kept. Labels must lie in 0..C-1: the data
layer checks this once, because a check here would synchronise with the device at every step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ltr.configuration.ranges import check_option
from ltr.errors import DataError
from ltr.losses.gathering import all_reduce_sum, world_size
from ltr.losses.reductions import Reduction

# PyTorch ignores images labelled -100 by default; here every label counts
_NO_LABEL = torch.iinfo(torch.int64).min


def integer_labels(labels: Tensor) -> Tensor:
    """Convert labels of any integer type to int64, the type that torch indexes with.

    Raises:
        DataError: labels are not integers.
    """
    if labels.dtype == torch.int64:
        return labels
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(
            f"labels of type {labels.dtype}; allowed are class numbers of an integer type. Convert them, as in "
            "labels.long() or labels.argmax(1)"
        )
    return labels.long()


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the cross-entropy -w_y log softmax(z)_y, [B]."""
    labels = integer_labels(labels)
    losses = F.cross_entropy(at_least_float32(logits), labels, reduction="none", ignore_index=_NO_LABEL)
    return _weighted(losses, labels, weight)


def focal_softmax(
    logits: Tensor, labels: Tensor, gamma: float, weight: Tensor | None = None, weight_inside: bool = False
) -> Tensor:
    """Return the focal loss on softmax probabilities, -w_y (1 - p_y)^gamma log p_y, [B].

    The tables of LDAM-DRW and M2m call it "Focal"; Lin et al. (ICCV 2017) and Cui et al. use sigmoids, which is
    `focal_sigmoid`.

    Args:
        gamma: >= 0; 0 is cross-entropy.
        weight_inside: True also puts the weight into the modulating factor, with p_y = exp(-w_y CE), as the code of
            LDAM-DRW and M2m does.
    """
    labels = integer_labels(labels)
    if weight_inside:
        return _modulated(cross_entropy(logits, labels, weight), gamma)
    return _weighted(_modulated(cross_entropy(logits, labels), gamma), labels, weight)


def sigmoid_cross_entropy(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None, background: int | None = None
) -> Tensor:
    """Return the one-vs-rest logistic losses summed over classes, [B] (Cui et al., CVPR 2019, section 4.2).

    Args:
        background: class without a term; its images are negatives of all other classes.
    """
    labels = integer_labels(labels)
    losses = -F.logsigmoid(_flipped(logits, labels, background)).sum(1)
    return _weighted(losses, labels, weight)


def focal_sigmoid(
    logits: Tensor,
    labels: Tensor,
    gamma: float,
    weight: Tensor | None = None,
    weight_inside: bool = False,
    background: int | None = None,
) -> Tensor:
    """Return the focal loss over C sigmoids, -w_y sum_i (1 - p_i^t)^gamma log p_i^t, [B].

    Cui et al., CVPR 2019, section 4.3. p_i^t is sigmoid(z_i) for i = y and sigmoid(-z_i) otherwise. The weight of the
    label multiplies all C terms. The factor is computed as exp(gamma * log(1 - p_i^t)), which, unlike the official
    form, cannot overflow.

    Args:
        gamma: >= 0; 0 is `sigmoid_cross_entropy`.
        weight_inside: True also puts the weight into the factor of each term, as in `focal_softmax`; no published code
            does this.
        background: class without a term, as in `sigmoid_cross_entropy`.
    """
    labels = integer_labels(labels)
    flipped = _flipped(logits, labels, background)
    log_p = F.logsigmoid(flipped)
    if weight is not None and weight_inside:
        return _modulated(weight[labels][:, None] * -log_p, gamma).sum(1)
    # log(1 - p) = logsigmoid(-z) = logsigmoid(z) - z saves one pass over [B, C]
    losses = (torch.exp(gamma * (log_p - flipped)) * -log_p).sum(1)
    return _weighted(losses, labels, weight)


def ldam(logits: Tensor, labels: Tensor, margins: Tensor, scale: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Return the label-distribution-aware margin loss, w_y CE(z - s Delta_y onehot(y)), [B] (Cao et al., NeurIPS 2019).

    Args:
        logits: s times the cosines, scaled by the head. The official code scales inside the loss; the softmax of its
            logits is therefore not the probability that the loss trains.
        margins: Delta [C], in units of the unscaled logit.
        scale: s, the factor by which the head multiplied the cosines.
    """
    labels = integer_labels(labels)
    logits = at_least_float32(logits)
    label_logits = logits.gather(1, labels[:, None])
    lowered = logits.scatter(1, labels[:, None], label_logits - (scale * margins[labels])[:, None].to(logits.dtype))
    return cross_entropy(lowered, labels, weight)


def balanced_softmax(logits: Tensor, labels: Tensor, log_prior: Tensor) -> Tensor:
    """Return CE(z + log n), [B] (Ren et al., NeurIPS 2020); log n and the log prior differ only by a constant."""
    return cross_entropy(at_least_float32(logits) + log_prior, labels)


def logit_adjusted(logits: Tensor, labels: Tensor, log_prior: Tensor, tau: float) -> Tensor:
    """Return CE(z + tau log prior), [B] (Menon et al., ICLR 2021, eq. 10); tau = 1 is `balanced_softmax`."""
    return cross_entropy(at_least_float32(logits) + tau * log_prior, labels)


def vs(logits: Tensor, labels: Tensor, log_prior: Tensor, gamma: float, tau: float) -> Tensor:
    """Return the vector-scaling loss CE(Delta z + iota), [B] (Kini et al., NeurIPS 2021).

    Delta_j = (n_j / n_max)^gamma and iota_j = tau log prior_j. The class weight omega of the paper is 1, as in its
    experiments.
    """
    factors = torch.exp(gamma * (log_prior - log_prior.max()))
    return cross_entropy(at_least_float32(logits) * factors + tau * log_prior, labels)


def reduce(
    per_image: Tensor, weights_of_labels: Tensor | None, reduction: str, across_processes: bool = False
) -> Tensor:
    """Reduce the losses of a batch to a scalar.

    Args:
        per_image: weighted losses, [B].
        weights_of_labels: weight [B] that each loss was multiplied by; None: all 1.
        reduction: `batch` divides by B (Cui et al.), `weight_sum` by the sum of the weights (PyTorch's weighted mean,
            LDAM-DRW's code). A batch whose weights are all 0 gives 0.
        across_processes: True divides by the mean of the processes' weight sums, so that the gradient averaged over
            equal shares of a batch is that of the whole batch. All processes must call it at the same step.

    Raises:
        ConfigError: the reduction is unknown.
    """
    check_option("loss.reduction", reduction, Reduction)
    if reduction == "batch" or weights_of_labels is None:
        return per_image.mean()
    total = weights_of_labels.detach().sum()
    if across_processes:
        all_reduce_sum(total)
        total = total / world_size()
    return per_image.sum() / total.clamp_min(torch.finfo(total.dtype).tiny)


def at_least_float32(values: Tensor) -> Tensor:
    """Convert half-precision values to float32; other types are returned unchanged."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _flipped(logits: Tensor, labels: Tensor, background: int | None) -> Tensor:
    """Return z_y at the label and -z_i elsewhere, [B, C], or [B, C - 1] without the background's column."""
    logits = at_least_float32(logits)
    flipped = (-logits).scatter(1, labels[:, None], logits.gather(1, labels[:, None]))
    if background is None:
        return flipped
    return torch.cat([flipped[:, :background], flipped[:, background + 1 :]], dim=1)


def _modulated(losses: Tensor, gamma: float) -> Tensor:
    """Return (1 - exp(-loss))^gamma * loss."""
    # the floor keeps the gradient finite at loss 0 for gamma < 1, where the slope of the power is infinite
    miss = (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny)
    return miss**gamma * losses


def _weighted(losses: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
    return losses if weight is None else weight[labels] * losses
