"""SMOTE (Chawla et al., JAIR 2002): over-sampling of rare classes by interpolation, of pixels or features.

A synthetic example is x + u (x' - x), where x is an image of a rare class, x' one of its k nearest neighbours of the
same class, and u is uniform in [0, 1). SMOTE over-samples every class to the size N_max of the largest, so the share
1 - N_k / N_max of a class is synthetic. Here batches are sampled class-balanced, and this share of each class's images
is replaced by new synthetic ones in every epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.configuration.configs import read_config, without_private
from ltr.configuration.own_choices import changes, own_choice, own_node
from ltr.configuration.targets import instantiate
from ltr.data.batch import Batch, to_device
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.methods.core.class_shares import check_balanced_sampler
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Computation, Method, NetworkSpec, Stage, StageOutput
from ltr.methods.core.step_data import Step, augment_images, step_of
from ltr.methods.decoupling.options import SmoteOptions, Space
from ltr.methods.decoupling.representation import network_of
from ltr.methods.decoupling.retrained import SecondStage
from ltr.methods.erm import plain_representation
from ltr.randomness import derive_seed, uniforms

_ROWS = 1024  # rows of a block of the distance matrix
_KEEP, _NEIGHBOUR, _WEIGHT = range(3)
_SYNTHETIC = "SMOTE replaces images of rare classes by synthetic ones"


# -- neighbours ------------------------------------------------------------------------------------------------------


@named("computation/neighbours")
def neighbours(computation: Computation, *, k: int, space: Space) -> dict[str, np.ndarray]:
    """Find the nearest training images of the same class, as the stage ``neighbours``.

    Args:
        computation: its parent is ``representation`` if ``space`` is ``feature``.
        k: number of neighbours.
        space: ``pixel`` or ``feature``, where Euclidean distances are measured, without augmentation.

    Returns:
        ``neighbours`` int32 [len(source), k]: source indices, the nearest first; -1 if a class has fewer images, and
        for images outside the training split.
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
            nearest = nearest_neighbours(all_points[members].float(), min(k, len(members) - 1))
            neighbour_indices[all_indices[members], : nearest.shape[1]] = all_indices[members][nearest].int()
    return {"neighbours": neighbour_indices.cpu().numpy()}


def nearest_neighbours(points: Tensor, k: int) -> Tensor:
    """Return the k < n nearest other rows of each row of [n, D], the nearest first, int64 [n, k]."""
    squares = points.square().sum(1)
    blocks = []
    for first in range(0, len(points), _ROWS):
        rows = points[first : first + _ROWS]
        distance = squares - 2 * rows @ points.T  # up to a constant per row
        distance[torch.arange(len(rows)), torch.arange(first, first + len(rows))] = torch.inf
        blocks.append(distance.topk(k, largest=False).indices)
    return torch.cat(blocks)


# -- images to replace -----------------------------------------------------------------------------------------------


