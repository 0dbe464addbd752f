"""Training with a perturbed gradient (the config group ``sharpness``): a first pass before Lightning's own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ltr.configuration.targets import instantiate, locate
from ltr.errors import ConfigError
from ltr.losses.base import ClassificationLoss
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import Stage
from ltr.optim.sharpness import SAM, perturbations
from ltr.runs.processes.strategies import restart_batch


def check_sharpness(stage: Stage, config: Mapping[str, Any], class_counts: Sequence[int]) -> None:
    """Refuse a stage that cannot be trained with a perturbed gradient, before the first stage is trained.

    Warns if all classes are perturbed by a rule that is for some of them.

    Raises:
        ConfigError: the network, the loss or a setting does not allow it, or no class is perturbed.
    """
    settings = stage.settings
    if settings.sharpness is None or stage.module is None or stage.checkpoint is not None:
        return
    reason = _reason_against(stage, config)
    if reason:
        raise ConfigError(f"sharpness: it cannot train the stage '{stage.name}': {reason}. Leave sharpness out")
    rule = instantiate(settings.sharpness)
    factors = rule.tail_factors(class_counts)
    if factors is None:
        return
    sizes = np.asarray(class_counts)
    present = sizes > 0
    smallest, largest = int(sizes[present].min()), int(sizes[present].max())
    eta = getattr(rule, "eta", None)  # other rules may have another criterion
    if not (factors[present] > 0).any():
        raise ConfigError(
            "sharpness: its rule perturbs for no class of these data"
            if eta is None
            else f"sharpness.eta={eta}: no class has fewer training images (the smallest has {smallest}), so that "
            f"nothing would be perturbed. Set sharpness.eta to more than {smallest}, or use sharpness=sam, which "
            "perturbs for all classes"
        )
    if eta is not None and (factors[present] > 0).all():
        warnings.warn(
            f"sharpness.eta={eta}: all classes have fewer training images (the largest has {largest}), so that "
            f"each is of the tail. Set sharpness.eta to at most {largest}, or use sharpness=sam",
            stacklevel=2,
        )


def _reason_against(stage: Stage, config: Mapping[str, Any]) -> str:
    settings, trainer = stage.settings, config["trainer"]
    if getattr(stage.module, "training_step", None) is not ImageClassifier.training_step:
        return f"{stage.module.__name__} has a custom training step, which cannot be perturbed"  # type: ignore[union-attr]
    if settings.solver == "lbfgs":
        return "features.solver=lbfgs takes no gradient steps"
    if settings.precision == "fp16":
        return "trainer.precision=fp16 scales losses, and the first pass does not (bf16 and fp32 do not need it)"
    if trainer["auto_accumulate"]:
        return "trainer.auto_accumulate=true computes the gradient in parts, and the perturbation is that of a batch"
    if config["strategy"]["name"] == "fsdp":
        return "strategy=fsdp holds a part of the parameters in each process, and the perturbation needs all of them"
    assert settings.sharpness is not None
    loss = locate(settings.loss["_target_"], "loss")
    if instantiate(settings.sharpness).tail_factors([1]) is None:
        return ""
    if not issubclass(loss, ClassificationLoss) or loss.forward is not ClassificationLoss.forward:
        return f"{loss.__name__} is not known to be a mean over images, and imbsam splits the loss by class"
    if settings.extras:
        return "method.extras belong to no class, and imbsam splits the loss by class"
    if settings.accumulate > 1 or trainer["devices"] > 1:
        return "imbsam takes the gradient of one whole batch (trainer.accumulate=1 and trainer.devices=1)"
    return ""


class SharpnessAware(pl.Callback):
    """Callback that perturbs the weights before Lightning's forward pass, and restores them after its backward pass.

    The first pass takes the gradient at the weights; Lightning's own pass, whose gradient the optimiser gets, runs at
    the perturbed ones. Both passes draw the same dropout masks. The logged loss is that of the second pass.

    Args:
        sharpness: rule of the perturbation.
    """

    def __init__(self, sharpness: SAM) -> None:
        self.sharpness = sharpness
        self._parameters: list[Tensor] = []
        self._weights: list[Tensor] = []  # copies at w: w + e - e is not w in floating-point numbers
        self._head_gradients: list[Tensor] = []  # of the classes whose loss is not perturbed
        self._head_loss: Tensor | None = None
        self._tail: Tensor | None = None
        self._momenta: list[tuple[_BatchNorm, float | None]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._parameters = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        factors = self.sharpness.tail_factors(pl_module.loss.class_counts.tolist())  # type: ignore[union-attr,operator]
        if factors is not None:
            self._tail = torch.from_numpy(factors).to(pl_module.device)
            pl_module.loss.class_factors = self._tail  # type: ignore[union-attr]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._tail is not None:
            pl_module.loss.class_factors = None  # type: ignore[union-attr]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        restart_batch(
            trainer, pl_module, batch, batch_idx
        )  # Lightning does it again for its own pass: the same dropout masks
        with trainer.precision_plugin.train_step_context():
            gradients = self._gradients(pl_module, batch, batch_idx)
        self._weights = [parameter.detach().clone() for parameter in self._parameters]
        steps = perturbations(self._parameters, gradients, self.sharpness.rho, self.sharpness.adaptive)
        with torch.no_grad():
            torch._foreach_add_(self._parameters, steps)
        if self.sharpness.batch_norm == "first":
            norms = [part for part in pl_module.modules() if isinstance(part, _BatchNorm)]
            self._momenta = [(part, part.momentum) for part in norms]
            for part in norms:
                part.momentum = 0.0

    def _gradients(self, network: Any, batch: Any, batch_idx: int) -> list[Tensor]:
        """Return the gradient of the loss, or of the tail's; keep that of the other classes."""
        if self._tail is None:
            return self._gradient(network.training_step(batch, batch_idx)["loss"])
        calls: list[tuple[Any, ...]] = []
        hook = network.loss.register_forward_pre_hook(lambda _, arguments: calls.append(arguments))
        try:
            tail_loss = network.training_step(batch, batch_idx)["loss"]
        finally:
            hook.remove()
        network.loss.class_factors = (self._tail == 0).to(self._tail.dtype)
        head_loss = network.loss(*calls[0])
        network.loss.class_factors = self._tail
        self._head_loss = head_loss.detach()
        self._head_gradients = self._gradient(head_loss, retain_graph=True)
        return self._gradient(tail_loss)

    def _gradient(self, loss: Tensor, retain_graph: bool = False) -> list[Tensor]:
        gradients = torch.autograd.grad(loss, self._parameters, retain_graph=retain_graph, allow_unused=True)
        return [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(self._parameters, gradients, strict=True)
        ]

    @torch.no_grad()
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch._foreach_copy_(self._parameters, self._weights)
        for parameter, gradient in zip(self._parameters, self._head_gradients, strict=False):
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        self._weights, self._head_gradients = [], []
        for part, momentum in self._momenta:
            part.momentum = momentum
        self._momenta = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if self._head_loss is not None:
            outputs["loss"] = outputs["loss"] + self._head_loss
