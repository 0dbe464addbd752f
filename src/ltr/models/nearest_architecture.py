"""Search for the architecture whose tensor shapes fit a weights file, if the configured architecture does not."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ltr.models.state_file import read_state

_SECONDS = 10.0  # time limit for building candidates
_LEAST = 0.5  # smallest share of common shapes for which an architecture is named


def family_of(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin with the letters of ``name``, such as ``resnet`` for ``resnet50``.

    Names of similar length come first.
    """
    stem = re.split(r"\d", name.partition(".")[0], maxsplit=1)[0].rstrip("_")
    relatives = [one for one in names if one.startswith(stem) and one != name]
    return sorted(relatives, key=lambda one: (abs(len(one) - len(name)), one))


def nearest_architecture(
    file: str | Path, names: Iterable[str], build: Callable[[str], nn.Module], seconds: float = _SECONDS
) -> str:
    """Return a sentence that names the architecture with the shapes of a file; '' if none has half of them.

    Args:
        file: weights that do not fit.
        names: candidates, the most likely first.
        build: builds a candidate with a classifier from its name, under a meta device.
        seconds: time limit, after which no further candidate is built.
    """
    wanted = shapes_of(read_state(file))
    deadline = time.monotonic() + seconds
    best, best_shared = "", 0.0
    for name in names:
        if time.monotonic() > deadline:
            break
        try:
            with torch.device("meta"):
                shapes = shapes_of(build(name).state_dict())
        except Exception:  # libraries raise different errors, and some networks need tensors with values
            continue
        shared = (wanted & shapes).total() / max(wanted.total(), shapes.total())
        if shared > best_shared:
            best, best_shared = name, shared
        if shared == 1.0:
            return f"The shapes of its tensors are those of {best}: set backbone.name={best}"
    if best_shared < _LEAST:
        return ""
    return f"The nearest architecture of this family is {best}, which has {best_shared:.0%} of its shapes"


def shapes_of(state: Mapping[str, Tensor]) -> Counter[tuple[int, ...]]:
    """Count the tensor shapes of a state dict, without the step counters of batch normalisation."""
    return Counter(tuple(tensor.shape) for name, tensor in state.items() if not name.endswith("num_batches_tracked"))
