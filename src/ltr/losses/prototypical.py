"""The loss of prototypical networks (Snell et al., NeurIPS 2017): a batch is an episode of few-shot classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses.functional import integer_labels
from ltr.losses.gathering import gathered
from ltr.losses.scale import near_one


@named("loss/prototypical")
class Prototypical(nn.Module):
    """Cross-entropy of queries over minus their squared distances to the prototypes (equations 1 and 2).

    Of each class in a batch the first ``shot`` images are labelled, and their mean embedding is the class's prototype;
    its other images are queries. Called as the losses of class scores are, with embeddings in the place of logits.
    Batches of several processes are one episode.

    Args:
        class_counts: not used; training passes it to every loss.
        shot: labelled images of a class.

    Raises:
        ConfigError: no labelled image.
    """

    link = "softmax"
    prior_bias = None
    adjusts_prior = False
    of = "embedding"
    weights = None

    def __init__(self, class_counts: Sequence[int] | None = None, *, shot: int = 1) -> None:
        super().__init__()
        if shot < 1:
            raise ConfigError(f"loss.shot={shot}: an episode needs at least 1 labelled image of each class")
        self.shot = shot

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Nothing here is scheduled."""

    def check_batches(self, sampler: Any, batch_size: int, classes: int) -> None:
        """Refuse batches that are no episodes.

        Args:
            sampler: that draws them.
            batch_size: of an optimiser step.
            classes: with training images.

        Raises:
            ConfigError: another sampler, no query, a broken last class, or more classes than there are.
        """
        each = getattr(sampler, "images_per_class", None)
        if each is None:
            raise ConfigError("loss=prototypical learns from episodes: use sampler=episodes")
        if each <= self.shot:
            raise ConfigError(
                f"sampler.images_per_class={each} with loss.shot={self.shot}: an episode too small, without a query. "
                f"Use at least {self.shot + 1} images per class"
            )
        way = batch_size // each
        if batch_size % each or not 2 <= way <= classes:
            most = min(classes, max(way, 2))
            raise ConfigError(
                f"batch_size={batch_size} with sampler.images_per_class={each}: an episode needs a whole number of "
                f"classes, from 2 to the {classes} that there are. Use batch_size={most * each} for {most} of them"
            )

    def forward(self, embeddings: Tensor, labels: Tensor, mix: Any = None) -> Tensor:
        """The mean loss of a batch's queries, a scalar; 0 where there is none.

        Args:
            embeddings: [B, D], any float type; computed in float32 or better.
            labels: of any integer type, [B].
            mix: must be None.

        Raises:
            ConfigError: mixed images.
            DataError: labels that are no integers.
        """
        if mix is not None:
            raise ConfigError(
                "loss=prototypical has no use for mixed images; use an augmentation without mixup or cutmix"
            )
        embeddings, labels = gathered(embeddings), gathered(integer_labels(labels))
        with torch.autocast(embeddings.device.type, enabled=False):
            # larger embeddings count as if they were of this size: their costs would be infinite
            wide = near_one(embeddings, torch.promote_types(embeddings.dtype, torch.float32), grow=False, target=30)
            wide = wide - wide.detach().mean(0)  # moves nothing but the rounding errors
            same = labels[:, None] == labels
            place = same.tril(-1).sum(1)  # which of its class's images in the batch it is
            supporting = (same & (place < self.shot)).to(wide.dtype)
            means = supporting @ wide / supporting.sum(1, keepdim=True)  # each image's class's prototype, [B, D]
            # minus the squared distance, but for the query's own square, which is the same for all prototypes
            nearness = 2 * wide @ means.T - means.square().sum(1)
            # a prototype counts once: in the column of its class's first image
            scores = torch.where(place == 0, nearness, -torch.inf).log_softmax(1)
            first = (same & (place == 0)).to(torch.uint8).argmax(1)
            costs = -scores.gather(1, first[:, None])[:, 0]
            queries = place >= self.shot
            return torch.where(queries, costs, 0.0).sum() / queries.sum().clamp(min=1)
