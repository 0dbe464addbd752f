"""Base class of the classification losses: class weights, their deferral, mixed labels, reduction."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltr.configuration.ranges import BelowOne, Fraction, check_option
from ltr.configuration.unwritten import left_to_subclasses
from ltr.errors import ConfigError
from ltr.losses import functional
from ltr.losses.gathering import BatchNumbers
from ltr.losses.reductions import Reduction
from ltr.losses.weights import ClassCounts, as_counts, class_balanced_weights

Mixed = tuple[Tensor, Tensor]


class ClassificationLoss(nn.Module):
    """Base class of losses over class logits; a subclass implements `losses`.

    A loss is built as `Loss(class_counts, **config)`.

    Counts, weights, margins and priors are persistent buffers, so that a checkpoint records the class counts that its
    network was trained with.

    Attributes:
        link: function from logits to probabilities, `softmax` or `sigmoid`; stored with the checkpoint.
        prior_bias: initial bias of the last layer, which then gets no weight decay; None keeps the layer's default.
        adjusts_prior: True if the loss corrects for the imbalance, so that a balanced sampler would correct twice.
        is_deterministic: False if equal logits need not give equal losses in training.
        is_potential: False if its gradient is not that of its value, because a factor that depends on the logits passes
            no gradient. A solver with a line search needs both.
        deterministic_by, potential_by: setting that makes a loss deterministic or a potential, for messages; '' if none
            does.
        background: class without a margin and without a sigmoid, or None.
        weights: class weights [C] of mean 1, or None.
        active: True while weights and adjustments are on, see `start_epoch`. A Python bool, so that a step reads it
            without waiting for the device.
        numbers: random numbers of the step in a training of several processes; None: from torch's generator.
        distributed_numerics_version: raised when only a training in several processes computes something else.
        only_weighted: options that nothing but class weights uses, with the values, besides their defaults, that a
            shipped config has without weights; a warning names other ones.
        class_factors: factor of each class's losses [C], as set from outside for a part of the loss; None: all 1.

    Args:
        class_counts: training images of each class, [C]. None is allowed for a loss without weights; the number of
            classes is then not checked, and `prior_bias` is None.
        background: class with a constant logit (background splitting); None: no such class.
        beta: weight classes by the inverse of their effective number of samples with this beta, in [0, 1): 0 gives all
            classes the same weight, values near 1 give inverse frequency; None: no weights.
        reduction: `batch` divides by the batch size, `weight_sum` by the sum of its weights (PyTorch, LDAM-DRW).
        defer_from: fraction of the stage after which weights and adjustments are on; None: from the start.

    Raises:
        ConfigError: a value is outside its range, or the loss is not defined with a background.
        DataError: class_counts are not counts.
    """

    link: str = "softmax"
    takes_background: bool = True
    is_deterministic: bool = True
    is_potential: bool = True
    deterministic_by: str = ""
    potential_by: str = ""
    numbers: BatchNumbers | None = None
    distributed_numerics_version: int = 1
    only_weighted: Mapping[str, tuple[Any, ...]] = MappingProxyType({})
    class_counts: Tensor
    weights: Tensor | None
    class_factors: Tensor | None = None

    def __init__(
        self,
        class_counts: ClassCounts | None,
        background: int | None = None,
        *,
        beta: BelowOne | None = None,
        reduction: Reduction = "batch",
        defer_from: Fraction | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if class_counts is None and (beta is not None or background is not None):
            raise ConfigError(f"{name}: beta and background need class_counts. Pass the training images of each class")
        counts = None if class_counts is None else as_counts(class_counts)
        if background is not None and not self.takes_background:
            raise ConfigError(
                f"{name} is not defined for a constant background logit. Use loss=cross_entropy, focal_softmax, "
                "focal_sigmoid, class_balanced or ldam"
            )
        if background is not None and counts is not None and not 0 <= background < len(counts):
            raise ConfigError(f"{name}: background={background}; allowed is a class from 0 to {len(counts) - 1}")
        self.background = background
        self.reduction = check_option("loss.reduction", reduction, Reduction)
        self.adjusts_prior = bool(beta)
        self.defer_from = check_option("loss.defer_from", defer_from, Fraction | None)
        self.active = not defer_from
        self.register_buffer("class_counts", None if counts is None else torch.from_numpy(counts))
        weights = None if beta is None or counts is None else to_float32(class_balanced_weights(counts, beta))
        self.register_buffer("weights", weights)
        if beta is None:
            self.warn_of_unweighted(reduction=reduction, defer_from=defer_from)

    @property
    def prior_bias(self) -> float | None:
        """Initial bias -log(C - 1) of sigmoids, which then start at 1/C (Cui et al., CVPR 2019); None for softmax."""
        if self.link != "sigmoid" or self.class_counts is None:
            return None
        return -math.log(max(len(self.class_counts) - 1, 1))

    def warn_of_unweighted(self, **options: Any) -> None:
        """Warn of options of `only_weighted` that a loss without class weights has, and that change nothing."""
        parameters = inspect.signature(type(self)).parameters
        unused = [
            f"loss.{key}={str(value).lower()}"
            for key, value in options.items()
            if key in self.only_weighted.keys() & parameters
            and value not in (parameters[key].default, *self.only_weighted[key])
        ]
        if unused and self.background is None:  # `method.background_weight` sets weights without beta
            warnings.warn(
                f"{', '.join(unused)}: only class weights use it, and without loss.beta {type(self).__name__} has "
                "none. Set loss.beta, such as 0.9999, or leave it out",
                stacklevel=3,
            )

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Switch weights and adjustments on from epoch round(defer_from * epochs), counted from 0.

        Deferred re-weighting (DRW) is algorithm 1 of Cao et al., NeurIPS 2019, whose code switches at epoch 160 of 200.
        """
        self.active = epoch >= first_epoch(self.defer_from, epochs)

    @left_to_subclasses("per_image", "forward")
    def losses(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        """Return the loss of each image, [B].

        Args:
            logits: [B, C].
            labels: [B].
            weight: class weights [C]; None without weights and before `defer_from`.
        """
        raise NotImplementedError

    def remember(self, labels: Tensor, mix: Mixed | None) -> None:
        """Take note of the labels of a training batch before its losses; by default nothing.

        Args:
            labels: [B], int64.
            mix: see `per_image`.
        """

    def label_weights(self, labels: Tensor, mix: Mixed | None = None) -> Tensor | None:
        """Return the class weight of each image, [B], mixed like its labels; None without weights or before
        `defer_from`.
        """
        weight = self._active_weights()
        if weight is None:
            return None
        labels, mix = _integers(labels, mix)
        return weight[labels] if mix is None else _blend(weight[labels], weight[mix[0]], mix[1])

    def per_image(self, logits: Tensor, labels: Tensor, mix: Mixed | None = None) -> Tensor:
        """Return the weighted loss of each image, without a reduction.

        Args:
            logits: [B, C], any float type.
            labels: [B] in 0..C-1, any integer type.
            mix: from mixup and cutmix: the second labels, int64 [B], and the weight of the first labels, float [B] in
                [0, 1]. The loss of an image is then the weighted mean of its two losses.

        Returns:
            [B], float32 or better.

        Raises:
            ValueError: logits and class_counts differ in the number of classes.
            DataError: labels are not integers.
        """
        labels, mix = _integers(labels, mix)
        if self.class_counts is not None and logits.shape[1] != len(self.class_counts):
            raise ValueError(
                f"{type(self).__name__} was built for {len(self.class_counts)} classes and got logits of shape "
                f"{tuple(logits.shape)}. Build it with one count for each column of the head"
            )
        weight = self._active_weights()
        if self.training:
            self.remember(labels, mix)
        losses = self._each(logits, labels, weight)
        return losses if mix is None else _blend(losses, self._each(logits, mix[0], weight), mix[1])

    def forward(self, logits: Tensor, labels: Tensor, mix: Mixed | None = None) -> Tensor:
        """Return the loss of a batch, a scalar; arguments as `per_image`.

        With `weight_sum`, a mixed image adds the mixed weight of its two labels to the denominator, so that the loss
        stays a weighted mean. In training the denominator is averaged over all processes.
        """
        losses = self.per_image(logits, labels, mix)
        weights = self.label_weights(labels, mix)
        return functional.reduce(losses, weights, self.reduction, across_processes=self.training)

    def extra_repr(self) -> str:
        classes = None if self.class_counts is None else len(self.class_counts)
        return f"classes={classes}, reduction={self.reduction}, defer_from={self.defer_from}"

    def _each(self, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        """Return the loss of each image, [B], times its class's factor.

        Raises:
            ConfigError: `losses` returns another shape, such as the mean of the batch.
        """
        losses = self.losses(logits, labels, weight)
        if losses.shape != labels.shape:
            raise ConfigError(
                f"{type(self).__module__}.{type(self).__qualname__}.losses returns shape {list(losses.shape)}, and the "
                f"loss of each image is needed, {list(labels.shape)}. Return it without a mean or sum "
                "(reduction='none'); loss.reduction takes the mean"
            )
        return losses if self.class_factors is None else losses * self.class_factors[labels]

    def _active_weights(self) -> Tensor | None:
        return self.weights if self.active else None


def first_epoch(defer_from: float | None, epochs: int) -> int:
    """Return the first epoch (from 0) after a deferral: defer_from * epochs, rounded; 0 for None."""
    return 0 if defer_from is None else round(defer_from * epochs)


def to_float32(values: np.ndarray) -> Tensor:
    """Convert the float64 arrays of `ltr.losses.weights` to float32 tensors."""
    return torch.from_numpy(values).float()


def _integers(labels: Tensor, mix: Mixed | None) -> tuple[Tensor, Mixed | None]:
    return functional.integer_labels(labels), mix if mix is None else (functional.integer_labels(mix[0]), mix[1])


def _blend(first: Tensor, second: Tensor, weight_of_first: Tensor) -> Tensor:
    return weight_of_first * first + (1.0 - weight_of_first) * second
