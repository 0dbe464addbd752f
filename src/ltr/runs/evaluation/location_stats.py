"""Statistics of the locations that a network selects in evaluation images.

If images have bounding boxes, the statistics are shares of locations whose centre lies in the box: among selected
locations, dropped locations and all locations (the last is the expectation for random selection).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltr.data.batch import Batch
from ltr.data.images.boxes import boxes_in_crop, locations_in_boxes
from ltr.data.module import DataModule
from ltr.data.source import ImageFiles
from ltr.evaluation.rows import Rows
from ltr.methods.core.network import ImageClassifier

SELECTED = "selected_"
SHARES = ("selected_in_box", "all_in_box", "dropped_in_box")


class LocationStats:
    """Mean over images of the values of `ImageClassifier.locations`.

    Args:
        data: the data module; its source may have bounding boxes, and evaluation uses its crop.
    """

    def __init__(self, data: DataModule) -> None:
        self.data = data
        self._rows = Rows()

    def add(self, locations: Mapping[str, Tensor], batch: Batch) -> None:
        """Add the locations that the network selects in one batch of evaluation."""
        if not locations:
            return
        numbers = {name: values.float() for name, values in locations.items() if not name.startswith(SELECTED)}
        masks = {name.removeprefix(SELECTED): mask for name, mask in locations.items() if name.startswith(SELECTED)}
        if self.data.source.boxes is not None and isinstance(self.data.source.images, ImageFiles):
            numbers |= self._in_boxes(masks, batch.indices.cpu().numpy())
        self._rows.add(**numbers)

    def _in_boxes(self, masks: dict[str, Tensor], indices: np.ndarray) -> dict[str, Tensor]:
        """Return the shares of `SHARES`, [B] each, over all levels and, with the level's number, for each level."""
        boxes = boxes_in_crop(self.data.source, indices, self.data.file_crop)
        inside, selected = {}, {}
        for level, mask in masks.items():
            is_inside = torch.from_numpy(locations_in_boxes(boxes, *mask.shape[1:]))
            inside[level], selected[level] = is_inside.to(mask.device), mask.flatten(1)
        all_levels = shares(torch.cat(list(inside.values()), 1), torch.cat(list(selected.values()), 1))
        numbers = dict(zip(SHARES, all_levels))
        for level in masks:
            level_shares = shares(inside[level], selected[level])
            numbers |= {f"{name}_{level}": share for name, share in zip(SHARES, level_shares)}
        return numbers

    def means(self) -> dict[str, float]:
        """Return the mean of each number over the images of all processes; NaN if a level drops no location.

        The result is empty if no image was added.
        """
        self._rows.join()
        return {name: float(self._rows[name].mean(dtype=np.float64)) for name in self._rows.columns}


def location_stats(network: Any, data: DataModule) -> LocationStats | None:
    """Return the statistics object for this network; None if it selects no locations."""
    if not isinstance(network, ImageClassifier) or type(network).locations is ImageClassifier.locations:
        return None
    return LocationStats(data)


def shares(inside: Tensor, selected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the shares inside the box among selected, all and dropped locations: float64 [B] each.

    Args:
        inside, selected: bool [B, N].
    """
    inside, selected = inside.double(), selected.double()
    dropped = 1 - selected
    return (inside * selected).sum(1) / selected.sum(1), inside.mean(1), (inside * dropped).sum(1) / dropped.sum(1)
