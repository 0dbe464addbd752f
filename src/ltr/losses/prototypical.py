"""Loss of prototypical networks (Snell et al., NeurIPS 2017); a batch is an episode of few-shot classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ltr.configuration.ranges import PositiveInt, check_option
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses.functional import integer_labels
from ltr.losses.gathering import gather_with_gradient
from ltr.losses.scale import rescale_near_one


@named("loss/prototypical")
class Prototypical(nn.Module):
    """Cross-entropy of queries, with the negative squared distances to the prototypes as logits (equations 1 and 2).

    The first ``shot`` images of each class in a batch are its support; their mean embedding is the prototype of the
    class. The remaining images are queries. The loss is called like a classification loss, with embeddings instead of
    logits. The batches of all processes form one episode, in the sampler's order.

    Args:
        class_counts: not used; training passes it to every loss.
        shot: support images of each class, >= 1.

    Raises:
        ConfigError: shot is below 1.
    """

    link = "softmax"
    prior_bias = None
    adjusts_prior = False
    of = "embedding"
    takes_mixed_images = False  # a mixture of two images belongs to no single class
    weights = None

    def __init__(self, class_counts: Sequence[int] | None = None, *, shot: PositiveInt = 1) -> None:
        super().__init__()
        self.shot = check_option("loss.shot", shot, PositiveInt)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Do nothing: the loss has no schedule."""

    def check_batches(self, sampler: Any, batch_size: int, classes: int) -> None:
        """Refuse batches that are not episodes.

        Args:
            batch_size: images per batch over all processes.
            classes: number of classes with training images.

        Raises:
            ConfigError: the sampler does not make episodes, or its episodes have no query, an incomplete class or too
                many classes.
        """
        each = getattr(sampler, "images_per_class", None)
        if each is None:
            raise ConfigError("loss=prototypical learns from episodes: use sampler=episodes")
        if each <= self.shot:
            raise ConfigError(
                f"sampler.images_per_class={each} with loss.shot={self.shot}: an episode would have no query. "
                f"Use at least {self.shot + 1} images per class"
            )
        way = batch_size // each
        if batch_size % each or not 2 <= way <= classes:
            most = min(classes, max(way, 2))
            raise ConfigError(
                f"batch_size={batch_size} with sampler.images_per_class={each}: an episode needs a whole number of "
                f"classes, from 2 to {classes}. Use batch_size={most * each} for {most} classes"
            )

    def forward(self, embeddings: Tensor, labels: Tensor, mix: Any = None) -> Tensor:
        """Return the mean loss of the queries of a batch, a scalar; 0 without queries.

        Args:
            embeddings: [B, D], any float type; computed in float32 or better.
            labels: [B], any integer type.
            mix: must be None.

        Raises:
            ConfigError: the images are mixed.
            DataError: labels are not integers.
        """
        if mix is not None:
            raise ConfigError("loss=prototypical cannot use mixed images. Use an augmentation without mixup or cutmix")
        embeddings, labels = gather_with_gradient(embeddings), gather_with_gradient(integer_labels(labels))
        with torch.autocast(embeddings.device.type, enabled=False):
            # rescales very large embeddings, whose squared distances would be infinite
            wide = rescale_near_one(
                embeddings, torch.promote_types(embeddings.dtype, torch.float32), grow=False, target=30
            )
            wide = wide - wide.detach().mean(0)  # changes rounding errors only
            same = labels[:, None] == labels
            rank_in_class = same.tril(-1).sum(1)  # position of each image among the images of its class
            is_support = (same & (rank_in_class < self.shot)).to(wide.dtype)
            prototypes = is_support @ wide / is_support.sum(1, keepdim=True)  # prototype of each image's class, [B, D]
            # negative squared distance without the square of the query, which is the same for all prototypes
            logits = 2 * wide @ prototypes.T - prototypes.square().sum(1)
            # each prototype counts once, in the column of the first image of its class
            log_probabilities = torch.where(rank_in_class == 0, logits, -torch.inf).log_softmax(1)
            first = (same & (rank_in_class == 0)).to(torch.uint8).argmax(1)
            costs = -log_probabilities.gather(1, first[:, None])[:, 0]
            is_query = rank_in_class >= self.shot
            return torch.where(is_query, costs, 0.0).sum() / is_query.sum().clamp(min=1)
