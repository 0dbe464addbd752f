"""Batches of a training or evaluation step, and transfers from host to device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Mix(NamedTuple):
    """Labels and weight that mixup and cutmix add to a batch."""

    labels: Tensor  # int64 [B], the label of the second image
    weight: Tensor  # float32 [B] in [0, 1], the share of the FIRST label


class Batch(NamedTuple):
    """Batch of a training or evaluation step."""

    images: Tensor  # uint8 [B, C, H, W] in channels_last memory; float32 in [0, 1] if images are mixed
    labels: Tensor  # int64 [B], the split's labels; -1 where a class has none
    indices: Tensor  # int64 [B], indices into the source
    mix: Mix | None = None
    views: tuple[Tensor, ...] = ()  # the same images under further augmentations, each as ``images``


class PendingBatch(NamedTuple):
    """Batch whose images are still to be taken from those on the device, and augmented."""

    labels: Tensor  # int64 [B]
    indices: Tensor  # int64 [B], indices into the source
    windows: Tensor | None  # int64 [2, B], see `ltr.data.augmentation.augment.cut_windows`; None without a crop


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy ``array`` to ``device`` without waiting for running work there."""
    tensor = torch.from_numpy(array)
    # only a copy from pinned memory is asynchronous; torch's allocator keeps the block until the copy is done
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def with_device_index(device: torch.device | str) -> torch.device:
    """Return ``device`` with its index, so that ``cuda`` and ``cuda:0`` compare equal."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
