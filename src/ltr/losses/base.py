"""What all classification losses share: class weights, their deferral, mixed labels, the reduction."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ltr.errors import ConfigError
from ltr.losses import functional
from ltr.losses.deferred import Deferral
from ltr.losses.weights import ClassCounts, as_counts, class_balanced_weights

Mixed = tuple[Tensor, Tensor]


class ClassificationLoss(nn.Module):
    """A loss over class logits. Built as `Loss(class_counts, **config)`; a subclass writes `losses`.

    Counts, weights, margins and priors are persistent buffers, so that a checkpoint says what it was trained for.

    Attributes:
        link: how probabilities follow from logits, `softmax` or `sigmoid`; stored with the checkpoint.
        prior_bias: the last layer's initial bias, or None for the layer's own. A bias so set gets no weight decay.
        adjusts_prior: the loss counters the imbalance itself, so that a balanced sampler would do it twice.
        background: the class that has neither margin nor sigmoid, or None.
        weights: class weights [C] of mean 1, or None.
        active: weights and adjustments are on (see `start_epoch`).

    Args:
        class_counts: training images of each class, [C]; None where a loss without weights looks at none: then nothing
            checks the number of classes, and `prior_bias` is None.
        background: the class whose logit is a constant (background splitting), if there is one.
        beta: class-balanced weights by the effective number, beta in [0, 1); None: no weights.
        reduction: `batch` or `weight_sum`, see `functional.reduce`.
        defer_from: fraction of the stage from which on weights and adjustments are on; None: from the start.

    Raises:
        ConfigError: a value outside its range, or a background that the loss has no meaning for.
        DataError: class_counts are no counts.
    """

    link: str = "softmax"
    takes_background: bool = True
    class_counts: Tensor
    weights: Tensor | None

    def __init__(
        self,
        class_counts: ClassCounts | None,
        background: int | None = None,
        *,
        beta: float | None = None,
        reduction: str = "batch",
        defer_from: float | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if class_counts is None and (beta is not None or background is not None):
            raise ConfigError(
                f"{name} without class_counts has neither weights nor a background: with beta or background pass the "
                "training images of each class"
            )
        counts = None if class_counts is None else as_counts(class_counts)
        if background is not None and not self.takes_background:
            raise ConfigError(
                f"{name} moves every logit by its class's prior, which has no meaning for a constant background "
                "logit. Use loss=cross_entropy, focal_softmax, focal_sigmoid, class_balanced or ldam."
            )
        if background is not None and counts is not None and not 0 <= background < len(counts):
            raise ConfigError(f"{name}: background = {background}, expected a class in 0..{len(counts) - 1}.")
        functional.check_reduction(reduction)
        self.background = background
        self.reduction = reduction
        self.adjusts_prior = bool(beta)
        self.deferral = Deferral(defer_from)
        self.register_buffer("class_counts", None if counts is None else torch.from_numpy(counts))
        weights = None if beta is None or counts is None else float32(class_balanced_weights(counts, beta))
        self.register_buffer("weights", weights)

    @property
    def prior_bias(self) -> float | None:
        """-log(C - 1) for sigmoids: each starts at probability 1/C (Cui et al., CVPR 2019); None for softmax."""
        if self.link != "sigmoid" or self.class_counts is None:
            return None
        return -math.log(max(len(self.class_counts) - 1, 1))

    @property
    def active(self) -> bool:
        """Whether weights and adjustments are on in this epoch."""
        return self.deferral.active

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Say before each epoch (from 0) where in the stage it is; on from round(defer_from * epochs)."""
        self.deferral.start_epoch(epoch, epochs)

    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        """Losses per image [B] under the class weights [C]; None: no weights, or not yet."""
        raise NotImplementedError

    def label_weights(self, labels: Tensor, mix: Mixed | None = None) -> Tensor | None:
        """The weight of each image [B] by its label, or by both its labels; None: all 1 (no weights, or not yet)."""
        weight = self._active_weights()
        if weight is None:
            return None
        labels, mix = _integers(labels, mix)
        return weight[labels] if mix is None else _blend(weight[labels], weight[mix[0]], mix[1])

    def per_image(self, logits: Tensor, labels: Tensor, mix: Mixed | None = None) -> Tensor:
        """Weighted losses, not reduced.

        Args:
            logits: [B, C], any float type.
            labels: of any integer type, [B] in 0..C-1.
            mix: of mixup and cutmix: second labels int64 [B] and the weight of the first, float [B] in [0, 1]. An
                image's loss is then the mean of its two losses under that weight.

        Returns:
            [B], float32 or better.

        Raises:
            ValueError: logits of another number of classes than class_counts.
            DataError: labels that are no integers.
        """
        labels, mix = _integers(labels, mix)
        if self.class_counts is not None and logits.shape[1] != len(self.class_counts):
            raise ValueError(
                f"{type(self).__name__} was built for {len(self.class_counts)} classes and got logits of shape "
                f"{tuple(logits.shape)}. Build it with one count for each column of the head."
            )
        weight = self._active_weights()
        losses = self.losses(logits, labels, weight)
        return losses if mix is None else _blend(losses, self.losses(logits, mix[0], weight), mix[1])

    def forward(self, logits: Tensor, labels: Tensor, mix: Mixed | None = None) -> Tensor:
        """The loss of a batch, a scalar; arguments as `per_image`.

        With `mix` and `weight_sum` an image enters the denominator with the mean of its two labels' weights under the
        same mixing weight, so that the loss stays a weighted mean. In training the denominator spans all processes.
        """
        losses = self.per_image(logits, labels, mix)
        weights = self.label_weights(labels, mix)
        return functional.reduce(losses, weights, self.reduction, across_processes=self.training)

    def extra_repr(self) -> str:
        classes = None if self.class_counts is None else len(self.class_counts)
        return f"classes={classes}, reduction={self.reduction}, defer_from={self.deferral.defer_from}"

    def _active_weights(self) -> Tensor | None:
        return self.weights if self.active else None


def float32(values: np.ndarray) -> Tensor:
    """A buffer from the float64 numbers of `weights`."""
    return torch.from_numpy(values).float()


def at_least_zero(key: str, value: float) -> float:
    """The value of loss.<key>, if it is finite and >= 0; else a ConfigError."""
    if not 0.0 <= value < math.inf:
        raise ConfigError(f"loss.{key} = {value}: expected a finite number >= 0.")
    return value


def _integers(labels: Tensor, mix: Mixed | None) -> tuple[Tensor, Mixed | None]:
    return functional.integer_labels(labels), mix if mix is None else (functional.integer_labels(mix[0]), mix[1])


def _blend(first: Tensor, second: Tensor, weight_of_first: Tensor) -> Tensor:
    return weight_of_first * first + (1.0 - weight_of_first) * second
