"""Triplet loss with distance-weighted mining (Wu et al., ICCV 2017), the task of metric learning and RKD's teachers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses.functional import integer_labels
from ltr.losses.gathering import gathered
from ltr.losses.relational import squared_distances

Mining = Literal["distance_weighted", "all", "pytorch_metric_learning"]
MINING = ("distance_weighted", "all", "pytorch_metric_learning")


@named("loss/triplet")
class Triplet(nn.Module):
    """mean of max(0, d(a, p) - d(a, n) + margin) over triplets of a batch, with plain Euclidean distances.

    Called as the losses of class scores are, with embeddings in the place of logits. Batches of several processes are
    mined together. A batch without a triplet costs 0.

    Mining ``distance_weighted`` is that of RKD's code: for each ordered pair of one class, one negative is drawn with
    probability proportional to 1 / q(d), q being the density of distances d between uniform points of the unit sphere,
    among the negatives with d below ``nonzero_cutoff`` (any negative, where there is none). Embeddings are normalised
    to measure that d, and not for the loss itself. Draws come from torch's generator, which training seeds at each
    batch. ``pytorch_metric_learning`` is that package's `DistanceWeightedMiner`, which draws the positives, too, skips
    an anchor without such negatives, and on a GPU waits for the device at every class of a batch. ``all`` takes every
    triplet.

    Args:
        class_counts: not used; training passes it to every loss.
        margin: 0.2 in RKD.
        mining: see above.
        cutoff: smaller distances count as this one, so that no near negative takes all the weight.
        nonzero_cutoff: above it a negative is too far to cost anything (the mean distance on a sphere is 1.41).

    Raises:
        ConfigError: an unknown kind of mining, or its package is not installed.
    """

    link = "softmax"
    prior_bias = None
    adjusts_prior = False
    of = "embedding"
    weights = None

    def __init__(
        self,
        class_counts: Sequence[int] | None = None,
        *,
        margin: float = 0.2,
        mining: Mining = "distance_weighted",
        cutoff: float = 0.5,
        nonzero_cutoff: float = 1.4,
    ) -> None:
        super().__init__()
        if mining not in MINING:
            raise ConfigError(f"loss.mining={mining}: allowed is one of {', '.join(MINING)}")
        if not 0 < cutoff < nonzero_cutoff < 2:
            raise ConfigError(
                f"loss.cutoff={cutoff}, loss.nonzero_cutoff={nonzero_cutoff}: needed are 0 < cutoff < nonzero_cutoff "
                "< 2, for distances of points on the unit sphere are at most 2"
            )
        self.margin = margin
        self.mining = mining
        self.cutoff = cutoff
        self.nonzero_cutoff = nonzero_cutoff
        self.miner: Any = _package_miner(cutoff, nonzero_cutoff) if mining == "pytorch_metric_learning" else None

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Nothing here is scheduled."""

    def forward(self, embeddings: Tensor, labels: Tensor, mix: Any = None, *, uniforms: Tensor | None = None) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            embeddings: [B, D], any float type; computed in float32 or better.
            labels: of any integer type, [B].
            mix: must be None: a mixture of two images has no class to be near to.
            uniforms: the draws of ``distance_weighted``, see `draw_negatives`; None: from torch's generator. The other
                kinds of mining take none.

        Raises:
            ConfigError: mixed images, or draws that the mining has no use for.
            DataError: labels that are no integers.
        """
        if mix is not None:
            raise ConfigError(
                "loss=triplet cannot be taken of mixed images; use an augmentation without mixup or cutmix"
            )
        if uniforms is not None and self.mining != "distance_weighted":
            raise ConfigError(
                f"uniforms were passed and mining={self.mining} draws none of them; leave them out, or use "
                "mining=distance_weighted"
            )
        embeddings, labels = gathered(embeddings), gathered(integer_labels(labels))
        with torch.autocast(embeddings.device.type, enabled=False):
            wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
            distances = _distances(wide)
            if self.mining == "all":
                return all_triplets(distances, labels, self.margin)
            if self.miner is not None:
                anchors, positives, negatives = self.miner(wide.detach(), labels)
                costs = functional.relu(distances[anchors, positives] - distances[anchors, negatives] + self.margin)
                return costs.sum() / max(len(costs), 1)
            chosen = draw_negatives(wide.detach(), labels, self.cutoff, self.nonzero_cutoff, uniforms)
            return _mean(distances - distances.gather(1, chosen) + self.margin, positive_pairs(labels))

    def extra_repr(self) -> str:
        return f"margin={self.margin}, mining={self.mining}"


def positive_pairs(labels: Tensor) -> Tensor:
    """bool [N, N]: two different images of one class, where there is an image of another class to set against them."""
    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device) & ~same.all(1, keepdim=True)


def negative_weights(embeddings: Tensor, labels: Tensor, cutoff: float, nonzero_cutoff: float) -> Tensor:
    """How probable each image is as the negative of an anchor: [N, N], rows sum to 1 (0 where all are of one class).

    With d the distance of normalised embeddings, at least ``cutoff``, log w = (2 - D) log d - (D - 3) / 2 log(1 -
    d^2 / 4) (Wu et al., section 4), for images of other classes with d below ``nonzero_cutoff``; equal weights to all
    images of other classes where none is so near.

    Args:
        embeddings: [N, D]; they get no gradient.
        labels: int64 [N].
        cutoff, nonzero_cutoff: see `Triplet`.
    """
    width = embeddings.shape[1]
    distances = _distances(functional.normalize(embeddings.detach(), dim=1)).clamp(min=cutoff)
    other = labels[:, None] != labels
    near = other & (distances < nonzero_cutoff)
    within = distances.clamp(max=nonzero_cutoff)  # where the formula is finite; the others are masked
    log_weights = (2.0 - width) * within.log() - (width - 3) / 2 * torch.log1p(-0.25 * within.square())
    chosen = torch.where(near.any(1, keepdim=True), near, other)
    log_weights = torch.where(near, log_weights, 0.0).masked_fill(~chosen, -torch.inf)
    return torch.nan_to_num(log_weights.softmax(1))


def draw_negatives(
    embeddings: Tensor, labels: Tensor, cutoff: float, nonzero_cutoff: float, uniforms: Tensor | None = None
) -> Tensor:
    """For each anchor and each image one drawn negative of the anchor: int64 [N, N], see `negative_weights`.

    Args:
        embeddings, labels, cutoff, nonzero_cutoff: see `negative_weights`.
        uniforms: numbers in [0, 1), [N, N]: row a, column p draws the negative of anchor a and positive p, as the first
            image at which the cumulative weights of row a exceed it. Entries of pairs that are no positives are drawn
            too, and not used. None: from torch's generator of the device.

    Raises:
        ConfigError: uniforms of another shape.
    """
    cumulative = negative_weights(embeddings, labels, cutoff, nonzero_cutoff).double().cumsum(1)
    if uniforms is None:
        uniforms = torch.rand(cumulative.shape, dtype=torch.float64, device=cumulative.device)
    elif uniforms.shape != cumulative.shape:
        raise ConfigError(
            f"uniforms of shape {list(uniforms.shape)} for {len(labels)} embeddings; needed is [{len(labels)}, "
            f"{len(labels)}], a number in [0, 1) for each anchor and image"
        )
    drawn = uniforms.to(cumulative) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, drawn, right=True).clamp(max=len(labels) - 1)


def all_triplets(distances: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The mean cost of every triplet of a batch, from distances [N, N]."""
    costs = functional.relu(distances[:, :, None] - distances[:, None, :] + margin)  # anchor, positive, negative
    valid = positive_pairs(labels)[:, :, None] & (labels[:, None] != labels)[:, None, :]
    return torch.where(valid, costs, 0.0).sum() / valid.sum().clamp(min=1)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen, functional.relu(values), 0.0).sum() / chosen.sum().clamp(min=1)


def _distances(embeddings: Tensor) -> Tensor:
    """Euclidean distances [N, N] with a gradient of 0 where there is no distance."""
    squares = squared_distances(embeddings)
    apart = squares > 0
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0).to(embeddings.dtype)


def _package_miner(cutoff: float, nonzero_cutoff: float) -> Any:
    try:
        miners = importlib.import_module("pytorch_metric_learning.miners")
    except ImportError as missing:
        raise ConfigError(
            "loss.mining=pytorch_metric_learning needs the package pytorch-metric-learning, which is not installed: "
            "pip install 'ltr[metric]', or loss.mining=distance_weighted, which needs nothing"
        ) from missing
    return miners.DistanceWeightedMiner(cutoff=cutoff, nonzero_loss_cutoff=nonzero_cutoff)
