"""Triplet loss with distance-weighted mining (Wu et al., ICCV 2017), for metric learning and RKD's teachers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltr.configuration.ranges import Positive, check_option
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses.functional import integer_labels
from ltr.losses.gathering import broadcast_from_rank_zero, gather_with_gradient, world_size
from ltr.losses.relational import squared_distances

Mining = Literal["distance_weighted", "all", "pytorch_metric_learning"]
OnSphere = Annotated[float, "(0, 2)"]  # distances between points of the unit sphere


@named("loss/triplet")
class Triplet(nn.Module):
    """Mean of max(0, d(a, p) - d(a, n) + margin) over the triplets of a batch, with Euclidean distances.

    The loss is called like a classification loss, with embeddings instead of logits. The batches of all processes are
    mined together. A batch without a triplet has loss 0.

    Three kinds of mining choose the triplets:

    - ``distance_weighted`` follows RKD's code. For each ordered pair of images of one class it samples one negative
      with probability proportional to 1 / q(d), among the negatives with d below ``nonzero_cutoff`` (among all
      negatives if there is none). q is the density of distances d between uniform points of the unit sphere. d is
      measured between normalised embeddings; the loss uses the embeddings without normalisation. Random numbers come
      from torch's generator, which training seeds at each batch; all processes use those of rank 0.
    - ``pytorch_metric_learning`` uses the `DistanceWeightedMiner` of that package, which also samples the positives,
      skips anchors without negatives below the cutoff, and on a GPU synchronises once per class of a batch.
    - ``all`` uses every triplet.

    Args:
        class_counts: not used; training passes it to every loss.
        margin: difference that the loss enforces between the negative's and the positive's distance; 0.2 in RKD.
        mining: choice of triplets: one sampled negative for each pair of a class, all triplets, or those of the package
            pytorch-metric-learning (pip install 'ltr[metric]').
        cutoff: lower bound of d in the weights, so that no near negative gets all the weight.
        nonzero_cutoff: distance from which negatives are not sampled, because their loss is usually 0 (the mean
            distance on a sphere is 1.41).

    Raises:
        ConfigError: mining is unknown, its package is not installed, or the cutoffs are out of range.
    """

    link = "softmax"
    prior_bias = None
    adjusts_prior = False
    of = "embedding"
    takes_mixed_images = False  # a mixture of two images belongs to no single class
    weights = None

    def __init__(
        self,
        class_counts: Sequence[int] | None = None,
        *,
        margin: Positive = 0.2,
        mining: Mining = "distance_weighted",
        cutoff: OnSphere = 0.5,
        nonzero_cutoff: OnSphere = 1.4,
    ) -> None:
        super().__init__()
        check_option("loss.mining", mining, Mining)
        if not 0 < cutoff < nonzero_cutoff < 2:
            raise ConfigError(
                f"loss.cutoff={cutoff}, loss.nonzero_cutoff={nonzero_cutoff}: allowed are 0 < cutoff < nonzero_cutoff "
                "< 2, because distances on the unit sphere are at most 2. Set for example loss.cutoff=0.5 "
                "loss.nonzero_cutoff=1.4"
            )
        self.margin = margin
        self.mining = mining
        self.cutoff = cutoff
        self.nonzero_cutoff = nonzero_cutoff
        self.miner: Any = _package_miner(cutoff, nonzero_cutoff) if mining == "pytorch_metric_learning" else None

    @property
    def graph_obstacle(self) -> str | None:
        """Return why compile=graph cannot record this loss; None if it can."""
        return None if self.miner is None else "loss.mining=pytorch_metric_learning mines other numbers of triplets"

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Do nothing: the loss has no schedule."""

    def forward(self, embeddings: Tensor, labels: Tensor, mix: Any = None, *, uniforms: Tensor | None = None) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            embeddings: [B, D], any float type; computed in float32 or better.
            labels: [B], any integer type.
            mix: must be None, because a mixture of two images belongs to no single class.
            uniforms: random numbers for ``distance_weighted``, see `draw_negatives`; None: from torch's generator. The
                other kinds of mining allow only None.

        Raises:
            ConfigError: the images are mixed, or the mining does not use ``uniforms``.
            DataError: labels are not integers.
        """
        if mix is not None:
            raise ConfigError("loss=triplet cannot use mixed images. Use an augmentation without mixup or cutmix")
        if uniforms is not None and self.mining != "distance_weighted":
            raise ConfigError(
                f"uniforms were passed and mining={self.mining} does not use them; leave them out, or use "
                "mining=distance_weighted"
            )
        embeddings, labels = gather_with_gradient(embeddings), gather_with_gradient(integer_labels(labels))
        with torch.autocast(embeddings.device.type, enabled=False):
            wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
            distances = _distances(wide)
            if self.mining == "all":
                return all_triplets(distances, labels, self.margin)
            if self.miner is not None:
                anchors, positives, negatives = _of_rank_zero(self.miner(wide.detach(), labels))
                costs = functional.relu(distances[anchors, positives] - distances[anchors, negatives] + self.margin)
                return costs.sum() / max(len(costs), 1)
            chosen = draw_negatives(wide.detach(), labels, self.cutoff, self.nonzero_cutoff, uniforms)
            return _mean(distances - distances.gather(1, chosen) + self.margin, positive_pairs(labels))

    def extra_repr(self) -> str:
        return f"margin={self.margin}, mining={self.mining}"


def positive_pairs(labels: Tensor) -> Tensor:
    """Return the mask [N, N] of pairs of different images of one class; False if the batch has no other class."""
    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device) & ~same.all(1, keepdim=True)


def negative_weights(embeddings: Tensor, labels: Tensor, cutoff: float, nonzero_cutoff: float) -> Tensor:
    """Return the probability of each image as the negative of each anchor, [N, N].

    With d the distance of normalised embeddings, at least ``cutoff``, log w = (2 - D) log d - (D - 3) / 2 log(1 -
    d^2 / 4) (Wu et al., section 4), for images of other classes with d below ``nonzero_cutoff``. If there is no such
    image, all images of other classes get equal weights. Rows sum to 1, or to 0 if all images are of one class.

    Args:
        embeddings: [N, D], detached here.
        labels: int64 [N].
        cutoff, nonzero_cutoff: see `Triplet`.
    """
    width = embeddings.shape[1]
    distances = _distances(functional.normalize(embeddings.detach(), dim=1)).clamp(min=cutoff)
    other = labels[:, None] != labels
    near = other & (distances < nonzero_cutoff)
    within = distances.clamp(max=nonzero_cutoff)  # the formula is finite here; farther images are masked
    log_weights = (2.0 - width) * within.log() - (width - 3) / 2 * torch.log1p(-0.25 * within.square())
    chosen = torch.where(near.any(1, keepdim=True), near, other)
    log_weights = torch.where(near, log_weights, 0.0).masked_fill(~chosen, -torch.inf)
    return torch.nan_to_num(log_weights.softmax(1))


def draw_negatives(
    embeddings: Tensor, labels: Tensor, cutoff: float, nonzero_cutoff: float, uniforms: Tensor | None = None
) -> Tensor:
    """Sample the index of a negative for each pair of anchor and positive by `negative_weights`, int64 [N, N].

    Args:
        embeddings, labels, cutoff, nonzero_cutoff: see `negative_weights`.
        uniforms: numbers in [0, 1), [N, N]. Row a, column p gives the negative of anchor a and positive p: the first
            image at which the cumulative weights of row a exceed the number. The loss ignores entries of pairs that are
            not positive. None: from torch's generator of the device, in several processes from that of rank 0.

    Raises:
        ConfigError: uniforms have another shape.
    """
    cumulative = negative_weights(embeddings, labels, cutoff, nonzero_cutoff).double().cumsum(1)
    if uniforms is None:
        uniforms = torch.rand(cumulative.shape, dtype=torch.float64, device=cumulative.device)
        broadcast_from_rank_zero(uniforms)
    elif uniforms.shape != cumulative.shape:
        raise ConfigError(
            f"uniforms have the shape {list(uniforms.shape)} for {len(labels)} embeddings; allowed is [{len(labels)}, "
            f"{len(labels)}]. Pass a number in [0, 1) for each anchor and image"
        )
    drawn = uniforms.to(cumulative) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, drawn, right=True).clamp(max=len(labels) - 1)


def all_triplets(distances: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Return the mean loss over all triplets of a batch, a scalar, from distances [N, N]."""
    costs = functional.relu(distances[:, :, None] - distances[:, None, :] + margin)  # anchor, positive, negative
    valid = positive_pairs(labels)[:, :, None] & (labels[:, None] != labels)[:, None, :]
    return torch.where(valid, costs, 0.0).sum() / valid.sum().clamp(min=1)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen, functional.relu(values), 0.0).sum() / chosen.sum().clamp(min=1)


