"""Activation checkpointing of a backbone's blocks: less memory and a second forward pass, with equal gradients.

A block keeps only its input; the backward pass recomputes the activations inside. Unlike plain
`torch.utils.checkpoint`, the second forward pass does not update BatchNorm's running statistics again.
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
    """Make the blocks of ``backbone`` keep only their inputs for the backward pass.

    Names and shapes of weights, and the forward pass in eval mode or without gradients, do not change. Under
    `torch.compile` the blocks run uncompiled.

    Returns:
        The blocks, see `find_blocks`.
    """
    blocks = find_blocks(backbone)
    for block in blocks:
        # a bound method, because a deep copy of the network (weight averaging) binds it to the copied block
        block.forward = MethodType(_checkpointed, block)
    return blocks


def find_blocks(module: nn.Module) -> list[nn.Module]:
    """Return the innermost blocks of several layers with weights: residual blocks, transformer blocks, plain stages.

    Sequences of blocks are searched recursively; single layers outside all blocks are excluded.
    """
    blocks: list[nn.Module] = []
    for child in module.children():
        if not _is_block(child):
            continue
        blocks += find_blocks(child) if _holds_sequences(child) else [child]
    return blocks


def _is_block(module: nn.Module) -> bool:
    """Return whether the module has weights and is not a single layer."""
    return any(True for _ in module.children()) and any(p.ndim > 1 for p in module.parameters())


def _holds_sequences(module: nn.Module) -> bool:
    """Return whether the module contains a sequence of blocks."""
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
        return nullcontext(), _preserve_statistics(block)

    return checkpoint(forward, block, *inputs, use_reentrant=False, context_fn=contexts, **named)


@contextmanager
def _preserve_statistics(block: nn.Module) -> Iterator[None]:
    """Let BatchNorm layers update copies of their buffers, and restore the buffers afterwards."""
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm)]
    saved = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, saved):
        norm._buffers.update({name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, saved):
            norm._buffers.update(buffers)
