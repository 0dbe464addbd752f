"""All-gather with gradients, for losses that compare the images of a batch with each other."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


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
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows
    if rows.requires_grad:
        return torch.cat(all_gather(rows.contiguous()))
    parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
