"""All-gather of rows over processes with different numbers of rows."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def is_distributed() -> bool:
    """Return whether several processes evaluate together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def gather_uneven_rows(rows: Tensor) -> Tensor:
    """Return the rows [n_p, ...] of all processes p in rank order; all processes must call it."""
    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(size) for _ in range(distributed.get_world_size())]
    distributed.all_gather(sizes, size)
    lengths = [int(length) for length in sizes]
    padded = rows.new_zeros((max(lengths), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths)])
