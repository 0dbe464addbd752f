"""Classification losses as pure functions: logits [B, C] and labels [B] of any integer type to losses [B].

`weight` is always the class weights w [C]; an image's loss is multiplied by that of its label. Half-precision logits
are taken to float32 first; float32 and float64 stay as they are. Labels must lie in 0..C-1: the data layer checks that
once, because a check here would make every step wait for the device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ltr.errors import ConfigError, DataError

REDUCTIONS = ("batch", "weight_sum")

# PyTorch passes over images labelled -100 unless another value is named; here no label means "none"
_NO_LABEL = torch.iinfo(torch.int64).min


def integer_labels(labels: Tensor) -> Tensor:
    """Labels as int64: torch takes uint8 for a mask and other types not at all.

    Raises:
        DataError: labels that are no integers.
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
    """-w_y log softmax(z)_y, [B]."""
    labels = integer_labels(labels)
    losses = F.cross_entropy(_at_least_float32(logits), labels, reduction="none", ignore_index=_NO_LABEL)
    return _weighted(losses, labels, weight)


def focal_softmax(
    logits: Tensor, labels: Tensor, gamma: float, weight: Tensor | None = None, weight_inside: bool = False
) -> Tensor:
    """Focal loss on softmax probabilities, -w_y (1 - p_y)^gamma log p_y, [B].

    This is the "Focal" of LDAM-DRW's and M2m's tables; Lin et al. (ICCV 2017) and Cui et al. use sigmoids, which is
    `focal_sigmoid`.

    Args:
        gamma: >= 0; 0 is cross-entropy.
        weight_inside: the weight enters the modulating factor too, with p_y = exp(-w_y CE), as both codes do.
    """
    labels = integer_labels(labels)
    if weight_inside:
        return _modulated(cross_entropy(logits, labels, weight), gamma)
    return _weighted(_modulated(cross_entropy(logits, labels), gamma), labels, weight)


def sigmoid_cross_entropy(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None, background: int | None = None
) -> Tensor:
    """Sum over the classes of one-against-all logistic losses (Cui et al., CVPR 2019, section 4.2), [B].

    Args:
        background: a class that has no term: its images are negatives of all others.
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
    """Focal loss over C sigmoids, -w_y sum_i (1 - p_i^t)^gamma log p_i^t (Cui et al., CVPR 2019, section 4.3), [B].

    p_i^t = sigmoid(z_i) for i = y and sigmoid(-z_i) otherwise. The weight is that of the image's label and multiplies
    all C terms. The factor is exp(gamma * log(1 - p_i^t)), which, unlike the official form, cannot overflow.

    Args:
        gamma: >= 0; 0 is `sigmoid_cross_entropy`.
        weight_inside: the weight enters the factor of each term, as in `focal_softmax`; no published code does it here.
        background: a class that has no term, as in `sigmoid_cross_entropy`.
    """
    labels = integer_labels(labels)
    flipped = _flipped(logits, labels, background)
    log_p = F.logsigmoid(flipped)
    if weight is not None and weight_inside:
        return _modulated(weight[labels][:, None] * -log_p, gamma).sum(1)
    # log(1 - p) = logsigmoid(-z) = logsigmoid(z) - z: one pass over [B, C] fewer
    losses = (torch.exp(gamma * (log_p - flipped)) * -log_p).sum(1)
    return _weighted(losses, labels, weight)


def ldam(logits: Tensor, labels: Tensor, margins: Tensor, scale: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Label-distribution-aware margin loss, w_y CE(z - s Delta_y onehot(y)) (Cao et al., NeurIPS 2019), [B].

    Args:
        logits: scaled already, s times the cosine. The official code scales inside the loss, so that its models'
            probabilities are not those that were trained; ours are.
        margins: Delta [C], in units of the unscaled logit.
        scale: s, by which the head multiplied the cosines.
    """
    labels = integer_labels(labels)
    logits = _at_least_float32(logits)
    of_labels = logits.gather(1, labels[:, None])
    lowered = logits.scatter(1, labels[:, None], of_labels - (scale * margins[labels])[:, None].to(logits.dtype))
    return cross_entropy(lowered, labels, weight)


def balanced_softmax(logits: Tensor, labels: Tensor, log_prior: Tensor) -> Tensor:
    """CE(z + log n) (Ren et al., NeurIPS 2020), [B]. log n and log prior differ by a constant only."""
    return cross_entropy(_at_least_float32(logits) + log_prior, labels)


def logit_adjusted(logits: Tensor, labels: Tensor, log_prior: Tensor, tau: float) -> Tensor:
    """CE(z + tau log prior) (Menon et al., ICLR 2021, eq. 10), [B]. tau = 1 is `balanced_softmax`."""
    return cross_entropy(_at_least_float32(logits) + tau * log_prior, labels)


def vs(logits: Tensor, labels: Tensor, log_prior: Tensor, gamma: float, tau: float) -> Tensor:
    """Vector scaling, CE(Delta z + iota) with Delta_j = (n_j / n_max)^gamma, iota_j = tau log prior_j, [B].

    Kini et al., NeurIPS 2021. The paper's own class weight omega is left at 1, as in its experiments.
    """
    factors = torch.exp(gamma * (log_prior - log_prior.max()))
    return cross_entropy(_at_least_float32(logits) * factors + tau * log_prior, labels)


def reduce(
    per_image: Tensor, weights_of_labels: Tensor | None, reduction: str, across_processes: bool = False
) -> Tensor:
    """One number from a batch.

    Args:
        per_image: losses [B], weighted already.
        weights_of_labels: the weights [B] that they carry; None: all 1.
        reduction: `batch` divides by B (Cui et al.), `weight_sum` by the sum of the weights (PyTorch's weighted mean,
            LDAM-DRW's code). A batch whose weights are all 0 gives 0.
        across_processes: divide by the mean of the processes' weight sums, so that the gradient averaged over equal
            shares of a batch is that of the whole batch. All processes must call at the same step.

    Returns:
        A scalar.

    Raises:
        ConfigError: an unknown reduction.
    """
    check_reduction(reduction)
    if reduction == "batch" or weights_of_labels is None:
        return per_image.mean()
    total = weights_of_labels.detach().sum()
    if across_processes and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
        total = total / torch.distributed.get_world_size()
    return per_image.sum() / total.clamp_min(torch.finfo(total.dtype).tiny)


def check_reduction(reduction: str) -> None:
    """A ConfigError for a reduction that does not exist."""
    if reduction not in REDUCTIONS:
        raise ConfigError(f"loss.reduction = {reduction}: expected one of {', '.join(REDUCTIONS)}.")


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _flipped(logits: Tensor, labels: Tensor, background: int | None) -> Tensor:
    """z_y at the label and -z_i elsewhere, [B, C], or [B, C - 1] without the background's column."""
    logits = _at_least_float32(logits)
    flipped = (-logits).scatter(1, labels[:, None], logits.gather(1, labels[:, None]))
    if background is None:
        return flipped
    return torch.cat([flipped[:, :background], flipped[:, background + 1 :]], dim=1)


def _modulated(losses: Tensor, gamma: float) -> Tensor:
    """(1 - exp(-loss))^gamma * loss."""
    # the floor keeps the gradient finite at loss 0 for gamma < 1, where the power's own slope is infinite
    miss = (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny)
    return miss**gamma * losses


def _weighted(losses: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
    return losses if weight is None else weight[labels] * losses
