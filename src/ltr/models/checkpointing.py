"""Activation checkpointing of a backbone's blocks: less memory for a second forward pass, and the same gradients.

A block keeps its input alone; what lies inside is computed again when the backward pass arrives. The second pass
leaves BatchNorm's running statistics as the first one made them, which torch's own function does not see to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(backbone: nn.Module) -> list[nn.Module]:
    """From now on, the blocks of ``backbone`` keep only their inputs for the backward pass.

    Names and shapes of weights stay. In eval mode and without gradients nothing changes. Under `torch.compile` the
    blocks run as they are, uncompiled.

    Returns:
        The blocks, see `blocks_of`.
    """
    blocks = blocks_of(backbone)
    for block in blocks:
        # a bound method: a deep copy of the network (weight averaging) is then bound to its own copy of the block
        block.forward = MethodType(_checkpointed, block)
    return blocks


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The innermost weighted blocks of several layers: residual blocks, transformer blocks, plain stages.

    Sequences of such blocks are looked into; single layers outside all blocks are left out.
    """
    found: list[nn.Module] = []
    for child in module.children():
        if not _is_block(child):
            continue
        found += blocks_of(child) if _holds_sequences(child) else [child]
    return found


def _is_block(module: nn.Module) -> bool:
    """It has weights and is not a single layer."""
    return any(True for _ in module.children()) and any(p.ndim > 1 for p in module.parameters())


def _holds_sequences(module: nn.Module) -> bool:
    """Somewhere inside are blocks one after another."""
    return any(
        isinstance(part, nn.Sequential | nn.ModuleList) and any(_is_block(child) for child in part)
        for part in module.modules()
    )


@torch.compiler.disable
def _checkpointed(block: nn.Module, *inputs: Any, **named: Any) -> Any:
    forward = type(block).forward
    if not (block.training and torch.is_grad_enabled()):
        return forward(block, *inputs, **named)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _kept_statistics(block)

    return checkpoint(forward, block, *inputs, use_reentrant=False, context_fn=contexts, **named)


@contextmanager
def _kept_statistics(block: nn.Module) -> Iterator[None]:
    """BatchNorm inside notes what it sees in copies of its buffers, which are then forgotten."""
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept):
        norm._buffers.update({name: None if own is None else own.clone() for name, own in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept):
            norm._buffers.update(buffers)
