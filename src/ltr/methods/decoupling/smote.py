"""SMOTE: rare classes are filled up with points between their images (Chawla et al., JAIR 2002), in pixels or features.

A synthetic example is x + u (x' - x), with x an image of a rare class, x' one of its k nearest neighbours of the same
class, and u uniform in [0, 1). Filling every class of N_k images up to the largest, N_max, means that of a class's
examples the share 1 - N_k / N_max is synthetic. Here batches are drawn class-balanced and just that share of each
class's images is replaced, anew in every epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.configuration.configs import read_config, without_private
from ltr.configuration.targets import instantiate
from ltr.data.batch import Batch, to_device
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import Computation, DatasetInfo, Method, NetworkSpec, Settings, Stage, StageOutput
from ltr.methods.core.step_data import Step, augmented, step_of
from ltr.methods.decoupling.options import SmoteOptions, Space
from ltr.methods.decoupling.representation import network_of
from ltr.methods.decoupling.retrained import SecondStage
from ltr.methods.m2m.method import plain_representation
from ltr.randomness import derive_seed, uniforms

_ROWS = 1024  # of a block of distances
_KEEP, _NEIGHBOUR, _WEIGHT = range(3)


# -- neighbours ------------------------------------------------------------------------------------------------------


@named("computation/neighbours")
def neighbours(computation: Computation, *, k: int, space: Space) -> dict[str, np.ndarray]:
    """Find the nearest training images of the same class; the work of the stage ``neighbours``.

    Args:
        computation: with the trained ``representation`` for features.
        k: how many.
        space: Euclidean distance between un-augmented pixels, or between features.

    Returns:
        ``neighbours`` int32 [len(source), k]: source indices, the nearest first; -1 where a class has no more, and for
        images that are not trained on.
    """
    network = network_of(computation.parents).to(computation.device) if space == "feature" else None
    points, indices, labels = [], [], []
    with torch.no_grad(), computation.autocast():
        for batch in computation.loader("train"):
            if network is None:
                points.append(batch.images.flatten(1))
            else:
                points.append(network.features(network.to_unit(batch.images)).float())
            indices.append(batch.indices)
            labels.append(batch.labels)
    neighbour_indices = torch.full((len(computation.source), k), -1, dtype=torch.int32, device=computation.device)
    all_points, all_indices, all_labels = torch.cat(points), torch.cat(indices), torch.cat(labels)
    for label in range(computation.dataset_info.num_classes):
        members = (all_labels == label).nonzero()[:, 0]
        if len(members) > 1:
            nearest = nearest_others(all_points[members].float(), min(k, len(members) - 1))
            neighbour_indices[all_indices[members], : nearest.shape[1]] = all_indices[members][nearest].int()
    return {"neighbours": neighbour_indices.cpu().numpy()}


def nearest_others(points: Tensor, k: int) -> Tensor:
    """Return the indices int64 [n, k] of the k < n nearest other rows of each of [n, D], in order."""
    squares = points.square().sum(1)
    blocks = []
    for first in range(0, len(points), _ROWS):
        rows = points[first : first + _ROWS]
        distance = squares - 2 * rows @ points.T  # but for the row's own square
        distance[torch.arange(len(rows)), torch.arange(first, first + len(rows))] = torch.inf
        blocks.append(distance.topk(k, largest=False).indices)
    return torch.cat(blocks)


# -- which images of a step ------------------------------------------------------------------------------------------


def choose_partners(
    labels: np.ndarray, class_counts: np.ndarray, neighbours: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose the images to replace, their partners and the weights of the partners.

    Args:
        labels: int64 [B].
        class_counts: int64 [C].
        neighbours: [B, k], of the batch's images; -1 for none.
        draws: uniform in [0, 1), float64 [B, 3]; the columns decide, in order, whether an image is kept (below
            N_k / N_max), which of its neighbours it is interpolated with, and how far towards it.

    Returns:
        Rows of the batch int64 [S], neighbours [S] and weights of the neighbours float64 [S]. An image without a
        neighbour (the only one of its class) stays as it is.
    """
    counts = np.asarray(class_counts)
    known = (neighbours >= 0).sum(1)
    rows = np.flatnonzero((draws[:, _KEEP] >= counts[labels] / counts.max()) & (known > 0))
    which = (draws[rows, _NEIGHBOUR] * known[rows]).astype(np.int64)
    return rows, neighbours[rows, which].astype(np.int64), draws[rows, _WEIGHT]


