"""ARPL+CS: ARPL that also learns to be undecided about generated, confusing images (TPAMI 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltr.data.batch import Batch, to_device
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import NetworkSpec, Stage
from ltr.methods.reciprocal_points.arpl import ARPL, AdversarialNetwork
from ltr.methods.reciprocal_points.base import PointNetwork
from ltr.methods.reciprocal_points.confusing_samples import AuxiliaryNorms, Discriminator, Generator, first_side
from ltr.methods.reciprocal_points.losses import confusion
from ltr.methods.reciprocal_points.options import ARPLCSOptions
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed, generator


@named("network/arpl_cs")
class ConfusedNetwork(AdversarialNetwork):
    """ARPL's network with a generator and a discriminator.

    Each step uses one batch of real images and as many noise vectors:

    1. the discriminator learns to tell real from generated images;
    2. the generator learns to pass for real and to confuse the classifier: its fooling loss plus
       ``confusion_weight`` times `ltr.methods.reciprocal_points.losses.confusion`;
    3. the classifier learns ARPL's loss on the real images plus ``confusion_weight`` times the same confusion of newly
       generated ones, which pass through BatchNorm with statistics of their own;
    4. the classifier takes an ordinary step of ARPL on the real images once more.

    The official code makes two passes over the data in every epoch, 1 to 3 and then 4; here one pass feeds both.

    Args:
        confusion_weight: beta.
        noise_dim: width of the generator's input.
        width: channels of the generator's and the discriminator's unit (64 in the code).
        gan_lr: learning rate of Adam (betas 0.5 and 0.999) for generator and discriminator; it has no schedule.
    """

    # 1: radius_init=first_batch set the radius again after the first step of the classifier; 2: the last convolution of
    # the discriminator gave its logit
    numerics_version = 3
    graph_obstacle = "ARPL+CS trains three networks in turn, from noise that the host makes"
    processes_obstacle = "method=arpl_cs trains three networks in turn"

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        confusion_weight: float,
        noise_dim: int,
        width: int,
        gan_lr: float,
        **options: Any,
    ) -> None:
        super().__init__(spec, **options)
        gan_options = {"confusion_weight": confusion_weight, "noise_dim": noise_dim, "width": width, "gan_lr": gan_lr}
        self.options = {**self.options, **gan_options}
        self.automatic_optimization = False
        self.confusion_weight = confusion_weight
        self.noise_dim = noise_dim
        self.gan_lr = gan_lr
        shape = self.dataset_info.image_shape
        with seeded_construction(derive_seed(self.seed, self.role, "confusing samples")):
            self.generator = Generator(shape, noise_dim=noise_dim, width=width)
            self.discriminator = Discriminator(shape, width=width)
        self.generator.to(memory_format=torch.channels_last)
        self.discriminator.to(memory_format=torch.channels_last)
        self.norms = AuxiliaryNorms(self.backbone)

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {**super().parameter_modules(), "auxiliary_norms": self.norms}

    def configure_optimizers(self) -> Any:
        """Return the classifier's optimiser and schedule as in any method, then Adam of generator and discriminator."""
        main = super().configure_optimizers()
        gan_optimizers = [
            torch.optim.Adam(module.parameters(), lr=self.gan_lr, betas=(0.5, 0.999))
            for module in (self.generator, self.discriminator)
        ]
        return [main["optimizer"], *gan_optimizers], [main["lr_scheduler"]]

    def noise(self, rows: int, batch_index: int) -> Tensor:
        """Return two samples of normal noise [2, B, Z], a function of (seed, role, epoch, batch)."""
        source = generator(self.seed, self.role, "noise", self.current_epoch, batch_index)
        return to_device(source.standard_normal((2, rows, self.noise_dim), dtype=np.float32), self.device)

    def confusion_of(self, generated: Tensor) -> Tensor:
        """Return the classifier's confidence in generated images, a scalar, from squared distances (over D) only."""
        features = self.norms(self.backbone, self.normalise(generated))
        if self.embedding is not None:
            features = self.embedding(features)
        measured = self.head.measure(features)
        return confusion(measured.squares.mean(2) / self.head.points.shape[2])

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        optimizers: list[Any] = self.optimizers(use_pl_optimizer=False)  # type: ignore[assignment]
        classifier, generator_optimizer, discriminator_optimizer = optimizers
        real = self.to_unit(batch.images)
        first, second = self.noise(len(real), batch_index).unbind(0)

        generated = self.generator(first)
        real_logits, generated_logits = self.discriminator(real), self.discriminator(generated.detach())
        discriminator_loss = _adversarial_loss(real_logits, 1.0) + _adversarial_loss(generated_logits, 0.0)
        self._step(discriminator_optimizer, discriminator_loss)

        with _without_gradients(self.discriminator, self.backbone, self.head, self.norms, self.embedding):
            fooling_loss = _adversarial_loss(self.discriminator(generated), 1.0)
            generator_confusion = self.confusion_of(generated)
            self._step(generator_optimizer, fooling_loss + self.confusion_weight * generator_confusion)

        outcome, _ = self.outcome(self.features(real), batch, batch_index)
        with torch.no_grad():
            new_images = self.generator(second)
        classifier_confusion = self.confusion_of(new_images)
        self._step(classifier, outcome["loss"] + self.confusion_weight * classifier_confusion, clipped=True)

        outcome, _ = self.outcome(self.features(real), batch, batch_index, is_first_pass=False)
        # the last step of a batch goes through Lightning's wrapper, which counts it: one step per batch
        counted: Any = self.optimizers()[0]  # type: ignore[index]
        self._step(classifier, outcome["loss"], clipped=True, through=counted)
        self.lr_schedulers().step()  # type: ignore[union-attr]
        logs = {
            "discriminator_loss": discriminator_loss.detach(),
            "fooling_loss": fooling_loss.detach(),
            "confusion": classifier_confusion.detach(),
        }
        return {**outcome, "loss": outcome["loss"].detach(), "logs": {**outcome["logs"], **logs}}

    def _step(self, optimizer: Any, loss: Tensor, *, clipped: bool = False, through: Any = None) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        if clipped and self.settings.gradient_clip is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)
        (through or optimizer).step()

    @torch.no_grad()
    def examples(self, images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
        """Return ``confusing_samples``: one generated image for each given image, uint8 [B, H, W, C]."""
        source = generator(self.seed, self.role, "examples")
        noise = to_device(source.standard_normal((len(images), self.noise_dim), dtype=np.float32), self.device)
        generated = (255 * self.generator(noise).float()).round().to(torch.uint8)
        return {"confusing_samples": generated.permute(0, 2, 3, 1).cpu().numpy()}


def _adversarial_loss(logits: Tensor, real: float) -> Tensor:
    """Return the binary cross-entropy of logits [B] against "all real" (1) or "all generated" (0)."""
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, real))


@contextmanager
def _without_gradients(*modules: nn.Module | None) -> Iterator[None]:
    """Compute no gradients of the modules' parameters during a block; gradients still pass through the modules."""
    trained = [p for module in modules if module is not None for p in module.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@named("method/arpl_cs")
class ARPLCS(ARPL):
    """ARPL with confusing samples.

    Raises:
        ConfigError: images that the generator cannot be built for, gradient accumulation, fp16; see `ARPL`.
    """

    accepts_extras = False
    takes_stored_features = False  # its generator makes images
    module: type[PointNetwork] = ConfusedNetwork
    Options = ARPLCSOptions

    def check(self, dataset_info: DatasetInfo) -> None:
        first_side(dataset_info.image_shape)

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        if settings.accumulate > 1:
            raise ConfigError(
                f"trainer.accumulate={settings.accumulate}: method=arpl_cs takes several optimiser steps in each batch "
                "and cannot accumulate gradients. Set trainer.accumulate=1"
            )
        if settings.precision == "fp16":
            raise ConfigError("trainer.precision=fp16: method=arpl_cs has no loss scaling. Use bf16 or fp32")
        first_side(dataset_info.image_shape)
        return super().stages(settings, dataset_info)
