"""The protocols that a split may ask for, built as the evaluation page says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ltr.data.splits import Split
from ltr.errors import ConfigError
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
        ConfigError: a protocol that there is none of, or bounds of the page that contradict each other.
    """
    return _protocol_class(split)(
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
    return _protocol_class(split).headline


def _protocol_class(split: Split) -> Any:
    name = split.protocols[0]
    if name not in PROTOCOLS:
        raise ConfigError(
            f"the split '{split.name}' is judged by {name}, and this version judges by {', '.join(PROTOCOLS)} only, so "
            "no run can be made of it yet. Choose a data set page with another split"
        )
    return PROTOCOLS[name]
