"""Recording of a whole training step as a CUDA graph (``compile=graph``), whose replay launches no kernels one by one.

A recorded step is everything that the device computes between two batches: indexing and augmenting the images, the
forward pass, the loss, the backward pass and the optimiser. It reads its batch from tensors at fixed addresses, and its
learning rates from tensors on the device. The first steps of a training and the smaller last batch of an epoch run
without a graph, with the same operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.fetchers import _DataFetcher
from torch import Tensor, nn

from ltr.data.batch import Batch, Mix, PendingBatch
from ltr.data.loaders.device import DeviceLoader
from ltr.errors import TrainingError, first_line
from ltr.runs.training.direct_loop import DirectEpochLoop
from ltr.runs.training.guards import FiniteGuard

WARM_UP = 3  # steps before a recording: they create gradients, the optimiser's state and constants, and tune kernels
_INSIDE = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
_NO_HOOKS: dict[str, list[Any]] = {name: [] for name in _INSIDE}
_PLAIN = (bool, int, float, str, type(None))

T = TypeVar("T")


class Recorder(Protocol):
    """Recorder of the operations of a function on a device."""

    def warm_up(self, function: Callable[[], T]) -> T:
        """Call a function that is to be recorded later, and return its result."""
        ...

    def record(self, function: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Run a function once and record it.

        Returns:
            A function that repeats its operations on the same memory, and its result, whose tensors each repetition
            overwrites.
        """
        ...


class CudaRecorder:
    """Recorder of a CUDA graph, as in PyTorch's notes on CUDA graphs."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, function: Callable[[], T]) -> T:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = function()
        current.wait_stream(self._stream)
        return result

    def record(self, function: Callable[[], T]) -> tuple[Callable[[], None], T]:
        graph = torch.cuda.CUDAGraph()
        # other threads, such as one that pins memory, may continue while this one captures
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            result = function()
        graph.replay()  # recording runs nothing
        return graph.replay, result


def recorder_of(device: torch.device) -> Recorder | None:
    """Return the recorder of a device; None if it has none."""
    return CudaRecorder(device) if device.type == "cuda" else None


class GraphEpochLoop(DirectEpochLoop):
    """Loop over the batches of an epoch that records a training step and replays it.

    A step is recorded anew when an epoch changes a number, text or tensor of the network, such as a deferred loss.

    Args:
        on_obstacle: called with the reason why an epoch runs without a recording, once for each reason.
    """

    def __init__(self, trainer: pl.Trainer, recorder: Recorder, on_obstacle: Callable[[str], None]) -> None:
        super().__init__(trainer)
        self.recorder = recorder
        self.on_obstacle = on_obstacle
        self.replayed = 0  # steps
        self._reasons: set[str] = set()
        self._is_recordable = False
        self._state: Any = None
        self._warmed_up = 0
        self._step_of_graph: _RecordedStep | None = None

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        network, loader = self.trainer.lightning_module, self.trainer.train_dataloader
        reason = self.obstacle()
        self._is_recordable = reason is None
        if isinstance(loader, DeviceLoader):  # it starts with the first batch
            # Lightning's own loop takes the first batch after a restart
            loader.defers_images = self._is_recordable and loader.can_defer_images and not self.restarting
        if reason is not None:
            self._forget()
            if reason not in self._reasons:
                self._reasons.add(reason)
                self.on_obstacle(reason)
            return
        state = [("", "loader", getattr(loader, "defers_images", False)), *host_state(network)]
        if state != self._state:
            self._forget()
            self._state = state

    def _forget(self) -> None:
        self._step_of_graph, self._warmed_up, self._state = None, 0, None

    def obstacle(self) -> str | None:
        """Return the reason why the steps of this epoch cannot be recorded; None if they can."""
        network = self.trainer.lightning_module
        if not network.automatic_optimization:
            return obstacle_of(network) or "the method has several optimisers"
        if self._hooks is None:
            return "several processes, accumulation, fp16 and profilers run code on the host in every step"
        if not all(group.get("fused") for group in self.trainer.optimizers[0].param_groups):
            return "the optimiser has no fused form; optimizer=sgd and adamw have one"
        guards = [one for one in self.trainer.callbacks if isinstance(one, FiniteGuard)]  # type: ignore[attr-defined]
        if sum(len(self._hooks[name]) for name in _INSIDE) > 2 * len(guards):
            return "a callback or the network decides on the host within a step (as trainer.on_nonfinite=skip does)"
        return obstacle_of(network)

    def _step(self, network: pl.LightningModule, batch: Any, number: int) -> dict[str, Any]:
        if not self._is_recordable or len(batch.labels) != self.trainer.train_dataloader.batch_size:  # type: ignore[union-attr]
            outcome = super()._step(network, self._taken(batch), number)
            if self._step_of_graph is not None:
                self._step_of_graph.restore_gradients()
            return outcome
        assert self._hooks is not None
        hooks = self._hooks
        if self._step_of_graph is None and self._warmed_up < WARM_UP:
            self._warmed_up += 1
            with self._counted():
                return self.recorder.warm_up(lambda: self._optimise(network, self._taken(batch), number, hooks))
        with self._counted():
            if self._step_of_graph is None:
                self._step_of_graph = self._record(network, batch, number)
            else:
                self._step_of_graph.replay(batch)
            self.replayed += 1
            outcome, optimizer = self._step_of_graph.outcome, self.trainer.optimizers[0]
            # guards read the loss and the gradients on the device, and report them at a later step
            for hook in hooks["on_before_backward"]:
                hook(outcome["loss"])
            for hook in hooks["on_before_optimizer_step"]:
                hook(optimizer)
        return dict(outcome)

    def _taken(self, batch: Any) -> Any:
        """Return a batch with its images."""
        loader = self.trainer.train_dataloader
        return loader.take(batch) if isinstance(batch, PendingBatch) else batch  # type: ignore[union-attr]

    def _record(self, network: pl.LightningModule, batch: Any, number: int) -> _RecordedStep:
        """Record a step and take it on this batch."""
        optimizer = self.trainer.optimizers[0]
        inputs = cloned(batch)
        rates = [
            torch.tensor(group["lr"], dtype=torch.float32, device=network.device) for group in optimizer.param_groups
        ]
        optimizer.zero_grad(
            set_to_none=True
        )  # the recorded backward pass allocates its gradients in the graph's memory
        try:
            with rates_on_device(optimizer, rates):
                replay, outcome = self.recorder.record(
                    lambda: self._optimise(network, self._taken(inputs), number, _NO_HOOKS)
                )
        except RuntimeError as error:
            raise TrainingError(
                f"compile=graph: a training step of {type(network).__name__} cannot be recorded ({first_line(error)}). "
                "Its steps may neither wait for the device nor change their shapes. Use compile=false"
            ) from error
        return _RecordedStep(optimizer, inputs, rates, replay, outcome)


class _RecordedStep:
    """A recorded step with the tensors that it reads.

    Args:
        inputs: the batch that it reads.
        rates: learning rates of the optimiser's groups, on the device.
        replay: repeats the step.
        outcome: outcome of the network's training step; each repetition overwrites it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        inputs: Any,
        rates: list[Tensor],
        replay: Callable[[], None],
        outcome: dict[str, Any],
    ) -> None:
        self.inputs, self.rates, self.outcome = inputs, rates, outcome
        self._replay = replay
        self._groups = optimizer.param_groups
        self._current_rates = [group["lr"] for group in self._groups]
        self._gradients = [(weight, weight.grad) for group in self._groups for weight in group["params"]]

    def replay(self, batch: Any) -> None:
        """Take the step on another batch of the same size, with the optimiser's current learning rates."""
        for target, source in zip(tensors_of(self.inputs), tensors_of(batch), strict=True):
            target.copy_(source, non_blocking=True)
        for number, group in enumerate(self._groups):
            if group["lr"] != self._current_rates[number]:
                self.rates[number].fill_(group["lr"])
                self._current_rates[number] = group["lr"]
        self._replay()

    def restore_gradients(self) -> None:
        """Make the gradients of the recorded step those of the weights again, after a step that was not recorded."""
        for weight, gradient in self._gradients:
            weight.grad = gradient


