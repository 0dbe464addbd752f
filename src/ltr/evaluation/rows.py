"""A few numbers for every image, kept on the device until they are asked for: for metrics that need all images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ltr.evaluation.gather import gather_rows


class Rows:
    """Columns that grow by a batch at a time; nothing waits for the device.

    Args:
        columns: name -> dtype and shape of one image's entry.
        device: where they live.
    """

    def __init__(self, columns: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], device: torch.device) -> None:
        self.columns = dict(columns)
        self.device = device
        self._batches: dict[str, list[Tensor]] = {name: [] for name in self.columns}

    @property
    def bytes_per_image(self) -> int:
        return sum(dtype.itemsize * int(np.prod(shape, dtype=int)) for dtype, shape in self.columns.values())

    def add(self, **values: Tensor) -> None:
        """One batch [B, ...] of every column; what is no column is left out."""
        for name, (dtype, _) in self.columns.items():
            self._batches[name].append(values[name].to(dtype))

    def extend(self, other: Rows) -> None:
        """The images of another object with the same columns."""
        for name, batches in other._batches.items():
            self._batches[name].extend(batches)

    def gather(self) -> None:
        """Put the images of all processes together; each of them calls this, and has all images afterwards."""
        for name in self.columns:
            self._batches[name] = [gather_rows(self._whole(name))]

    def _whole(self, name: str) -> Tensor:
        if self._batches[name]:
            return torch.cat(self._batches[name])
        dtype, shape = self.columns[name]
        return torch.zeros((0, *shape), dtype=dtype, device=self.device)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column on the host, [N, ...]."""
        return self._whole(name).cpu().numpy()

    def batches(self, name: str) -> list[Tensor]:
        """A column as it was added, for what is too large to be copied into one."""
        return self._batches[name] or [self._whole(name)]
