"""The protocols that a split may ask for, built as the evaluation page says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ltr.data.splits import Split
from ltr.evaluation.closed_set import ClosedSet

PROTOCOLS = {"closed_set": ClosedSet}


def protocol_of(
    split: Split, page: Mapping[str, Any], link: str, device: torch.device, keep_predictions: bool = True
) -> Any:
    """A fresh object of the split's first protocol.

    Args:
        page: the evaluation page.
        link: softmax or sigmoid, as the network's loss declares.
        keep_predictions: whether a row per image is wanted.

    Raises:
        ConfigError: bounds of the page that contradict each other.
    """
    return PROTOCOLS[split.protocols[0]](
        split.class_counts,
        many_above=page["many_above"],
        few_below=page["few_below"],
        top_k=page["top_k"],
        calibration_bins=page["calibration_bins"],
        link=link,
        keep_predictions=keep_predictions,
        device=device,
    )


def headline_metric(split: Split) -> str:
    """The metric that selects and that a sweep optimises; larger is better."""
    return PROTOCOLS[split.protocols[0]].headline
