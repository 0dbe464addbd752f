"""Checkpoints of a tuned backbone: they hold the trained tensors, and the file and digest of the frozen ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltr.errors import CheckpointError

_PREFIX = "backbone."


@dataclass(frozen=True)
class Base:
    """The frozen part of a tuned backbone, as it was loaded.

    Attributes:
        names: names of the frozen tensors in the network's state dict.
        digest: SHA-256 of these tensors, in hex.
        weights: the file that they were loaded from.
    """

    names: tuple[str, ...]
    digest: str
    weights: str


def base_of(backbone: nn.Module, config: Mapping[str, Any]) -> Base | None:
    """Return the frozen part of a backbone that is prepared for tuning; None if its config names no weights file.

    Args:
        backbone: before its first step.
    """
    weights = config.get("weights")
    if not weights:
        return None
    names = _frozen_names(backbone)
    state = {f"{_PREFIX}{name}": tensor for name, tensor in backbone.state_dict().items()}
    return Base(names, tensors_digest(state, names), str(Path(weights).absolute())) if names else None


def without_base(state: Mapping[str, Tensor], base: Base) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """Return a state dict without its frozen part, and the entry ``base`` that refers to it.

    If the frozen part has changed, return the complete state dict and None.
    """
    if any(name not in state for name in base.names) or tensors_digest(state, base.names) != base.digest:
        return dict(state), None
    frozen = set(base.names)
    delta = {name: tensor for name, tensor in state.items() if name not in frozen}
    return delta, {"digest": base.digest, "weights": base.weights}


def base_file(entry: Any, path: Path) -> str:
    """Return the file of a checkpoint's base weights: the recorded path, or the same name in the checkpoint's folder.

    Raises:
        CheckpointError: the entry is damaged, or neither file exists.
    """
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("digest", "weights")):
        raise CheckpointError(f"{path}: damaged: its entry 'base' does not name the weights that it was tuned from")
    weights = Path(entry["weights"])
    existing_file = next((file for file in (weights, path.parent / weights.name) if file.is_file()), None)
    if existing_file is None:
        raise CheckpointError(
            f"{path}: it holds only the tuned tensors; the frozen ones are in '{weights}' (SHA-256 "
            f"{entry['digest'][:12]}), which does not exist. Put the file back, or a copy beside the checkpoint; "
            "checkpoint.tuned=whole trains runs whose checkpoints need no other file"
        )
    return str(existing_file)


def check_base(base: Base | None, entry: Mapping[str, str], path: Path) -> None:
    """Raise CheckpointError if the base weights changed since the checkpoint was written."""
    if base is None or base.digest != entry["digest"]:
        raise CheckpointError(
            f"{path}: '{entry['weights']}' has changed since it was tuned from that file (SHA-256 of the frozen "
            f"tensors {entry['digest'][:12]}, now {base.digest[:12] if base else 'unknown'}). Put the former file back"
        )


def tensors_digest(state: Mapping[str, Tensor], names: tuple[str, ...]) -> str:
    """Return the SHA-256, in hex, of the names, dtypes, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name in names:
        values = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _frozen_names(backbone: nn.Module) -> tuple[str, ...]:
    """Return names of frozen parameters, and of the statistics of normalisation layers whose weight is frozen."""
    frozen = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    for path, module in backbone.named_modules():
        if isinstance(module, _BatchNorm) and (module.weight is None or not module.weight.requires_grad):
            frozen |= {f"{path}.{name}" for name, _ in module.named_buffers()}
    return tuple(f"{_PREFIX}{name}" for name in backbone.state_dict() if name in frozen)
