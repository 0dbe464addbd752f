"""Judging a trained method: one pass over a split, every variant, protocol and scorer at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ltr.errors import DataError
from ltr.runs.device import autocast


@dataclass(frozen=True)
class Judged:
    """What one protocol, with one scorer, says of one variant."""

    protocol: str
    variant: str
    scorer: str | None
    headline: bool
    result: Any  # the protocol's own result: metrics, per_class, predictions, curves


def evaluate(
    predictor: Any,
    loaders: Mapping[str, Iterable[Any]],
    protocols: Callable[[str, bool], list[Any]],
    device: torch.device,
    precision: str,
    thresholds: Mapping[tuple[str, str | None], float] | None = None,
) -> list[Judged]:
    """Run ``predictor.predict`` over a split once and judge each variant it gives.

    Args:
        predictor: a module with `predict`, ``headline`` and ``link`` (see `ltr.methods.stage.Predictor`).
        loaders: the batches of the judged part of the split, under its name, and of further parts that some protocols
            look at (``unknown``); each image once.
        protocols: (link, whether a row per image is kept) -> fresh protocol objects, the headline's first. Rows are
            kept of the headline variant.
        thresholds: of the open-set protocol by (variant, scorer), as validation images gave them.

    Raises:
        DataError: the split is empty.
    """
    judges: dict[str, list[Any]] = {}
    module = predictor.to(device).eval()
    with torch.inference_mode(), autocast(device, precision):
        for place, (part, loader) in enumerate(loaders.items()):
            for batch in loader:
                scores: Mapping[str, Any] = module.predict(batch.images)
                for variant, found in scores.items():
                    if variant not in judges:
                        judges[variant] = protocols(module.link, variant == module.headline)
                        for judge in judges[variant]:
                            found_before = (thresholds or {}).get((variant, judge.scorer))
                            if judge.name == "open_set" and found_before is not None:
                                judge.with_threshold(found_before)
                    for judge in judges[variant]:
                        if place == 0 or part in judge.parts:
                            judge.update(found, batch.labels, batch.indices)
    if not judges:
        raise DataError("there is nothing to judge: the split has no images")
    judged = []
    for variant, of_variant in judges.items():
        for place, judge in enumerate(of_variant):
            judge.reduce()
            headline = variant == module.headline and place == 0
            judged.append(Judged(judge.name, variant, judge.scorer, headline, judge.compute()))
    return judged
