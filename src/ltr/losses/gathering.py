"""Collectives of losses over the processes of a training: sums, and all-gather with gradients."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def world_size() -> int:
    """Return the number of training processes; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def all_reduce_sum(values: Tensor) -> None:
    """Sum a tensor over all processes, in place; a no-op without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(values)


def gather_with_gradient(rows: Tensor) -> Tensor:
    """All-gather the rows of all processes in rank order; a single process gets its rows back.

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
        return torch.cat(all_gather(rows.contiguous()))
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
