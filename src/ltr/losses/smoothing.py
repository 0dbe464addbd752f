"""Label-aware smoothing (Zhong et al., CVPR 2021): label smoothing that grows with the size of the class."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ltr.configuration.ranges import Fraction, Positive, check_option
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses import functional
from ltr.losses.base import ClassificationLoss, to_float32
from ltr.losses.weights import ClassCounts, as_counts

Shape = Literal["concave", "linear", "convex", "power"]
Spread = Literal["all", "others"]


def label_smoothing(
    class_counts: ClassCounts, head: float, tail: float, shape: Shape = "concave", exponent: float = 1.0
) -> np.ndarray:
    """Return the label smoothing of each class: ``head`` for the largest class, ``tail`` for the smallest.

    With t = (n - n_min) / (n_max - n_min), it is ``tail + (head - tail) r(t)``, where r(t) is sin(pi t / 2)
    (``concave``), t (``linear``), 1 - cos(pi t / 2) (``convex``) or t^exponent (``power``, only in the authors' code).
    If all classes have the same number of images, each gets ``head``.

    Args:
        class_counts: training images of each class, [C].
        head, tail: smoothing of the largest and of the smallest class, in [0, 1].
        shape: function r.
        exponent: exponent of ``power``, > 0.

    Returns:
        float64 [C].
    """
    counts = as_counts(class_counts).astype(np.float64)
    span = counts.max() - counts.min()
    share = (counts - counts.min()) / span if span > 0 else np.ones_like(counts)
    rises = {
        "concave": np.sin(np.pi / 2 * share),
        "linear": share,
        "convex": 1.0 - np.cos(np.pi / 2 * share),
        "power": share**exponent,
    }
    return tail + (head - tail) * rises[shape]


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: Tensor, spread: Spread = "all") -> Tensor:
    """Return the cross-entropy with smoothed labels, [B]: the target of y is 1 - e_y, and e_y is spread over classes.

    Args:
        logits: [B, C], any float type.
        labels: y [B], any integer type.
        smoothing: e [C], in [0, 1].
        spread: `all` spreads e_y evenly over all C classes, y included (the authors' code and PyTorch's
            ``label_smoothing``); `others` over the C - 1 classes other than y (the paper).
    """
    labels = functional.integer_labels(labels)
    log_p = torch.log_softmax(functional.at_least_float32(logits), dim=1)
    label_log_p = log_p.gather(1, labels[:, None])[:, 0]
    share = smoothing[labels].to(log_p.dtype)
    mean = log_p.mean(1) if spread == "all" else (log_p.sum(1) - label_log_p) / max(log_p.shape[1] - 1, 1)
    return -(1.0 - share) * label_log_p - share * mean


@named("loss/label_aware_smoothing")
class LabelAwareSmoothing(ClassificationLoss):
    """Cross-entropy with label smoothing that grows with the size of the class (Zhong et al., CVPR 2021).

    The second stage of MiSLAS uses it for calibration. The defaults are the authors' for CIFAR-100-LT; for CIFAR-10-LT,
    ImageNet-LT and iNaturalist they use ``head=0.3 tail=0``.

    Args:
        head: smoothing of the largest class.
        tail: smoothing of the smallest class.
        shape: shape of the rise from ``tail`` to ``head``; see `label_smoothing`.
        exponent: exponent of the shape ``power``.
        spread: classes that share the smoothing: `all` (the authors' code), or the `others` than the label (the paper).

    Raises:
        ConfigError: ``tail`` is above ``head``.
    """

    smoothing: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        background: int | None = None,
        *,
        head: Fraction = 0.4,
        tail: Fraction = 0.1,
        shape: Shape = "concave",
        exponent: Positive = 1.0,
        spread: Spread = "all",
    ) -> None:
        super().__init__(class_counts, background)
        check_option("loss.shape", shape, Shape)
        check_option("loss.exponent", exponent, Positive)
        self.spread = check_option("loss.spread", spread, Spread)
        if check_option("loss.tail", tail, Fraction) > check_option("loss.head", head, Fraction):
            raise ConfigError(
                f"loss.tail={tail} loss.head={head}: labels of large classes are smoothed more than those of small "
                "ones. Set loss.tail to at most loss.head"
            )
        self.register_buffer("smoothing", to_float32(label_smoothing(class_counts, head, tail, shape, exponent)))

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        return smoothed_cross_entropy(logits, labels, self.smoothing, self.spread)
