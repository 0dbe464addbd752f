"""The loss terms of the point-based open-set methods as pure functions: one number per image [B] out.

Distances are [B, C, M]: of B images to the M points of each of C classes. Labels are integers [B].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ltr.losses import functional


def of_labels(distances: Tensor, labels: Tensor) -> Tensor:
    """Distances [B, M] to the points of each image's own class.

    The official code looks the points up by the label in the flat list of C * M points, which is the label's own point
    for M = 1 only.
    """
    wanted = functional.integer_labels(labels)[:, None, None].expand(-1, 1, distances.shape[2])
    return distances.gather(1, wanted).squeeze(1)


def reciprocal_class(distances: Tensor, labels: Tensor, gamma: float = 1.0) -> Tensor:
    """-log p(y|x) with p(k|x) = softmax_k(gamma d(f, P^k)) and d the mean over the M points (RPL, ECCV 2020), [B].

    Larger distances to the reciprocal points of a class make the class more likely.
    """
    return functional.cross_entropy(gamma * distances.mean(2), labels)


def open_space(own: Tensor, radius: Tensor) -> Tensor:
    """(1/M) sum_i (d(f, p_i^y) - R^y)^2, the open-space term of RPL (ECCV 2020), [B].

    Args:
        own: squared distances [B, M] to the points of the image's class.
        radius: R^y, [B].
    """
    return (own - radius[:, None]).square().mean(1)


def adversarial_margin(own: Tensor, radius: Tensor) -> Tensor:
    """max(0, d(f, P^y) - R + 1), the margin term of ARPL (TPAMI 2021), [B]; 0 where d <= R - 1.

    Args:
        own: squared distances [B, M]; their mean over M is d.
        radius: R, [B].
    """
    return (own.mean(1) - radius + 1).clamp_min(0)


def prototype_class(distances: Tensor, labels: Tensor, gamma: float = 1.0) -> Tensor:
    """-log p(y|x) with p(k|x) proportional to sum_i exp(-gamma d(f, o_i^k)), GCPL's distance cross-entropy, [B]."""
    return functional.cross_entropy((-gamma * distances).logsumexp(2), labels)


def prototype_pull(own: Tensor) -> Tensor:
    """Half the squared distance to the nearest prototype of the image's class, GCPL's prototype loss, [B].

    The paper (Yang et al., CVPR 2018) has no half; ARPL's code has it.

    Args:
        own: squared distances [B, M] to the prototypes of the image's class.
    """
    return own.amin(1) / 2


def confusion(logits: Tensor) -> Tensor:
    """exp(mean_x sum_k p_k log p_k) with p = softmax(logits [B, C]), of generated images (ARPL+CS); a scalar.

    In [1/C, 1]: 1/C where the network is wholly undecided about every image.
    """
    log_p = F.log_softmax(logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits, dim=1)
    return (log_p.exp() * log_p).sum(1).mean().exp()