class _Interpolating(ImageClassifier):
    """Base class for both spaces: choice of a step's images and partners; logs ``slots``, the share of these images."""

    _neighbours: np.ndarray | None = None

    def take_neighbours(self, parents: Mapping[str, StageOutput] | None) -> None:
        self._neighbours = parents["neighbours"].arrays["neighbours"] if parents else None
        self.first_epoch = instantiate(self.settings.sampler).start_epoch(self.settings.epochs)
        self.filling = False

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self.filling = epoch >= self.first_epoch

    @property
    def data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def partners(self, step: Step, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`choose_partners` for this process's images of a step, source indices [b]."""
        assert self._neighbours is not None
        seed = derive_seed(self.seed, self.role, "smote", self.current_epoch)
        draws = uniforms(seed, step.positions[step.rank :: step.world_size], 3)
        labels = step.labels[step.rank :: step.world_size]
        return choose_partners(labels, np.asarray(self.dataset_info.class_counts), self._neighbours[indices], draws)


@named("network/smote")
class PixelSmote(_Interpolating):
    """A network trained on batches in which images of rare classes are interpolated, then augmented.

    Args:
        spec: see `NetworkSpec`; its parent is ``neighbours``.
    """

    def __init__(
        self,
        spec: NetworkSpec,
    ) -> None:
        super().__init__(spec)
        self.take_neighbours(spec.parents)

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        images, share = batch.images, 0.0
        if self.filling:
            step = step_of(self.data, self.current_epoch, batch_index, batch)
            images, share = self.filled(batch, step, self.data.indices_of_step(self.current_epoch, batch_index))
        outcome: dict[str, Any] = super().training_step(batch._replace(images=images), batch_index)
        return {**outcome, "logs": {**outcome.get("logs", {}), "slots": torch.full((), share, device=images.device)}}

    def filled(self, batch: Batch, step: Step, indices: np.ndarray) -> tuple[Tensor, float]:
        """Return the batch's images uint8 with those that are replaced, and their share."""
        rows, others, weights = self.partners(step, indices)
        if not len(rows):
            return batch.images, 0.0
        device = batch.images.device
        first, second = (self.data.images.take(to_device(which, device)).float() for which in (indices[rows], others))
        weight = to_device(weights.astype(np.float32), device).view(-1, 1, 1, 1)
        between = torch.lerp(first, second, weight).round_().to(torch.uint8)
        positions = step.positions[step.rank :: step.world_size][rows]
        seed = derive_seed(self.seed, self.role, "smote augment", self.current_epoch)
        images = batch.images.clone()
        labels = step.labels[step.rank :: step.world_size][rows]
        images[to_device(rows, device)] = augmented(self.data.augment, between, labels, seed=seed, positions=positions)
        return images, len(rows) / len(images)


@named("network/feature_smote")
class FeatureSmote(_Interpolating, SecondStage):
    """A new classifier on the frozen representation's features, of which those of rare classes are interpolated.

    Args:
        spec: see `NetworkSpec`; its parents are ``representation`` and ``neighbours``.
    """

    def __init__(
        self,
        spec: NetworkSpec,
    ) -> None:
        super().__init__(spec, freeze_bn_stats=True, features="cached")
        self.options = {}
        self.take_neighbours(spec.parents)

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        features, share = self.batch_features(batch), 0.0
        if self.filling:
            step = step_of(self.data, self.current_epoch, batch_index, batch)
            indices = self.data.indices_of_step(self.current_epoch, batch_index)
            rows, others, weights = self.partners(step, indices)
            share = len(rows) / len(features)
            if len(rows):
                features = self.between(features, rows, others, weights)
        logits = self.head(features)
        return {
            "loss": self.loss(logits, batch.labels, batch.mix),
            "correct": (logits.detach().argmax(1) == batch.labels).sum(),
            "logs": {"slots": torch.full((), share, device=features.device)},
        }

    def between(self, features: Tensor, rows: np.ndarray, others: np.ndarray, weights: np.ndarray) -> Tensor:
        """Return features [B, D], those of ``rows`` moved towards the cached ones of the source indices ``others``."""
        assert self._cache is not None
        chosen = to_device(rows, features.device)
        theirs = self._cache.features(to_device(others, features.device))
        weight = to_device(weights.astype(np.float32), features.device)[:, None]
        mixed = features.clone()
        mixed[chosen] = torch.lerp(features[chosen].float(), theirs.float(), weight).to(features.dtype)
        return mixed


# -- the method ------------------------------------------------------------------------------------------------------


@named("method/smote")
class Smote(Method):
    """In pixels: ``neighbours``, then ``classifier``, which the top level describes. In features: ERM's plain
    ``representation``, ``neighbours``, and a new ``classifier``, which ``method.classifier`` describes.

    Args:
        options: the fields of `SmoteOptions`.

    Raises:
        ConfigError: pixels of image files; images that are mixed.
    """

    Options = SmoteOptions
    options: SmoteOptions
    provides = ("logits", "features")

    @property
    def takes_stored_features(self) -> bool:  # type: ignore[override]
        return self.options.space == "feature"

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        options = {"k": self.options.k, "space": self.options.space}
        plain = without_private(read_config("augment/none"))
        if self.options.space == "feature":
            base = plain_representation(settings, dataset_info, "representation")
            last_settings = base.settings.for_stage(self.options.classifier, "method.classifier", optional=())
            near = Stage(
                "neighbours", "neighbours", base.settings, compute=neighbours, parents=(base.name,), options=options
            )
            last_settings = last_settings.replaced(augment=plain)
            last = Stage("classifier", "smote", last_settings, module=FeatureSmote, parents=(base.name, near.name))
            return [base, near, last]
        _check_pixels(settings)
        near = Stage("neighbours", "neighbours", settings, compute=neighbours, options=options)
        return [near, Stage("classifier", "smote", settings, module=PixelSmote, parents=(near.name,))]


def _check_pixels(settings: Settings) -> None:
    if settings.augment.get("files"):
        raise ConfigError(
            "method=smote with method.space=pixel interpolates whole images, which needs them in memory and of one "
            "size; for images that are read from files use method.space=feature"
        )
    if settings.augment.get("mix"):
        raise ConfigError(
            f"method=smote with augment.mix={settings.augment['mix']}: images would be interpolated twice, the second "
            "time between classes. Use an augmentation that does not mix, such as augment=cifar"
        )
