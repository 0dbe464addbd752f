"""Loss terms of the point-based open-set methods, as pure functions that return one number per image [B].

Distances are [B, C, M]: of B images to the M points of each of C classes. Labels are integers [B].
"""

from __future__ import annotations

from torch import Tensor

from ltr.losses import functional


def label_distances(distances: Tensor, labels: Tensor) -> Tensor:
    """Return the distances [B, M] to the points of each image's class.

    The official code uses the label as an index into the flat list of C * M points, which is right for M = 1 only.
    """
    index = functional.integer_labels(labels)[:, None, None].expand(-1, 1, distances.shape[2])
    return distances.gather(1, index).squeeze(1)


def reciprocal_class(distances: Tensor, labels: Tensor, gamma: float = 1.0) -> Tensor:
    """Return -log p(y|x), p(k|x) = softmax_k(gamma d(f, P^k)), with d the mean over M points (RPL, ECCV 2020), [B].

    Larger distances to the reciprocal points of a class make the class more likely.
    """
    return functional.cross_entropy(gamma * distances.mean(2), labels)


def open_space(distances: Tensor, radius: Tensor) -> Tensor:
    """Return (1/M) sum_i (d(f, p_i^y) - R^y)^2, the open-space term of RPL (ECCV 2020), [B].

    Args:
        distances: squared distances [B, M] to the points of the image's class.
        radius: R^y, [B].
    """
    return (distances - radius[:, None]).square().mean(1)


def adversarial_margin(distances: Tensor, radius: Tensor) -> Tensor:
    """Return max(0, d(f, P^y) - R + 1), the margin term of ARPL (TPAMI 2021), [B]; 0 where d <= R - 1.

    Args:
        distances: squared distances [B, M]; their mean over M is d.
        radius: R, [B].
    """
    return (distances.mean(1) - radius + 1).clamp_min(0)


def prototype_class(distances: Tensor, labels: Tensor, gamma: float = 1.0) -> Tensor:
    """Return -log p(y|x), p(k|x) proportional to sum_i exp(-gamma d(f, o_i^k)), GCPL's distance cross-entropy, [B]."""
    return functional.cross_entropy((-gamma * distances).logsumexp(2), labels)


def prototype_pull(distances: Tensor) -> Tensor:
    """Return half the squared distance to the nearest prototype of the image's class, GCPL's prototype loss, [B].

    The factor 1/2 is that of the authors' and of ARPL's code; the paper (Yang et al., CVPR 2018) has none.

    Args:
        distances: squared distances [B, M] to the prototypes of the image's class.
    """
    return distances.amin(1) / 2


def confusion(logits: Tensor) -> Tensor:
    """Return exp(mean_x sum_k p_k log p_k), p = softmax(logits [B, C]), of generated images (ARPL+CS); a scalar.

    The value is in [1/C, 1]: 1/C if the network predicts equal probabilities for every image.
    """
    log_p = functional.at_least_float32(logits).log_softmax(1)
    return (log_p.exp() * log_p).sum(1).mean().exp()
