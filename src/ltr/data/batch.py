"""What a step is given, and how host arrays come to its device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Mix(NamedTuple):
    """What mixup and cutmix add to a batch."""

    labels: Tensor  # int64 [B], the label of the other image
    weight: Tensor  # float32 [B] in [0, 1], the share of the FIRST label


class Batch(NamedTuple):
    """What a training or evaluation step is given."""

    images: Tensor  # uint8 [B, C, H, W] in channels_last memory; float32 in [0, 1] where images were mixed
    labels: Tensor  # int64 [B], the split's labels; -1 where a class has none
    indices: Tensor  # int64 [B], indices into the source
    mix: Mix | None = None


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """``array`` as a tensor on ``device``, without waiting for work that is under way there."""
    tensor = torch.from_numpy(array)
    # only a copy from pinned memory is asynchronous; torch's allocator keeps the block until the copy is done
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def numbered(device: torch.device | str) -> torch.device:
    """``device`` with its number, so that ``cuda`` and ``cuda:0`` compare equal."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
