"""Automatic micro-batches (``trainer.auto_accumulate``): when memory runs out, a batch is processed in smaller parts.

The optimiser's batch stays the same: the gradients of the micro-batches, each weighted by its share of the images, are
summed before one step. Up to rounding this is the gradient of the whole batch if no image's loss depends on the other
images, of this batch or of earlier ones, or on random numbers; all other losses and networks are refused before
training. Dropout masks differ between micro-batches and the whole batch.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.optimization.automatic import Closure, ClosureResult, _AutomaticOptimization
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltr.configuration.targets import instantiate
from ltr.data.batch import Batch, Mix
from ltr.errors import ConfigError
from ltr.losses.base import ClassificationLoss
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.core.stage import Stage
from ltr.models.probing import uses_batch_statistics
from ltr.runs.failures import is_out_of_memory
from ltr.runs.processes.strategies import restart_batch

_INSTEAD = (
    "Leave trainer.auto_accumulate out, and lower batch_size or set trainer.precision=bf16; where a method has the key "
    "method.checkpointing, that saves memory without changing gradients"
)


def check_plan(stage: Stage, dataset_info: DatasetInfo) -> None:
    """Refuse a stage that rules out micro-batches, before the first stage is trained.

    Raises:
        ConfigError: micro-batches would not give the gradient of the batch.
    """
    if stage.module is None or stage.checkpoint is not None:
        return
    accumulate = stage.settings.accumulate
    redundant = f"it chooses the accumulation, and trainer.accumulate={accumulate} sets it. Set one of the two"
    reason = redundant if accumulate > 1 else _not_of_images(stage, dataset_info)
    if reason:
        raise ConfigError(f"trainer.auto_accumulate=true: {reason}")


def _not_of_images(stage: Stage, dataset_info: DatasetInfo) -> str:
    """Return the reason why a stage's loss may not be a mean over single images; '' if it is one."""
    module, settings = stage.module, stage.settings
    if getattr(module, "training_step", None) is not ImageClassifier.training_step:
        reason = f"{module.__name__} has a custom training step (several optimisers, or losses between images)"  # type: ignore[union-attr]
    elif settings.extras:
        reason = "further loss terms (method.extras) may compare the images of a batch"
    else:
        loss = instantiate(settings.loss, dataset_info.class_counts)
        name = type(loss).__name__
        if not isinstance(loss, ClassificationLoss) or any(
            getattr(type(loss), part) is not getattr(ClassificationLoss, part) for part in ("forward", "per_image")
        ):
            reason = f"{name} is not known to be a mean over images, each independent of the images before it"
        elif not loss.is_deterministic:
            way_out = f" ({loss.deterministic_by} does not)" if loss.deterministic_by else ""
            reason = f"{name} draws random numbers or remembers earlier images{way_out}"
        elif loss.reduction != "batch" and loss.weights is not None:
            reason = f"{name} divides by the weights of the whole batch (loss.reduction=batch does not)"
        else:
            return ""
    return f"stage '{stage.name}': {reason}, so that the gradients of parts are not those of a batch. {_INSTEAD}"


def check_network(stage: Stage, network: nn.Module) -> None:
    """Refuse a network with layers that compute over the whole batch, in the modes of its training.

    Raises:
        ConfigError: the network has batch normalisation that is not frozen.
    """
    norms = [
        name for name, part in network.named_modules() if isinstance(part, _BatchNorm) and uses_batch_statistics(part)
    ]
    if norms:
        raise ConfigError(
            f"trainer.auto_accumulate=true: stage '{stage.name}' trains with batch normalisation ({len(norms)} layers, "
            f"the first is {norms[0]}), and the statistics of a part are not those of its batch. Freeze it where the "
            f"method can (method.freeze_bn_stats=true), or use a backbone without. {_INSTEAD}"
        )


class AutoMicroBatch(_AutomaticOptimization):
    """Lightning's loop of one optimiser, over micro-batches of at most `micro_batch` images.

    If memory runs out in a step, the step drops its gradients, restores the random state, and runs again with
    micro-batches of half the size, which later steps keep. The size is part of the training state.

    Args:
        micro_batch: initial size, the batch size.
    """

    def __init__(self, trainer: pl.Trainer, micro_batch: int, stage: str, print_line: Callable[[str], None]) -> None:
        super().__init__(trainer)
        self.batch_size = self.micro_batch = micro_batch
        self.stage = stage
        self.print_line = print_line

    @property
    def halved(self) -> bool:
        return self.micro_batch < self.batch_size

    def on_save_checkpoint(self) -> dict[str, Any]:
        return {"micro_batch": self.micro_batch}

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        self.micro_batch = state_dict["micro_batch"]
        if self.halved:
            self.print_line(f"{self.stage}: batches in parts of {self.micro_batch} images, as before (auto_accumulate)")

    def _make_closure(self, kwargs: Any, optimizer: Any, batch_idx: int) -> Closure:
        return Closure(step_fn=lambda: self._until_it_fits(kwargs, optimizer, batch_idx))

    def _until_it_fits(self, kwargs: Any, optimizer: Any, batch_idx: int) -> ClosureResult:
        images = len(kwargs["batch"].labels)
        while True:
            try:
                return self._step(kwargs, optimizer, batch_idx)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or min(self.micro_batch, images) == 1:
                    raise
            # outside of the handler, because the error holds references to the activations
            optimizer.zero_grad(set_to_none=True)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._halve(images, batch_idx)
            restart_batch(self.trainer, self.trainer.lightning_module, kwargs["batch"], batch_idx)

    def _halve(self, images: int, batch_idx: int) -> None:
        tried = min(self.micro_batch, images)
        self.micro_batch = tried // 2
        self.print_line(
            f"{self.stage}: out of memory with {tried} images at once in epoch {self.trainer.current_epoch + 1}, batch "
            f"{batch_idx + 1}; continuing in parts of {self.micro_batch}, the optimiser's batch_size stays "
            f"{self.batch_size} (auto_accumulate)"
        )

    def _step(self, kwargs: Any, optimizer: Any, batch_idx: int) -> ClosureResult:
        zero_grad = self._make_zero_grad_fn(batch_idx, optimizer)
        backward = self._make_backward_fn(optimizer)
        assert zero_grad is not None  # None only for batches that accumulate
        assert backward is not None
        zero_grad()
        total = len(kwargs["batch"].labels)
        sums: dict[str, Tensor] = {}
        for part in micro_batches_of(kwargs["batch"], self.micro_batch):
            share = len(part.labels) / total
            result = self._training_step({**kwargs, "batch": part})  # type: ignore[arg-type]
            assert result.closure_loss is not None
            loss = result.closure_loss * share if share < 1 else result.closure_loss
            backward(loss)
            for name, value in (("loss", loss.detach()), ("correct", result.extra["correct"])):
                sums[name] = sums[name] + value if name in sums else value
        return ClosureResult(sums.pop("loss"), extra=sums)


def micro_batches_of(batch: Batch, size: int) -> Iterator[Batch]:
    """Yield consecutive micro-batches of at most ``size`` images."""
    for start in range(0, len(batch.labels), size):
        rows = slice(start, start + size)
        mix = None if batch.mix is None else Mix(*(part[rows] for part in batch.mix))
        views = tuple(view[rows] for view in batch.views)
        yield Batch(batch.images[rows], batch.labels[rows], batch.indices[rows], mix, views)
