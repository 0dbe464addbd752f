"""CC-SAM (Zhou et al., CVPR 2023): weights perturbed by class, then a classifier of adversarial features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from ltr.configuration.targets import class_name, instantiate, locate
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses import functional
from ltr.losses.base import ClassificationLoss, to_float32
from ltr.methods.cc_sam.options import AdversarialOptions, CCSAMOptions, FlatOptions
from ltr.methods.cc_sam.perturbations import class_scales, class_strengths, feature_steps, parameter_steps
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, NetworkSpec, Stage
from ltr.methods.decoupling.representation import classifier_stage
from ltr.methods.decoupling.retrained import SecondStage


@named("network/class_perturbed")
class ClassPerturbed(ImageClassifier):
    """Network of the first stage: a share of its loss is taken at weights that are perturbed for each class.

    Args:
        spec: see `NetworkSpec`.
        options: the fields of `FlatOptions`.
    """

    is_solvable = False

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        chosen = FlatOptions(**options)
        super().__init__(spec)
        self.options = chosen
        self._scales = class_scales(spec.dataset_info.class_counts)

    @property
    def graph_obstacle(self) -> str | None:  # type: ignore[override]
        share = self.options["flat_share"]
        return "CC-SAM perturbs weights for the classes of each batch, whose number changes" if share else None

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        unit = self.to_unit(batch.images)
        features = self.features(unit)
        logits = self.head(features)
        loss = self.loss(logits, batch.labels, batch.mix)
        outcome = {"loss": loss, "correct": (logits.detach().argmax(1) == batch.labels).sum()}
        share = self.options["flat_share"]
        if not share:
            return outcome
        flat_loss = torch.cat(list(self._flat_losses(unit, features, logits, batch))).mean()
        return {**outcome, "loss": (1 - share) * loss + share * flat_loss, "logs": {"flat_loss": flat_loss.detach()}}

    def _flat_losses(self, unit: Tensor, features: Tensor, logits: Tensor, batch: Batch) -> Iterator[Tensor]:
        """Yield the losses of the images of each class in the batch at weights that are perturbed for this class."""
        losses = self.loss.per_image(logits, batch.labels, batch.mix)
        whole = self.options["perturb"] == "network"
        module = self if whole else self.head
        names, parameters = zip(*((name, one) for name, one in module.named_parameters() if one.requires_grad))
        mix = batch.mix if self.options["flat_labels"] == "mixed" else None
        for label in batch.labels.unique().tolist():
            rows = (batch.labels == label).nonzero()[:, 0]
            gradients = torch.autograd.grad(losses[rows].mean(), parameters, retain_graph=True, allow_unused=True)
            steps = parameter_steps(
                [parameter.detach() for parameter in parameters],
                [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients)],
                float(self._scales[label]),
                self.options["radius"],
            )
            perturbed: dict[str, Tensor] = {name: p + step for name, p, step in zip(names, parameters, steps)}
            if whole:
                # BatchNorm takes the statistics of the whole batch, and updates copies of the running ones
                buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
                at_perturbed = functional_call(module, {**buffers, **perturbed}, (unit,))[rows]
            else:
                # in float32: the official radius is below the resolution of half precision
                with torch.autocast(features.device.type, enabled=False):
                    at_perturbed = functional_call(module, perturbed, (functional.at_least_float32(features[rows]),))
            of_rows = None if mix is None else (mix.labels[rows], mix.weight[rows])
            yield self.loss.per_image(at_perturbed, batch.labels[rows], of_rows)


@named("network/adversarial_classifier")
class AdversarialClassifier(SecondStage):
    """Network of the second stage: the classifier learns on, also from features that raise its loss.

    Args:
        spec: see `NetworkSpec`; its parent is ``representation``.
        options: the fields of `AdversarialOptions`.
    """

    keeps_head = True
    is_solvable = False
    _strengths: Tensor
    _adversarial_share: Tensor

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        chosen = AdversarialOptions(**options)
        super().__init__(spec, freeze_bn_stats=chosen.freeze_bn_stats)
        self.options = chosen
        strengths = class_strengths(spec.dataset_info.class_counts, chosen.strength_divisor)
        self.register_buffer("_strengths", to_float32(strengths), persistent=False)
        self.register_buffer("_adversarial_share", torch.zeros(()), persistent=False)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._adversarial_share.fill_(min((epoch + 1) / self.settings.epochs, self.options["adversarial_limit"]))

    def no_weight_decay(self) -> list[str]:
        return []  # the official code decays the bias too

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        features = self.batch_features(batch).detach().requires_grad_()
        logits = self.head(features)
        loss = self.loss(logits, batch.labels, batch.mix)
        losses = self.loss.per_image(logits, batch.labels, batch.mix)
        (gradients,) = torch.autograd.grad(losses.sum(), features, retain_graph=True)
        steps = feature_steps(gradients.float(), batch.labels, self._strengths, self.options["step"])
        adversarial = self.loss.per_image(self.head(features.detach() + steps), batch.labels, batch.mix)
        if self.options["weighted"]:
            adversarial = adversarial * self._strengths[batch.labels]
        adversarial_loss, share = adversarial.mean(), self._adversarial_share
        return {
            "loss": (1 - share) * loss + share * adversarial_loss,
            "correct": (logits.detach().argmax(1) == batch.labels).sum(),
            "logs": {"adversarial_loss": adversarial_loss.detach()},
        }


@named("method/cc_sam")
class CCSAM(Method):
    """CC-SAM: ``representation`` at weights perturbed by class, then ``classifier`` with adversarial features.

    Args:
        options: the fields of `CCSAMOptions`.

    Raises:
        ConfigError: a loss is not known to be a mean over images, counts its images, or divides by class weights.
    """

    Options = CCSAMOptions
    options: CCSAMOptions
    provides = ("logits", "features")

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        second = settings.for_stage(self.options.classifier, "method.classifier")
        for key, stage_settings in (("loss", settings), ("method.classifier.loss", second)):
            check_loss(key, stage_settings, dataset_info)
        return [
            Stage(
                "representation",
                "representation",
                settings,
                module=ClassPerturbed,
                options=self.options.part(FlatOptions),
                checkpoint=self.options.start_from,
            ),
            classifier_stage(second, AdversarialClassifier, self.options.part(AdversarialOptions)),
        ]


def check_loss(key: str, settings: Settings, dataset_info: DatasetInfo) -> None:
    """Refuse a loss whose terms of single images do not make up that of a batch.

    Args:
        key: the loss's key, for the message.

    Raises:
        ConfigError: the loss is no mean over images, draws random numbers, counts the images that it is computed for,
            or divides by the sum of their class weights.
    """
    loss = locate(settings.loss["_target_"], "loss")
    name = class_name(settings.loss)
    if not (isinstance(loss, type) and issubclass(loss, ClassificationLoss)):
        raise ConfigError(
            f"{key}={name}: CC-SAM needs the loss of each image, and this one is no mean over images. Use "
            "cross_entropy, ldam or another classification loss"
        )
    # such a loss would count an image several times, and wait for processes with fewer classes in their batches
    is_plain = loss.per_image is ClassificationLoss.per_image and loss.forward is ClassificationLoss.forward
    built = instantiate(settings.loss, dataset_info.class_counts)
    if not (is_plain and built.is_deterministic):
        raise ConfigError(
            f"{key}={name}: CC-SAM computes the losses of a batch several times and class by class, and this loss "
            f"changes at every evaluation. Use {built.deterministic_by or 'cross_entropy, balanced_softmax, ldam'} or "
            "another loss without counts and random numbers"
        )
    if built.weights is not None and built.reduction != "batch":
        raise ConfigError(
            f"{key}.reduction={built.reduction}: {name} divides by the class weights of the whole batch, and CC-SAM "
            f"averages the losses of parts of it. Set {key}.reduction=batch"
        )