@contextmanager
def rates_on_device(optimizer: torch.optim.Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """Give an optimiser learning rates on the device during a block, in which a step may be captured."""
    groups = optimizer.param_groups
    before = [dict(group) for group in groups]
    for group, rate in zip(groups, rates):
        group["lr"] = rate
        if "capturable" in group:
            group["capturable"] = True
    try:
        yield
    finally:
        for group, old in zip(groups, before):
            group.update({key: old[key] for key in ("lr", "capturable") if key in old})


def obstacle_of(network: nn.Module) -> str | None:
    """Return the first ``graph_obstacle`` of a network and its parts, the reason why a step cannot be recorded."""
    reasons = (getattr(part, "graph_obstacle", None) for part in network.modules())
    return next((reason for reason in reasons if reason is not None), None)


def host_state(network: nn.Module) -> list[tuple[str, str, Any]]:
    """Return the constants of a recorded step: numbers and texts of a network and its parts, addresses of tensors."""
    state: list[tuple[str, str, Any]] = []
    for name, part in network.named_modules():
        part_state = {**vars(part), **part._buffers, **part._parameters}
        for key, value in part_state.items():
            if part is network and key.startswith("_"):
                continue  # Lightning's name of the running hook
            if isinstance(value, Tensor):
                state.append((name, key, value.data_ptr()))
            elif isinstance(value, _PLAIN):
                state.append((name, key, value))
            elif hasattr(value, "__dict__") and not callable(value):
                plain = {k: v for k, v in vars(value).items() if isinstance(v, _PLAIN)}
                state.extend((name, f"{key}.{k}", v) for k, v in plain.items())
    return state


def tensors_of(batch: Batch | PendingBatch | Mix | tuple[Tensor, ...]) -> list[Tensor]:
    """Return the tensors of a batch."""
    parts: list[Tensor] = []
    for part in batch:
        if isinstance(part, Tensor):
            parts.append(part)
        elif part is not None:
            parts.extend(tensors_of(part))
    return parts


def cloned(batch: Any) -> Any:
    """Return a batch of copies of its tensors, with their memory formats."""
    copies = [part.clone() if isinstance(part, Tensor) else None if part is None else cloned(part) for part in batch]
    return tuple(copies) if type(batch) is tuple else type(batch)(*copies)
