"""Metric learning: a network whose embeddings are close for images of one class, evaluated by retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.configuration.targets import class_name, instantiate, locate
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.evaluation.scores import Scores
from ltr.identity import named
from ltr.losses.relational import squared_distances
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, Stage
from ltr.models.heads import head_kind


@named("network/embedding")
class EmbeddingNetwork(ImageClassifier):
    """Network with an embedding head and a loss of embeddings, without class logits."""

    embeds = True
    distributed_numerics_version = 2  # 1: losses took the images of all processes in another order

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Return the loss of a batch; ``correct`` counts images with a nearest neighbour of their class."""
        embeddings = self.head(self.batch_features(batch))
        loss = self.loss(embeddings, batch.labels, batch.mix)
        return {"loss": loss, "correct": nearest_alike(embeddings, batch.labels).sum()}

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Scores]:
        """Return embeddings [B, width] as ``features``; the logits have no columns."""
        embeddings = self.head(self.features(self.to_unit(images))).float()
        return {"default": Scores(embeddings.new_zeros(len(embeddings), 0), embeddings)}


@torch.no_grad()
def nearest_alike(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Return whether the nearest other image of the batch has the same label, bool [B]; False without another image."""
    distances = squared_distances(embeddings.detach()).fill_diagonal_(torch.inf)
    return (labels[distances.argmin(1)] == labels) & distances.amin(1).isfinite()


@named("method/triplet")
class Triplet(Method):
    """Metric learning in one stage, ``embedding``, with the settings of the top level of the configuration."""

    provides = ("features",)
    takes_stored_features = True

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        check_metric(settings, dataset_info, "")
        return [Stage("embedding", "embedding", settings, module=EmbeddingNetwork)]


@named("method/prototypical")
class Prototypical(Triplet):
    """Prototypical networks: one stage, ``embedding``, trained by few-shot episodes (Snell et al., NeurIPS 2017)."""


def check_metric(settings: Settings, dataset_info: DatasetInfo, where: str) -> None:
    """Refuse settings with which a network of embeddings cannot be trained.

    Args:
        where: prefix of the keys in messages, ending with a dot, such as ``method.teacher.``.

    Raises:
        ConfigError: a head or a loss of class scores, batches too small, classes of too few images.
    """
    if head_kind(settings.head, f"{where}head") != "embedding":
        raise ConfigError(
            f"{where}head is {class_name(settings.head)}: metric learning needs embeddings. Use {where}head=embedding"
        )
    if getattr(locate(settings.loss["_target_"], f"{where}loss"), "of", "") != "embedding":
        raise ConfigError(
            f"{where}loss is {class_name(settings.loss)}: metric learning needs a loss of embeddings. Use "
            f"{where}loss=triplet"
        )
    if settings.batch_size < 3:
        raise ConfigError(f"batch_size={settings.batch_size}: a triplet needs 3 images. Set at least 3")
    sampler = check_sampler(settings.sampler, dataset_info, settings.epochs)
    check_batches = getattr(instantiate(settings.loss, dataset_info.class_counts), "check_batches", None)
    if check_batches is not None:
        check_batches(sampler, settings.batch_size, int(np.count_nonzero(dataset_info.class_counts)))


def check_sampler(config: Mapping[str, Any], dataset_info: DatasetInfo, epochs: int) -> Any:
    """Return the sampler of a config; raise its ConfigError if it cannot sample from these classes."""
    sampler = instantiate(config)
    sampler.class_probabilities(np.asarray(dataset_info.class_counts), 0, epochs)
    return sampler
