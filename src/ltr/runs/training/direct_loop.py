"""Lightning's loop over the batches of an epoch, with direct calls of the hooks that are implemented.

Lightning's own loop dispatches every hook of a step by its name: about 15 calls for the network, the strategy and each
callback, each of which inspects the class, enters a profiler's context and sets the name of the hook. That takes longer
than the kernels of a small network.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.fetchers import _DataFetcher, _PrefetchDataFetcher
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor

from ltr.data.batch import Batch

Hook = Callable[..., Any]
STEP_HOOKS = (
    *("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_train_batch_end"),
)


class DirectEpochLoop(_TrainingEpochLoop):
    """Loop over the batches of an epoch: the same hooks in the same order as Lightning's, and the same progress.

    It handles one process, one optimiser and no gradient scaling. Lightning's own loop takes the batch in all other
    cases: several processes, a profiler, accumulation, manual optimisation, fp16, schedulers by epochs, and the first
    batch after a restart.
    """

    def __init__(self, trainer: pl.Trainer, min_steps: int | None = None, max_steps: int = -1) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self._hooks: dict[str, list[Hook]] | None = None  # of callbacks and network, if steps are direct
        self._takes_index = True

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        self._hooks = None
        if not self._suits(data_fetcher):
            return
        network = self.trainer.lightning_module
        self._hooks = {name: implemented_hooks(self.trainer, name) for name in STEP_HOOKS}
        self._takes_index = "batch_idx" in self._build_kwargs(OrderedDict(), None, 0)
        # read by `log`, which a network outside ltr may call
        network._current_fx_name = "training_step"

    def _suits(self, data_fetcher: _DataFetcher) -> bool:
        """Return whether no step of this epoch needs more than `_step` does."""
        trainer = self.trainer
        precision = trainer.precision_plugin
        return (
            type(trainer.strategy) is SingleDeviceStrategy
            and type(trainer.profiler) is PassThroughProfiler  # type: ignore[attr-defined]
            and type(self.automatic_optimization) is _AutomaticOptimization
            and type(data_fetcher) is _PrefetchDataFetcher
            and trainer.lightning_module.automatic_optimization
            and trainer.accumulate_grad_batches == 1
            and (not isinstance(precision, MixedPrecision) or precision.scaler is None)
            and all(one.interval == "step" and not one.reduce_on_plateau for one in trainer.lr_scheduler_configs)
            and not overrides(trainer.lightning_module, "on_before_batch_transfer")
            and not overrides(trainer.lightning_module, "on_after_batch_transfer")
            and not overrides(trainer.lightning_module, "transfer_batch_to_device")
        )

    def advance(self, data_fetcher: _DataFetcher) -> None:
        if self._hooks is None or self.restarting:
            super().advance(data_fetcher)
            return
        trainer, hooks, progress = self.trainer, self._hooks, self.batch_progress
        network = trainer.lightning_module
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        number = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        if isinstance(batch, Batch):
            batch = trainer.datamodule.transfer_batch_to_device(batch, trainer.strategy.root_device, 0)  # type: ignore[attr-defined]
        progress.increment_ready()
        trainer._logger_connector.on_batch_start(batch)
        responses = [hook(batch, number) for hook in hooks["on_train_batch_start"]]
        if responses[-1:] == [-1]:  # Lightning's value for skipping the rest of an epoch
            progress.increment_by(0, is_last_batch=True)
            progress.increment_processed()
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            raise StopIteration
        progress.increment_started()
        output = self._step(network, batch, number)
        progress.increment_processed()
        for config in trainer.lr_scheduler_configs:
            if (number + 1) % config.frequency == 0:
                self.scheduler_progress.increment_ready()
                network.lr_scheduler_step(config.scheduler, None)
                self.scheduler_progress.increment_completed()
        for hook in hooks["on_train_batch_end"]:
            hook(output, batch, number)
        trainer._logger_connector.on_batch_end()
        progress.increment_completed()
        trainer._logger_connector.update_train_step_metrics()

    def _step(self, network: pl.LightningModule, batch: Any, number: int) -> dict[str, Any]:
        """Take an optimiser step on a batch and return the outcome of the network's training step."""
        assert self._hooks is not None
        with self._counted():
            return self._optimise(network, batch, number, self._hooks)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count an optimiser step, as Lightning's own loop does, in the block that takes it."""
        progress = self.automatic_optimization.optim_progress.optimizer
        progress.step.increment_ready()
        progress.zero_grad.increment_ready()
        progress.zero_grad.increment_started()
        progress.zero_grad.increment_completed()
        yield
        progress.step.increment_completed()

    def _optimise(
        self, network: pl.LightningModule, batch: Any, number: int, hooks: Mapping[str, list[Hook]]
    ) -> dict[str, Any]:
        """Take an optimiser step with these hooks."""
        optimizer = self.trainer.optimizers[0]
        outcome: dict[str, Any] = {}

        @torch.enable_grad()
        def closure() -> Tensor:
            outcome.update(self._outcome(network, batch, number))
            loss = outcome["loss"]
            outcome["loss"] = loss.detach()
            for hook in hooks["on_before_zero_grad"]:
                hook(optimizer)
            network.optimizer_zero_grad(self.trainer.current_epoch, number, optimizer)
            for hook in hooks["on_before_backward"]:
                hook(loss)
            network.backward(loss)
            for hook in hooks["on_after_backward"]:
                hook()
            for hook in hooks["on_before_optimizer_step"]:
                hook(optimizer)
            clip = self.trainer.gradient_clip_val
            if clip or overrides(network, "configure_gradient_clipping"):
                network.configure_gradient_clipping(optimizer, clip, self.trainer.gradient_clip_algorithm)
            return outcome["loss"]

        network.optimizer_step(self.trainer.current_epoch, number, optimizer, closure)
        return outcome

    def _outcome(self, network: pl.LightningModule, batch: Any, number: int) -> dict[str, Any]:
        """Return the outcome of the network's training step."""
        precision = self.trainer.precision_plugin
        with (
            precision.autocast_context_manager()
            if type(precision) is MixedPrecision
            else precision.train_step_context()
        ):
            outcome = network.training_step(*((batch, number) if self._takes_index else (batch,)))
        return dict(outcome) if isinstance(outcome, dict) else {"loss": outcome}


def overrides(network: pl.LightningModule, name: str) -> bool:
    """Return whether a network overrides a method of Lightning's."""
    return getattr(type(network), name) is not getattr(pl.LightningModule, name) or name in vars(network)


def implemented_hooks(trainer: pl.Trainer, name: str) -> list[Hook]:
    """Return a hook of all callbacks, and then of the network, where they implement it.

    Those of callbacks are called without the trainer and the network.
    """
    network = trainer.lightning_module
    hooks: list[Hook] = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        hook = getattr(callback, name)
        if callable(hook) and getattr(type(callback), name) is not getattr(pl.Callback, name):
            hooks.append(lambda *arguments, hook=hook: hook(trainer, network, *arguments))
    if overrides(network, name):
        hooks.append(getattr(network, name))
    return hooks