def _distances(embeddings: Tensor) -> Tensor:
    """Return Euclidean distances [N, N], with a gradient of 0 where the distance is 0."""
    squares = squared_distances(embeddings)
    is_apart = squares > 0
    return torch.where(is_apart, torch.where(is_apart, squares, 1.0).sqrt(), 0.0).to(embeddings.dtype)


def _of_rank_zero(mined: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the triplets that rank 0 mined; each process mines with random numbers of its own."""
    triplets = torch.stack(tuple(mined))
    if world_size() == 1:
        return triplets.unbind(0)
    count = int(broadcast_from_rank_zero(torch.tensor(triplets.shape[1], device=triplets.device)))
    if triplets.shape[1] != count:
        triplets = triplets.new_empty(len(triplets), count)
    return broadcast_from_rank_zero(triplets).unbind(0)


def _package_miner(cutoff: float, nonzero_cutoff: float) -> Any:
    try:
        miners = importlib.import_module("pytorch_metric_learning.miners")
    except ImportError as missing:
        raise ConfigError(
            "loss.mining=pytorch_metric_learning needs the package pytorch-metric-learning, which is not installed: "
            "pip install 'ltr[metric]', or use loss.mining=distance_weighted, which needs no package"
        ) from missing
    return miners.DistanceWeightedMiner(cutoff=cutoff, nonzero_loss_cutoff=nonzero_cutoff)
