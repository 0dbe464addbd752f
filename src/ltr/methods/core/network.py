"""The LightningModule of one stage: backbone, head, loss, optimiser and schedule.

A method with a different training step overrides `training_step` or `predict`. Progress bars, checkpoints and the
guard against non-finite losses are in ``ltr.runs``, which does not depend on methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ltr.configuration.targets import class_name, instantiate, locate
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.evaluation.protocol import Protocol
from ltr.evaluation.scores import Scores
from ltr.identity import named
from ltr.methods.core.delta import Base, base_of
from ltr.methods.core.stage import NetworkSpec
from ltr.methods.core.step_data import seed_step
from ltr.models.backbone_output import BackboneOutput, local_features
from ltr.models.backbones import config_for_image_size
from ltr.models.narrow_maps import guard_narrow_maps
from ltr.models.pooling import Pool
from ltr.models.standardization import Standardization
from ltr.models.tuning import Tuning, hold_frozen_parts
from ltr.models.weights import seeded_construction
from ltr.optim.schedules import ReleasedCosine
from ltr.randomness import derive_seed


def _for_embeddings(key: str, config: Mapping[str, Any]) -> ConfigError:
    """Return the error for a head or a loss of embeddings in a network of class scores."""
    return ConfigError(
        f"{key}={class_name(config)}: it is for embeddings, and this method learns class scores. Use method=triplet, "
        f"prototypical or rkd; or {key}={'linear' if key == 'head' else 'cross_entropy'}"
    )


@named("network/image_classifier")
class ImageClassifier(pl.LightningModule):
    """Image classifier of a backbone and a head, with its loss, built from settings.

    Args:
        spec: settings, data, seed, role and parents of the stage.
        logit_counts: number of training images of each logit, if logits are not the classes; the loss uses them.
        head_rows: outputs of the head, if it does not compute all logits.
        background: index of the constant logit (see `ltr.losses.base.ClassificationLoss`).
    """

    numerics_version = 1  # increment it when training computes something else: cached stages are then not reused
    distributed_numerics_version = 1  # the same for what only a training in several processes computes differently
    headline = "default"
    deferred_options: tuple[str, ...] = ()  # fractions of the training after which something begins
    rows_per_image = 1  # rows that the network makes of each image of a training batch
    loss_is_sum = False  # the loss is the sum over a batch's images, not their mean
    is_solvable = True  # whether the minimum of the loss defines the head, so that L-BFGS may find it
    graph_obstacle: str | None = None  # why compile=graph cannot record a training step; None if it can
    processes_obstacle: str | None = None  # why several processes cannot train it; None if they can
    embeds = False  # whether the head computes embeddings instead of class logits

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        logit_counts: Sequence[int] | None = None,
        head_rows: int | None = None,
        background: int | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings = spec.settings
        self.dataset_info = dataset_info = spec.dataset_info
        self.seed, self.role = seed, role = spec.seed, spec.role
        self.options: Mapping[str, Any] = {}  # the subclass's options, as plain data
        channels = dataset_info.image_shape[0]
        counts = dataset_info.class_counts if logit_counts is None else tuple(logit_counts)
        background_arguments = () if background is None else (background,)
        if not self.embeds and getattr(locate(str(settings.loss["_target_"]), "loss"), "of", "") == "embedding":
            raise _for_embeddings("loss", settings.loss)
        self.loss = instantiate(settings.loss, counts, *background_arguments)
        with seeded_construction(derive_seed(seed, role, "init")):
            self.backbone = instantiate(config_for_image_size(settings.backbone, dataset_info.image_shape), channels)
            self.output = BackboneOutput.of(settings.features)
            self.pool: Pool | None = None  # of the backbone's map or tokens
            if not self.output.is_vector:
                assert settings.features is not None
                with seeded_construction(derive_seed(seed, role, "pool")):
                    width = self.output.width(self.backbone, dataset_info.image_shape)
                    self.pool = instantiate(settings.features["pool"], width)
            self.head = instantiate(settings.head, self.num_features, head_rows or len(counts))
        self.tuning: Tuning | None = None
        self.base: Base | None = None  # the frozen part of a tuned backbone
        if settings.tune is not None:
            with seeded_construction(derive_seed(seed, role, "tune")):
                self.tuning = instantiate(settings.tune)
                self.tuning.prepare(self.backbone, dataset_info.image_shape)
            self.base = base_of(self.backbone, settings.backbone)
            hold_frozen_parts(self.backbone)  # Lightning keeps the modes in which modules are when training starts
        if not self.embeds and getattr(self.head, "head_kind", "") == "embedding":
            raise _for_embeddings("head", settings.head)
        self.extras = nn.ModuleDict()
        for number, config in enumerate(settings.extras):
            with seeded_construction(derive_seed(seed, role, "extra", number)):
                name = class_name(config)
                self.extras[name if name not in self.extras else f"{name}{number}"] = instantiate(
                    config, self, dataset_info
                )
        if self.loss.prior_bias is not None and getattr(self.head, "bias", None) is not None:
            self.head.init_bias(self.loss.prior_bias)
        self.standardization: Standardization | None = None
        if settings.features is not None:
            self.backbone.requires_grad_(False)
            if settings.features["standardize"]:
                self.standardization = Standardization(self._standardized_width())
        self.backbone.to(memory_format=torch.channels_last)
        guard_narrow_maps(self.backbone)
        # normalisation as one multiply-add: (x/255 - mean) / std
        mean, std = torch.tensor(dataset_info.mean).view(1, -1, 1, 1), torch.tensor(dataset_info.std).view(1, -1, 1, 1)
        self.register_buffer("_scale", 1.0 / std, persistent=False)
        self.register_buffer("_shift", -mean / std, persistent=False)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            # Lightning sets it about 50 times a step; nn.Module would test each time for a parameter, module or buffer
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.tuning is not None:
            hold_frozen_parts(self.backbone)
        return self

    @property
    def spec(self) -> NetworkSpec:
        """Specification that this network was built from, without its parents."""
        return NetworkSpec(self.settings, self.dataset_info, self.seed, self.role)

    @property
    def num_features(self) -> int:
        """Width D of the features that the head reads."""
        return self.backbone.num_features if self.pool is None else self.pool.num_features

    @property
    def link(self) -> str:
        """Function from logits to probabilities, ``softmax`` or ``sigmoid``, as declared by the loss."""
        return self.loss.link

    # -- pixels to logits ----------------------------------------------------------------------------------------

    def to_unit(self, images: Tensor) -> Tensor:
        """Return pixels in [0, 1] as float32 [B, C, H, W], from uint8 or from floats in [0, 1]."""
        return images if images.is_floating_point() else images.float().mul_(1 / 255)

    def normalise(self, unit: Tensor) -> Tensor:
        """Standardise pixels in [0, 1] channel by channel."""
        return torch.addcmul(self._shift, unit, self._scale)  # type: ignore[arg-type]

    def features(self, unit: Tensor) -> Tensor:
        """Return features [B, D] of images with pixels in [0, 1], or of stored outputs of the backbone.

        Args:
            unit: images [B, C, H, W]; or stored vectors [B, D], or maps or tokens as local features [B, N, D].
        """
        if self.pool is not None:
            output = unit if unit.ndim == 3 else local_features(self.output(self.backbone, self.normalise(unit)))
            return self._pooled(output.float())
        features = unit if unit.ndim == 2 else self.backbone(self.normalise(unit))
        return features if self.standardization is None else self.standardization(features)

    def fit_standardization(self, outputs: Iterable[Tensor]) -> None:
        """Take mean and standard deviation of the backbone's stored outputs of the training images; see `features`.

        Args:
            outputs: float32 [b, D] each, or maps [b, C, H, W] or tokens [b, N, D].
        """
        if self.standardization is None:
            return
        if self.pool is None:
            self.standardization.fit(outputs)
        elif self.pool.reads_standardized:
            self.standardization.fit(local_features(output).flatten(0, 1) for output in outputs)
        else:
            with torch.no_grad():
                self.standardization.fit(self.pool(local_features(output)) for output in outputs)

    def _standardized_width(self) -> int:
        if self.pool is None or not self.pool.reads_standardized:
            return self.num_features
        return self.output.width(self.backbone, self.dataset_info.image_shape)

    def _pooled(self, local: Tensor) -> Tensor:
        """Return the pooled features [B, D] of local features float32 [B, N, D], standardised before or after it."""
        assert self.pool is not None
        if self.standardization is None:
            return self.pool(local)
        if self.pool.reads_standardized:
            return self.pool(self.standardization(local))
        return self.standardization(self.pool(local))

    def take_backbone(self, network: ImageClassifier) -> None:
        """Copy the weights of another network's backbone, its pool, and the standardisation of its features."""
        self.backbone.load_state_dict(network.backbone.state_dict())
        if self.pool is not None and network.pool is not None:
            self.pool.load_state_dict(network.pool.state_dict())
        if self.standardization is not None and network.standardization is not None:
            self.standardization.load_state_dict(network.standardization.state_dict())

    def forward(self, unit: Tensor) -> Tensor:
        """Return logits [B, C] of images with pixels in [0, 1]."""
        return self.head(self.features(unit))

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Scores]:
        """Return the scores of uint8 or [0, 1] images by variant; a subclass may have several variants."""
        features = self.features(self.to_unit(images))
        return {"default": Scores(self.head(features).float(), features.float())}

    @torch.no_grad()
    def predict_headline(self, images: Tensor) -> Scores:
        """Return the scores of the headline variant only, which is cheaper if each variant needs a forward pass."""
        return self.predict(images)[self.headline]

    # -- learning ------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch and the number of correct predictions, which stays on the device.

        A subclass may add ``logs``, a dict of numbers on the device with the same names in every step; their means over
        an epoch are logged as ``train/<name>``.
        """
        features = self.batch_features(batch)
        logits = self.head(features)
        loss = self.loss(logits, batch.labels, batch.mix)
        outcome = {"loss": loss, "correct": (logits.detach().argmax(1) == batch.labels).sum()}
        return self.with_extras(outcome, batch, features, logits)

    def batch_features(self, batch: Batch) -> Tensor:
        """Return features [B, D] of a training batch."""
        return self.features(self.to_unit(batch.images))

    def with_extras(self, outcome: dict[str, Any], batch: Batch, features: Tensor, logits: Tensor) -> dict[str, Any]:
        """Add the terms of ``method.extras``, if there are any, to a step's loss and log each of them."""
        if not self.extras:
            return outcome
        terms = {name: extra(batch, features, logits) for name, extra in self.extras.items()}
        logs = {**outcome.get("logs", {}), **{name: term.detach() for name, term in terms.items()}}
        return {**outcome, "loss": outcome["loss"] + sum(terms.values()), "logs": logs}

    def validation_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Return the scores of the headline variant, which the validation callback evaluates."""
        return {"scores": self.predict_headline(batch.images), "batch": batch}

    def start_epoch(self, epoch: int) -> None:
        """Set the epoch of schedules by epochs, such as deferred class weights; also called when training resumes."""
        self.loss.start_epoch(epoch, self.settings.epochs)

    def on_train_epoch_start(self) -> None:
        self.start_epoch(self.current_epoch)

    def on_train_start(self) -> None:
        self.start_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        # dropout and drop-path use torch's generator: seed it by the batch, so that a resumed run needs no state
        seed_step(derive_seed(self.seed, self.role, "batch", self.current_epoch, batch_index), self.device)

    def parameter_modules(self) -> dict[str, nn.Module]:
        """Return further modules with trained parameters, such as a second head; none by default."""
        return {}

    # -- results ---------------------------------------------------------------------------------------------------

    def artifacts(self) -> dict[str, np.ndarray]:
        """Return the arrays to store with the finished stage; none by default."""
        return {}

    def examples(self, images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
        """Return arrays for figures of a few test images uint8 [B, C, H, W], at the end of a run."""
        return {}

    def further_protocols(self, split: Any, evaluation: Mapping[str, Any], device: torch.device) -> list[Protocol]:
        """Return protocols of this network's own, for further rows of its headline variant on test images."""
        return []

    def locations(self, images: Tensor) -> dict[str, Tensor]:
        """Return the selected locations of images uint8 [B, C, H, W]; none by default.

        Returns:
            ``selected_<level>`` bool [B, H_l, W_l] for each level that selects, and statistics [B] by name.
        """
        return {}

    def predict_with_locations(self, images: Tensor) -> tuple[Mapping[str, Scores], dict[str, Tensor]]:
        """Return the results of `predict` and `locations`; a network that can compute both in one pass overrides it."""
        return self.predict(images), self.locations(images)

    def as_classifier(self) -> ImageClassifier:
        """Return a network with a head of one row per class, from which decoupled methods start."""
        return self

    def weight_norms(self) -> Tensor | None:
        """Return the norm of each class's weight vector, float64 [C]; None if the head has no such vectors."""
        of_head = getattr(self.head, "weight_norms", None)
        norms = None if of_head is None else of_head()
        return norms if norms is not None and len(norms) == self.dataset_info.num_classes else None

    @torch.no_grad()
    def linear_readout(self) -> tuple[Tensor, Tensor] | None:
        """Return weight [C, D] and bias [C] that give the headline's logits from the backbone's features.

        A standardisation of the features is folded into them. None if the head is not linear, or reads a pooled map or
        pooled tokens. A network that changes the logits after its head overrides it.
        """
        if self.pool is not None:
            return None
        of_head = getattr(self.head, "linear_map", None)
        linear = None if of_head is None else of_head()
        if linear is None or self.standardization is None:
            return linear
        weight = linear[0].double() * self.standardization.factor.double()
        bias = linear[1].double() - weight @ self.standardization.mean.double()
        return weight.float(), bias.float()

    # -- optimisation --------------------------------------------------------------------------------------------

    def no_weight_decay(self) -> list[str]:
        """Return the names of parameters without weight decay: a bias that is initialised by the prior."""
        if self.loss.prior_bias is None:
            return []
        if getattr(self.head, "bias", None) is None:
            loss, head = class_name(self.settings.loss), class_name(self.settings.head)
            raise ConfigError(
                f"loss={loss} with head={head}: the loss initialises the bias of the head, and this head has none. Use "
                "head=linear, or another loss"
            )
        return ["head.bias"]

    def optimisation(self, batches_per_epoch: int) -> tuple[torch.optim.Optimizer, Callable[[int], float]]:
        """Return the optimiser and its schedule (step -> multiplier of the base learning rate).

        Args:
            batches_per_epoch: number of batches of one process.

        Raises:
            ConfigError: the schedule does not fit the epochs, or the parameter groups are invalid.
        """
        modules = self.parameter_modules()
        if self.pool is not None and any(parameter.requires_grad for parameter in self.pool.parameters()):
            modules = {**modules, "pool": self.pool}
        if any(parameter.requires_grad for parameter in self.extras.parameters()):
            modules = {**modules, "extras": self.extras}
        optimizer = instantiate(
            self.settings.optimizer, self.backbone, self.head, extra=modules, no_decay=self.no_weight_decay()
        )
        steps = math.ceil(batches_per_epoch / self.settings.accumulate)
        schedule = instantiate(self.settings.scheduler, self.settings.epochs, steps)
        if isinstance(schedule, ReleasedCosine):
            schedule.count_batches(batches_per_epoch, self.settings.accumulate)
        return optimizer, schedule

    def configure_optimizers(self) -> Any:
        optimizer, schedule = self.optimisation(self.trainer.datamodule.steps_per_epoch)  # type: ignore[attr-defined]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
