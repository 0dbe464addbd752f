"""Losses over the processes of a training: sums, broadcasts, all-gather with gradients, and random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def world_size() -> int:
    """Return the number of training processes; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; 0 without a process group."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def all_reduce_sum(values: Tensor) -> None:
    """Sum a tensor over all processes, in place; a no-op without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(values)


class BatchNumbers:
    """Random numbers of a step's global batch: each process takes those of its images, so that k processes equal one.

    A single process needs none of this, and takes the same numbers from torch's generator, which a step seeds.

    Args:
        seed: seed of the step, the same in all processes.
        rows_per_image: rows of an image, one after another.
    """

    def __init__(self, seed: int, rows_per_image: int = 1) -> None:
        self.seed, self.rows_per_image = seed, rows_per_image
        self._generator: torch.Generator | None = None

    def uniforms(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Return uniform numbers in [0, 1) for the rows of this process, [rows, columns].

        A further call continues the sequence. All processes must ask for the same numbers of rows.
        """
        if self._generator is None:
            self._generator = torch.Generator(device).manual_seed(self.seed)
        size, images = world_size(), rows // self.rows_per_image
        whole = torch.rand((images * size, self.rows_per_image, columns), generator=self._generator, device=device)
        return whole[rank() :: size].reshape(rows, columns)


def gather_with_gradient(rows: Tensor) -> Tensor:
    """All-gather the rows of all processes in the order of the global batch; a single process gets its rows back.

    Images are sharded with a stride (`ltr.data.sampling.samplers.shard`): row b of the global batch is row
    ``b // world_size`` of process ``b % world_size``. A loss of the gathered rows is thus that of one process.

    Gradients flow back to the process that a row came from, summed over the processes' losses. If every process
    computes the same loss from the gathered rows and DDP averages the gradients, parameters get the gradient of that
    loss. All processes must pass the same number of rows.

    Args:
        rows: [B, ...] of this process; integer tensors carry no gradient.

    Returns:
        [B * world size, ...].
    """
    if world_size() == 1:
        return rows
    if rows.requires_grad:
        return _interleave(all_gather(rows.contiguous()))
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return _interleave(parts)


def broadcast_from_rank_zero(values: Tensor) -> Tensor:
    """Overwrite a tensor in place with that of rank 0, and return it; a no-op in a single process.

    Random numbers of a gathered batch must be the same in all processes, whose generators differ
    (`ltr.runs.processes.strategies`).

    Args:
        values: of the same shape and type in all processes.
    """
    if world_size() > 1:
        distributed.broadcast(values, 0)
    return values


def _interleave(parts: Sequence[Tensor]) -> Tensor:
    """Return rows 0 of all parts, then rows 1, and so on."""
    return torch.stack(tuple(parts), 1).flatten(0, 1)
