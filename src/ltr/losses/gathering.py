"""Rows of all processes at once, for losses that compare the images of a batch with each other."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; one process has them already.

    Gradients flow back to the process that a row came from, summed over the processes' losses. Where every process
    takes the same loss of the gathered rows and gradients are averaged over processes, as DDP does, parameters get the
    gradient of that one loss. Each process must come with as many rows.

    Args:
        rows: [B, ...] of this process; a tensor of whole numbers has no gradient.

    Returns:
        [B * number of processes, ...].
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows
    if rows.requires_grad:
        return torch.cat(all_gather(rows.contiguous()))
    parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
