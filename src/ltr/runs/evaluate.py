"""Judging a trained method: one pass over a split, every variant and protocol at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ltr.errors import DataError
from ltr.runs.device import autocast


@dataclass(frozen=True)
class Judged:
    """What one protocol says of one variant."""

    protocol: str
    variant: str
    headline: bool
    result: Any  # the protocol's own result: metrics, per_class, predictions, ...


def evaluate(
    predictor: Any,
    loader: Any,
    protocol: Callable[[str, bool], Any],
    device: torch.device,
    precision: str,
) -> list[Judged]:
    """Run ``predictor.predict`` over a split once and judge each variant it gives.

    Args:
        predictor: a module with `predict`, ``headline`` and ``link`` (see `ltr.methods.stage.Predictor`).
        loader: batches of the split, each image once.
        protocol: (link, whether a row per image is kept) -> a fresh protocol object. Rows are kept of the headline
            variant.

    Raises:
        DataError: the split is empty.
    """
    protocols: dict[str, Any] = {}
    module = predictor.to(device).eval()
    with torch.inference_mode(), autocast(device, precision):
        for batch in loader:
            scores: Mapping[str, Any] = module.predict(batch.images)
            for variant, found in scores.items():
                if variant not in protocols:
                    protocols[variant] = protocol(module.link, variant == module.headline)
                protocols[variant].update(found, batch.labels, batch.indices)
    if not protocols:
        raise DataError("there is nothing to judge: the split has no images")
    judged = []
    for variant, one in protocols.items():
        one.reduce()
        judged.append(Judged(one.name, variant, variant == module.headline, one.compute()))
    return judged
