"""Merging of low-rank updates in a state dict, under peft's names, into the weights that they update."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ltr.errors import CheckpointError

_BASE, _DOWN, _UP = ".base_layer.", ".lora_A.", ".lora_B."


def has_updates(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict holds low-rank updates."""
    return any(_DOWN in name for name in state)


def merged_updates(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Return a state dict with the names of the plain network: each weight is W + scale * B A.

    A is [rank, in] and B [out, rank]; for a convolution [rank, in, k, k] and [out, rank, 1, 1].

    Args:
        state: state dict with tensors ``X.base_layer.weight``, ``X.lora_A.NAME.weight`` and ``X.lora_B.NAME.weight``.
        scale: alpha / rank.

    Raises:
        KeyError: an update is incomplete, or its weight is missing.
    """
    merged = {
        name.replace(_BASE, "."): tensor for name, tensor in state.items() if _DOWN not in name and _UP not in name
    }
    for name, down in state.items():
        if _DOWN not in name:
            continue
        up = state[name.replace(_DOWN, _UP)].float()
        layer = name.split(_DOWN)[0]
        weight = state[f"{layer}{_BASE}weight"]
        update = torch.einsum("or,r...->o...", up.flatten(1), down.float())
        merged[f"{layer}.weight"] = (weight.float() + scale * update).to(weight.dtype)
    return merged


def scale_of(description: Any, path: Any) -> float:
    """Return alpha / rank of the run that wrote a checkpoint.

    Args:
        description: the checkpoint's entry of that name, JSON text.

    Raises:
        CheckpointError: the description lacks alpha or rank.
    """
    try:
        tune = json.loads(description)["settings"]["tune"]
        return float(tune["alpha"]) / int(tune["rank"])
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"'{path}' holds low-rank updates (LoRA) without their scale, alpha / rank. Give the checkpoint of an ltr "
            "run, or merge them with the code that trained them"
        ) from error
