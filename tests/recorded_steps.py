"""A recording of training steps on a CPU that repeats operations on fixed memory, as a CUDA graph does.

`CpuRecorder` notes every operation with the tensors that it reads and writes, and repeats them with the same numbers of
the host: whatever the host computes anew in each step keeps the value of the recorded one. It also notes operations
for which a GPU would have to wait, or whose result has a size that depends on data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ltr.runs.training.graph_loop import _NO_HOOKS, GraphEpochLoop, rates_on_device

# constants that the host makes (lift_fresh), results that it reads, and results whose size depends on data
_WAITING = (
    "lift_fresh",
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique",
    "unique_",
    "is_nonzero",
    "equal",
)
_READING = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__")


class Operations(TorchDispatchMode):
    """Mode that notes operations, with the tensors that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Any]]] = []
        self.waiting: list[str] = []
        self.is_checking_labels = False  # of `one_hot`, which a CPU does and a GPU does not

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, tree_leaves(result)))
        name = function.name().removeprefix("aten::")
        of_mask = name.startswith(("index.", "index_put")) and any(
            isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in tree_leaves(args[1])
        )
        if self.is_checking_labels:
            return result
        if name.startswith(_WAITING) or name == "repeat_interleave.Tensor" or of_mask:
            self.waiting.append(name)
        return result


class Readings(TorchFunctionMode):
    """Mode that notes the methods by which the host reads a tensor, which on a CPU are no operations."""

    def __init__(self, operations: Operations) -> None:
        super().__init__()
        self.operations = operations
        self.waiting: list[str] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name == "one_hot":
            self.operations.is_checking_labels = True
            try:
                return function(*args, **(kwargs or {}))
            finally:
                self.operations.is_checking_labels = False
        if name in _READING and args and isinstance(args[0], Tensor):
            self.waiting.append(name)
        return function(*args, **(kwargs or {}))


class CpuRecorder:
    """Recorder that repeats operations on a CPU; see the module."""

    def __init__(self) -> None:
        self.waiting: list[str] = []  # operations of all recordings for which a GPU would wait
        self.recordings = 0

    def warm_up(self, function: Callable[[], Any]) -> Any:
        return function()

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        self.recordings += 1
        arrays: list[str] = []
        from_numpy = torch.from_numpy

        def noting(array: Any) -> Tensor:
            arrays.append("from_numpy")
            return from_numpy(array)

        operations = Operations()
        readings = Readings(operations)
        with mock.patch("torch.from_numpy", noting), readings, operations:
            result = function()
        self.waiting += arrays
        self.waiting += operations.waiting + readings.waiting
        return lambda: repeat(operations.calls), result


@torch.no_grad()
def repeat(calls: list[tuple[Any, Any, Any, list[Any]]]) -> None:
    """Repeat operations, and write their results to the memory of the first ones."""
    for function, args, kwargs, results in calls:
        for old, new in zip(results, tree_leaves(function(*args, **kwargs)), strict=True):
            if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                old.copy_(new)


class ComparingLoop(GraphEpochLoop):
    """A loop that takes every repeated step as usual as well, and notes the epochs in which they differ.

    Steps are recorded in spite of what a network declares.

    Attributes:
        declared: the reasons of the network for each epoch.
        differing: epochs with a step whose repetition has other bits.
    """

    declared: dict[int, str | None]
    differing: set[int]

    def obstacle(self) -> str | None:
        epoch = self.trainer.current_epoch
        reason = super().obstacle()
        self.__dict__.setdefault("differing", set())
        self.__dict__.setdefault("declared", {})[epoch] = reason
        return reason if self._hooks is None else None

    def _step(self, network, batch, number):
        repeats = self._step_of_graph is not None and len(batch.labels) == self.trainer.train_dataloader.batch_size
        if not repeats:
            return super()._step(network, batch, number)
        state, random = self._tensors(network), torch.get_rng_state()
        before = [one.clone() for one in state]
        optimizer = self.trainer.optimizers[0]
        # a recorded step has its learning rates in float32
        rates = [torch.tensor(group["lr"], dtype=torch.float32) for group in optimizer.param_groups]
        with rates_on_device(optimizer, rates):
            usual = self._optimise(network, self._taken(batch), number, _NO_HOOKS)
        after = [one.clone() for one in state]
        with torch.no_grad():
            for one, old in zip(state, before):
                one.copy_(old)
        torch.set_rng_state(random)
        outcome = super()._step(network, batch, number)
        same = all(_equal(a, b) for a, b in zip(after, state)) and all(
            _equal(a, b) for a, b in zip(tree_leaves(usual), tree_leaves(outcome), strict=True)
        )
        if not same:
            self.differing.add(self.trainer.current_epoch)
        return outcome

    def _tensors(self, network) -> list[Tensor]:
        states = self.trainer.optimizers[0].state.values()
        of_optimizer = [one for state in states for one in state.values() if isinstance(one, Tensor)]
        return [*network.parameters(), *network.buffers(), *of_optimizer]


def _equal(first: Tensor, second: Tensor) -> bool:
    return torch.equal(torch.nan_to_num(first.detach()), torch.nan_to_num(second.detach()))
