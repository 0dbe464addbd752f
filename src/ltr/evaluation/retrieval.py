"""Retrieval of images of the same class among the images of the test classes (Recall@K, MAP@R)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ltr.errors import ConfigError, TrainingError
from ltr.evaluation.averages import mean
from ltr.evaluation.embeddings import EmbeddingProtocol
from ltr.evaluation.protocol import Measurements
from ltr.identity import named

# number of distances in memory at once: 128 MB of float32
_DISTANCES = 2**25


@named("protocol/retrieval")
class Retrieval(EmbeddingProtocol):
    """Retrieval protocol (Recall@K, MAP@R, NMI): every image queries all other images by Euclidean distance.

    The query itself is excluded. Ties count against the network: images of other classes rank before those of the
    query's class, so that an embedding that collapses to a point retrieves nothing. Images without another image of
    their class are in the gallery and are not queries.

    Args:
        recall_at: values of K in Recall@K (Jegou et al., TPAMI 2011; papers use 1, 2, 4, 8 for CUB and Cars, and 1, 10,
            100, 1000 for Online Products).
        keep_predictions: True keeps a row per image and computes the NMI, which needs a k-means of all features.
        device: device of the scores, on which distances are computed.

    Raises:
        ConfigError: a K is below 1.
    """

    name: ClassVar[str] = "retrieval"
    headline: ClassVar[str] = "recall_at_1"

    def __init__(
        self,
        *,
        recall_at: Sequence[int] = (1, 2, 4, 8),
        keep_predictions: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        if any(k < 1 for k in recall_at):
            raise ConfigError(f"evaluation.recall_at={list(recall_at)}: each must be at least 1")
        self.recall_at = tuple(sorted({1, *recall_at}))  # recall at 1 selects weights
        self.keep_predictions = keep_predictions
        super().__init__(device)

    def compute(self) -> Measurements:
        """Compute the result over all images so far.

        Returns:
            ``metrics``: ``recall_at_<K>``, ``map_at_r``, ``r_precision`` and ``nmi``, fractions in [0, 1], NaN without
            queries; ``queries``, the number of images with another image of their class. ``predictions`` has one row
            per image, sorted by id: ``id label prediction`` (label of the nearest image) ``nearest`` (its id) ``rank``
            (rank of the nearest image of the same class, from 1; 0 without one) ``scores`` [N, 1] (minus the distance
            to the nearest image).

        Raises:
            TrainingError: some features were not finite.
        """
        features, labels, ids = self.embeddings()
        if not bool(features.isfinite().all()):
            raise TrainingError(
                "The network gave features that are not finite (NaN or infinite): its weights have diverged or are "
                "damaged. Use an earlier checkpoint, or train with a smaller learning rate or gradient clipping."
            )
        neighbours = nearest_of_class(features, labels)
        is_query = neighbours["positives"] > 0
        metrics = {
            f"recall_at_{k}": mean((neighbours["rank"][is_query] <= k).astype(np.float64)) for k in self.recall_at
        } | {
            "map_at_r": mean(neighbours["map_at_r"][is_query]),
            "r_precision": mean(neighbours["r_precision"][is_query]),
        }
        metrics["queries"] = float(is_query.sum())
        if not self.keep_predictions:
            return Measurements(metrics)
        metrics["nmi"] = normalised_mutual_information(features.cpu().numpy(), labels.cpu().numpy())
        id_of_row, label_of_row, nearest = ids.cpu().numpy(), labels.cpu().numpy(), neighbours["nearest"]
        predictions = {
            "id": id_of_row,
            "label": label_of_row,
            "prediction": label_of_row[nearest],
            "nearest": id_of_row[nearest],
            "rank": np.where(is_query, neighbours["rank"], 0),
            "scores": -neighbours["distance"][:, None],
        }
        return Measurements(metrics, predictions=predictions)


@torch.no_grad()
def nearest_of_class(features: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """Rank, for each image, the other images of its class among all other images by distance.

    Distances are computed in blocks of rows, so that memory is linear in N.

    Args:
        features: float [N, D], on any device; the result is all zeros for N < 2.
        labels: int64 [N].

    Returns:
        Arrays [N]: ``positives`` (number of other images of the class), ``rank`` (rank of the first of them, from 1),
        ``map_at_r`` and ``r_precision`` (Musgrave et al., ECCV 2020; R is ``positives``), ``nearest`` (index of the
        nearest image) and ``distance`` (to it). Without positives, rank is N and the averages are 0.
    """
    n = len(labels)
    if n < 2:
        integers, zeros = np.zeros(n, dtype=np.int64), np.zeros(n)
        averages = {"map_at_r": zeros, "r_precision": zeros, "distance": zeros}
        return {"positives": integers, "rank": integers + n, "nearest": integers, **averages}
    # sorted by class, the images of a query's class are adjacent
    order = torch.argsort(labels, stable=True)
    classes, counts = torch.unique_consecutive(labels[order], return_counts=True)
    ends = counts.cumsum(0)
    class_of = torch.repeat_interleave(torch.arange(len(classes), device=labels.device), counts)
    first, size = (ends - counts)[class_of], counts[class_of]
    x = _centred(features[order])
    half = 0.5 * x.square().sum(1, keepdim=True)
    # 0.5 |g|^2 - q.g orders the images g as their distance to q does; with one more column it is a matrix product
    queries = torch.cat([x, torch.ones_like(half)], dim=1)
    gallery = torch.cat([-x, half], dim=1).T.contiguous()
    largest = int(size.max()) - 1
    blocks = []
    for start in range(0, n, max(1, _DISTANCES // n)):
        rows = slice(start, min(n, start + max(1, _DISTANCES // n)))
        blocks.append(_block(queries[rows] @ gallery, half[rows, 0], start, first[rows], size[rows], largest))
    neighbours = {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}
    neighbours["nearest"] = order[neighbours["nearest"]]
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(n, device=order.device)
    return {name: values[inverse].cpu().numpy() for name, values in neighbours.items()}


def _centred(features: Tensor) -> Tensor:
    """Shift features close to the origin, where distances lose fewer digits.

    The shift is a multiple of a power of two near the features' spread, so that it is exact and equal distances stay
    equal.
    """
    wide = features.double() if features.device.type != "mps" else features
    grid = torch.exp2(wide.std().clamp_min(1e-30).log2().round())
    return (wide - (wide.mean(0) / grid).round() * grid).float()


def _block(far: Tensor, half: Tensor, start: int, first: Tensor, size: Tensor, largest: int) -> dict[str, Tensor]:
    """Compute `nearest_of_class` for some queries, in the order by class.

    The rank of the i-th nearest positive (i from 1) is i plus the number of images of other classes that are at most
    as far. The averages at R depend on the R nearest images only, the rank of the first positive on all images.

    Args:
        far: float [b, N], orders the images of each row by their distance to the query; changed in place.
        half: [b], half the squared norm of each query: half the squared distance is ``far + half``.
        start: index of the first query.
        first, size: int64 [b], index of the first image of the query's class, and the number of its images.
        largest: the largest R of all queries.
    """
    rows = torch.arange(len(far), device=far.device).unsqueeze(1)
    far[rows[:, 0], rows[:, 0] + start] = float("inf")
    # the class's own columns, padded to the largest class
    width = torch.arange(largest + 1, device=far.device)
    of_class = far[rows, (first.unsqueeze(1) + width).clamp_(max=far.shape[1] - 1)]
    of_class = (
        of_class.masked_fill_(width >= size.unsqueeze(1), float("inf")).sort(dim=1).values
    )  # [b, M]; the query's is infinite
    positives = size - 1
    nearest = far.topk(max(1, largest), dim=1, largest=False)
    others_before = at_most(far, of_class[:, 0]) - (of_class <= of_class[:, :1]).sum(1)
    neighbours = {
        "positives": positives,
        "rank": torch.where(positives > 0, others_before + 1, far.shape[1]),
        "nearest": nearest.indices[:, 0],
        "distance": (2 * (nearest.values[:, 0] + half)).clamp_min(0).sqrt(),
    }
    last = nearest.values[:, -1:]
    positive = of_class[:, : max(1, largest)].contiguous()
    # number of images at most as far as each positive; images tied with the last one may be missing in `nearest`
    as_near = torch.searchsorted(nearest.values.contiguous(), positive, right=True)
    as_near = torch.where(positive == last, at_most(far, last[:, 0]).unsqueeze(1), as_near)
    number = torch.arange(1, positive.shape[1] + 1, device=far.device)
    ranks = as_near - torch.searchsorted(positive, positive, right=True) + number
    hit = (positive <= last) & (ranks <= positives.unsqueeze(1)) & positive.isfinite()
    neighbours["map_at_r"] = torch.where(hit, number.double() / ranks, 0.0).sum(1) / positives.clamp_min(1)
    neighbours["r_precision"] = hit.sum(1).double() / positives.clamp_min(1)
    return neighbours


def at_most(values: Tensor, bounds: Tensor) -> Tensor:
    """Count the values of each row [b, N] that are at most its bound [b]; int64 [b]."""
    if values.device.type != "cpu":
        return (values <= bounds.unsqueeze(1)).sum(1)
    # torch widens booleans before it sums them, which takes as long as the matrix product
    rows = zip(values.numpy(), bounds.numpy())
    return torch.tensor([np.count_nonzero(row <= bound) for row, bound in rows], dtype=torch.int64)


def normalised_mutual_information(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the NMI in [0, 1] between the classes and a k-means clustering of the features with k = classes.

    It runs k-means++ with a fixed seed for at most 30 rounds; above 20,000 images mini-batch k-means, as in published
    results.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import normalized_mutual_info_score

    groups = len(np.unique(labels))
    if groups < 2:
        return float("nan")
    options = {"n_init": 1, "max_iter": 30, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        if len(labels) <= 20_000:
            clusters = KMeans(groups, **options).fit_predict(features)
        else:
            clusters = MiniBatchKMeans(groups, batch_size=4096, **options).fit_predict(features)
    return float(normalized_mutual_info_score(labels, clusters))
