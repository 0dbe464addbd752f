"""Base classes for the methods whose classifier is a set of points: RPL, RPL++, ARPL and GCPL.

They differ in their head (`ltr.methods.reciprocal_points.heads`) and in their loss terms (`losses`); the training step,
the scores and the stages are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltr.configuration.targets import class_name, locate
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.evaluation.scores import Scores
from ltr.identity import named
from ltr.losses.classification import CrossEntropy
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, NetworkSpec, Stage, StageOutput
from ltr.methods.reciprocal_points.feature_history import WIDTH, FeatureHistory, embed
from ltr.methods.reciprocal_points.heads import ClassPoints, PointDistances, ReciprocalPoints
from ltr.methods.reciprocal_points.options import PointOptions, Reduction
from ltr.models.heads import head_kind
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed

WEIGHT_KEYS = {
    "open_space_term": "open_weight",
    "margin_term": "open_weight",
    "prototype_term": "prototype_weight",
}


@named("network/points")
class PointNetwork(ImageClassifier):
    """A backbone whose head is a set of class points; a subclass gives the head and the loss terms.

    Args:
        spec: see `NetworkSpec`. The head's config is not used.
        feature_dim: width of a linear layer between backbone and points; None: no such layer.
        reduction: ``mean`` or ``sum`` of the images' losses.
        weights: weights of the loss terms beside ``class_term``.
    """

    head: Any
    head_type: type[ClassPoints]

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        feature_dim: int | None = None,
        reduction: Reduction = "mean",
        weights: Mapping[str, float],
        **points: Any,
    ) -> None:
        super().__init__(spec)
        self.options = {"feature_dim": feature_dim, "reduction": reduction, "weights": dict(weights), **points}
        self.reduction = reduction
        self.loss_is_sum = reduction == "sum"
        self.weights = {"class_term": 1.0, **weights}
        width = feature_dim or self.num_features
        self.embedding: nn.Module | None = None
        with seeded_construction(derive_seed(spec.seed, spec.role, "points")):
            if feature_dim is not None:
                self.embedding = nn.Linear(self.num_features, feature_dim)
            self.head = self.build_points(width, points)
        self.history: FeatureHistory | None = None
        if width == WIDTH and spec.settings.ema_decay is None:  # averaged weights would average the snapshots, too
            images = sum(spec.dataset_info.class_counts)
            self.history = FeatureHistory(self.head.points, images, spec.settings.epochs, spec.settings.batch_size)

    @property
    def graph_obstacle(self) -> str | None:  # type: ignore[override]
        return None if self.history is None else "the figure of features of width 2 records chosen batches on the host"

    def build_points(self, width: int, points: dict[str, Any]) -> ClassPoints:
        """Return the head for features of a width."""
        return self.head_type(width, self.dataset_info.num_classes, **points)

    def terms(self, measured: PointDistances, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss terms by name, ``class_term`` among them, each [B]."""
        raise NotImplementedError

    def features(self, unit: Tensor) -> Tensor:
        features = super().features(unit)
        return features if self.embedding is None else self.embedding(features)

    def knownness(self, features: Tensor, measured: PointDistances, logits: Tensor) -> Tensor:
        """Return the distance score [B], higher is more known."""
        return self.head.knownness(measured, logits)

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Scores]:
        """Return logits for the softmax scorers, and the distance score beside them."""
        features = self.features(self.to_unit(images)).float()
        measured = self.head.measure(features)
        logits = self.head.logits(measured)
        return {"default": Scores(logits, features, self.knownness(features, measured, logits))}

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Return the weighted sum of the terms; each of them is logged."""
        features = self.batch_features(batch)
        outcome, logits = self.outcome(features, batch, batch_index)
        return self.with_extras(outcome, batch, features, logits)

    def outcome(
        self, features: Tensor, batch: Batch, batch_index: int, *, is_first_pass: bool = True
    ) -> tuple[dict[str, Any], Tensor]:
        """Return a step's outcome and the logits [B, C] from the features of its images.

        Args:
            is_first_pass: False for a further pass over the batch, after the classifier has learnt from it.
        """
        measured = self.head.measure(features)
        if self.current_epoch == 0 and batch_index == 0 and is_first_pass:
            self.start(measured, batch.labels)
        terms = self.terms(measured, features, batch.labels)
        if batch.mix is not None:
            share = batch.mix.weight
            other = self.terms(measured, features, batch.mix.labels)
            terms = {name: share * term + (1 - share) * other[name] for name, term in terms.items()}
        means = {name: term.mean() for name, term in terms.items()}
        loss = torch.stack([self.weights[name] * mean for name, mean in means.items()]).sum()
        if self.reduction == "sum":  # over all processes, whose gradients are averaged
            loss = loss * (len(features) * (self._trainer.world_size if self._trainer is not None else 1))
        logits = self.head.logits(measured)
        if self.history is not None:
            self.keep(features, batch, batch_index)
        correct = (logits.detach().argmax(1) == batch.labels).sum()
        return {"loss": loss, "correct": correct, "logs": {k: v.detach() for k, v in means.items()}}, logits

    def start(self, measured: PointDistances, labels: Tensor) -> None:
        """Prepare the head in the first step of a training, before the loss; a hook for subclasses."""

    def keep(self, features: Tensor, batch: Batch, batch_index: int) -> None:
        """Record snapshots for the figure."""
        assert self.history is not None
        radius = self.head.radius if isinstance(self.head, ReciprocalPoints) else None
        self.history.record(self.current_epoch, batch_index, features, batch.labels, self.head.points, radius)

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {} if self.embedding is None else {"embedding": self.embedding}

    def as_classifier(self) -> ImageClassifier:
        """Return the same backbone with the linear classifier that has the same softmax, for decoupled methods.

        Raises:
            ConfigError: several prototypes per class, for which there is no such classifier.
        """
        linear = self.head.linear()
        if linear is None:
            raise ConfigError(
                "method.representation.num_points is above 1: several prototypes per class are not a linear "
                "classifier, from which a decoupled method starts. Set method.representation.num_points=1"
            )
        weight, bias = linear
        if isinstance(self.embedding, nn.Linear):
            weight, bias = weight @ self.embedding.weight, bias + weight @ self.embedding.bias
        head = {"_target_": "ltr.models.heads.LinearHead", "bias": True}
        plain = ImageClassifier(self.spec.replaced(settings=self.settings.replaced(head=head, extras=())))
        plain.take_backbone(self)
        plain.head.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
        return plain.train(self.training)

    def artifacts(self) -> dict[str, Any]:
        """Return the points, and for features of width 2 the snapshots of `FeatureHistory`."""
        arrays = {"points": self.head.points.detach().cpu().numpy()}
        if isinstance(self.head, ReciprocalPoints):
            arrays["radius"] = self.head.radius.detach().cpu().numpy()
            arrays["radius_divisor"] = np.int64(self.head.open_divisor)  # R bounds squared distances over it
        return arrays if self.history is None else arrays | self.history.arrays()


class PointMethod(Method):
    """Base class of methods with one trained stage, ``representation``, whose draws and backbone start as ERM's.

    For features of width 2 a computed stage ``embedding`` follows, the data of a figure.

    Attributes:
        terms: loss terms beside the class term, each weighted by the option that `WEIGHT_KEYS` names.

    Raises:
        ConfigError: a value outside its range.
    """

    provides = ("logits", "features", "knownness")
    accepts_extras = True
    takes_stored_features = True
    module: type[PointNetwork]
    terms: tuple[str, ...]
    options: PointOptions

    def network_options(self) -> dict[str, Any]:
        """Return the options of the network, with the weights of the loss terms as one mapping ``weights``."""
        weight_of_term = {term: WEIGHT_KEYS[term] for term in self.terms}
        options = {name: value for name, value in self.options.items() if name not in weight_of_term.values()}
        return {**options, "weights": {term: self.options[name] for term, name in weight_of_term.items()}}

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        check_loss_and_head(settings, type(self).__name__)
        trained = Stage(
            "representation", "representation", settings, module=self.module, options=self.network_options()
        )
        if self.options.feature_dim != WIDTH:
            return [trained]
        parts = ["test", "unknown"] if "open_set" in dataset_info.protocols else ["test"]
        embedding = Stage(
            "embedding",
            "embedding",
            settings.replaced(extras=()),
            compute=embed,
            parents=("representation",),
            options={"parts": parts},
            reads=tuple(parts),
        )
        return [trained, embedding]

    def predictor(self, outputs: Mapping[str, StageOutput]) -> Any:
        return outputs["representation"].load()


def check_loss_and_head(settings: Settings, name: str) -> None:
    """Refuse any loss but cross-entropy and any head but the default, because the method has its own.

    Args:
        name: the method, for the message.

    Raises:
        ConfigError: the loss or the head was changed.
    """
    if locate(settings.loss["_target_"], "loss") is not CrossEntropy:
        raise ConfigError(
            f"loss={class_name(settings.loss)}: {name} has its own loss over distances, for which class weights, "
            "margins and priors are not defined. Leave loss=cross_entropy; a balanced sampler works"
        )
    if head_kind(settings.head) != "linear":
        raise ConfigError(
            f"head={class_name(settings.head)}: the head of {name} is its points, and the head's config is not used. "
            "Leave head=linear"
        )