def choose_partners(
    labels: np.ndarray, class_counts: np.ndarray, neighbours: np.ndarray, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample the images of a batch to replace, and a neighbour and an interpolation weight for each.

    Args:
        labels: int64 [B].
        class_counts: int64 [C].
        neighbours: neighbours of the batch's images, [B, k]; -1 for none.
        draws: uniform random numbers in [0, 1), float64 [B, 3]. Columns: an image is kept if below N_k / N_max; choice
            of the neighbour; weight of the neighbour.

    Returns:
        Rows of the batch int64 [S], neighbours [S] and weights of the neighbours float64 [S]. An image without
        neighbours is kept.
    """
    counts = np.asarray(class_counts)
    neighbour_counts = (neighbours >= 0).sum(1)
    rows = np.flatnonzero((draws[:, _KEEP] >= counts[labels] / counts.max()) & (neighbour_counts > 0))
    columns = (draws[rows, _NEIGHBOUR] * neighbour_counts[rows]).astype(np.int64)
    return rows, neighbours[rows, columns].astype(np.int64), draws[rows, _WEIGHT]


class _SmoteNetwork(ImageClassifier):
    """Base class for SMOTE in pixels and in features; logs the share of replaced images as ``slots``."""

    _neighbours: np.ndarray | None = None

    def set_neighbours(self, parents: Mapping[str, StageOutput] | None) -> None:
        self._neighbours = parents["neighbours"].arrays["neighbours"] if parents else None
        self.first_epoch = instantiate(self.settings.sampler).start_epoch(self.settings.epochs)
        self.is_interpolating = False

    @property
    def graph_obstacle(self) -> str | None:  # type: ignore[override]
        return "SMOTE chooses on the host which images of a batch it replaces" if self.is_interpolating else None

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self.is_interpolating = epoch >= self.first_epoch

    @property
    def data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def partners(self, step: Step, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return `choose_partners` for this process's images of a step, with source indices [b]."""
        assert self._neighbours is not None
        seed = derive_seed(self.seed, self.role, "smote", self.current_epoch)
        draws = uniforms(seed, step.local_positions, 3)
        counts = np.asarray(self.dataset_info.class_counts)
        return choose_partners(step.local_labels, counts, self._neighbours[indices], draws)


@named("network/smote")
class PixelSmote(_SmoteNetwork):
    """Network trained on batches in which images of rare classes are interpolated and then augmented.

    Args:
        spec: see `NetworkSpec`; its parent is ``neighbours``.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        self.set_neighbours(spec.parents)

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        images, share = batch.images, 0.0
        if self.is_interpolating:
            step = step_of(self.data, self.current_epoch, batch_index, batch)
            images, share = self.interpolate_images(
                batch, step, self.data.indices_of_step(self.current_epoch, batch_index)
            )
        outcome: dict[str, Any] = super().training_step(batch._replace(images=images), batch_index)
        return {**outcome, "logs": {**outcome.get("logs", {}), "slots": torch.full((), share, device=images.device)}}

    def interpolate_images(self, batch: Batch, step: Step, indices: np.ndarray) -> tuple[Tensor, float]:
        """Return the batch's images, uint8, some replaced by synthetic ones, and the share of synthetic ones."""
        rows, partners, weights = self.partners(step, indices)
        if not len(rows):
            return batch.images, 0.0
        device = batch.images.device
        first, second = (
            self.data.images.take(to_device(image_indices, device)).float()
            for image_indices in (indices[rows], partners)
        )
        weight = to_device(weights.astype(np.float32), device).view(-1, 1, 1, 1)
        synthetic = torch.lerp(first, second, weight).round_().to(torch.uint8)
        seed = derive_seed(self.seed, self.role, "smote augment", self.current_epoch)
        labels, positions = step.local_labels[rows], step.local_positions[rows]
        images = batch.images.clone()
        images[to_device(rows, device)] = augment_images(
            self.data.augment, synthetic, labels, seed=seed, positions=positions
        )
        return images, len(rows) / len(images)


@named("network/feature_smote")
class FeatureSmote(_SmoteNetwork, SecondStage):
    """New classifier on frozen features, with interpolated features of rare classes.

    Args:
        spec: see `NetworkSpec`; its parents are ``representation`` and ``neighbours``.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec, freeze_bn_stats=True, features="cached")
        self.options = {}
        self.set_neighbours(spec.parents)

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        features, share = self.batch_features(batch), 0.0
        if self.is_interpolating:
            step = step_of(self.data, self.current_epoch, batch_index, batch)
            indices = self.data.indices_of_step(self.current_epoch, batch_index)
            rows, partners, weights = self.partners(step, indices)
            share = len(rows) / len(features)
            if len(rows):
                features = self.interpolate_features(features, rows, partners, weights)
        logits = self.head(features)
        return {
            "loss": self.loss(logits, batch.labels, batch.mix),
            "correct": (logits.detach().argmax(1) == batch.labels).sum(),
            "logs": {"slots": torch.full((), share, device=features.device)},
        }

    def interpolate_features(
        self, features: Tensor, rows: np.ndarray, partners: np.ndarray, weights: np.ndarray
    ) -> Tensor:
        """Interpolate ``rows`` of features [B, D] towards the cached features of the images ``partners``."""
        assert self._cache is not None
        row_indices = to_device(rows, features.device)
        partner_features = self._cache.features(to_device(partners, features.device))
        weight = to_device(weights.astype(np.float32), features.device)[:, None]
        mixed = features.clone()
        mixed[row_indices] = torch.lerp(features[row_indices].float(), partner_features.float(), weight).to(
            features.dtype
        )
        return mixed


# -- the method ------------------------------------------------------------------------------------------------------


@named("method/smote")
class Smote(Method):
    """SMOTE in pixels or in features.

    In pixels the stages are ``neighbours`` and ``classifier`` (settings: top level). In features they are ERM's plain
    ``representation``, ``neighbours`` and a new ``classifier`` (settings: ``method.classifier``).

    Raises:
        ConfigError: interpolation of pixels of image files; an augmentation that mixes images; settings of networks
            that ``space`` does not train; a sampler that does not end class-balanced.
    """

    Options = SmoteOptions
    options: SmoteOptions
    provides = ("logits", "features")

    @property
    def takes_stored_features(self) -> bool:  # type: ignore[override]
        return self.options.space == "feature"

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        near = Stage(
            "neighbours",
            "neighbours",
            settings,
            compute=neighbours,
            options={"k": self.options.k, "space": self.options.space},
        )
        if self.options.space == "pixel":
            _check_pixels(settings)
            self._check_unread_classifier(settings)
            check_balanced_sampler(settings, dataset_info, "sampler", _SYNTHETIC)
            return [near, Stage("classifier", "smote", settings, module=PixelSmote, parents=(near.name,))]
        base = plain_representation(settings, dataset_info, "representation")
        _check_unread_choices(settings, base.settings)
        near = replace(near, settings=base.settings, parents=(base.name,))
        second = base.settings.for_stage(self.options.classifier, "method.classifier", optional=())
        check_balanced_sampler(second, dataset_info, "method.classifier.sampler", _SYNTHETIC)
        second = second.replaced(head=settings.head, augment=without_private(read_config("augment/none")))
        return [base, near, Stage("classifier", "smote", second, module=FeatureSmote, parents=(base.name, near.name))]

    def _check_unread_classifier(self, settings: Settings) -> None:
        """Refuse settings of ``method.classifier``, which `space=pixel` does not train."""
        changed = changes("method.classifier", self.options.classifier, own_node("smote", "classifier"), vars(settings))
        if changed:
            raise ConfigError(
                f"{', '.join(changed)}: only method.space=feature trains a classifier of its own, and method.space="
                "pixel trains one network with the settings of the top level (loss=NAME, trainer.max_epochs=N). Leave "
                "method.classifier out, or set method.space=feature"
            )


def _check_unread_choices(settings: Settings, plain: Settings) -> None:
    """Refuse a sampler and a loss of the top level, for which `space=feature` takes the plain ones."""
    changed: list[str] = []
    for group in ("sampler", "loss"):
        config = getattr(settings, group)
        if config != getattr(plain, group):
            changed += changes(group, config, own_choice(group, "smote"), vars(settings))
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: method.space=feature starts from a plain network (cross-entropy and instance "
            "sampling), and nothing reads the top level's. Set method.classifier.sampler and method.classifier.loss "
            "for its classifier, or method.space=pixel"
        )


def _check_pixels(settings: Settings) -> None:
    if settings.augment.get("files"):
        raise ConfigError(
            "method=smote with method.space=pixel interpolates whole images, which must be in memory and of equal "
            "size; for image files use method.space=feature"
        )
    if settings.augment.get("mix"):
        raise ConfigError(
            f"method=smote with augment.mix={settings.augment['mix']}: images would be interpolated twice, the second "
            "time between classes. Use an augmentation that does not mix, such as augment=cifar"
        )
