"""Evaluation a trained method: one pass over a split, every variant, protocol and scorer at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ltr.errors import DataError
from ltr.evaluation.training_scores import Collected, TrainingScores
from ltr.methods.core.network import ImageClassifier
from ltr.runs.device import autocast
from ltr.runs.location_stats import LocationStats

EXAMPLES = 16  # test images that a method may show something of


@dataclass(frozen=True)
class Evaluated:
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
    looks: LocationStats | None = None,
) -> list[Evaluated]:
    """Run ``predictor.predict`` over a split once and evaluate each variant it gives.

    Args:
        predictor: a module with `predict`, ``headline`` and ``link`` (see `ltr.methods.core.stage.Predictor`).
        loaders: the batches of the evaluated part of the split, under its name, and of further parts that some
            protocols look at (``unknown``); each image once. Of ``train`` there are scores for those that are fitted to
            them.
        protocols: (link, whether a row per image is kept) -> fresh protocol objects, the headline's first. Rows are
            kept of the headline variant.
        thresholds: of the open-set protocol by (variant, scorer), as validation images gave them.
        looks: of a network that selects locations: its numbers join the metrics of the headline variant's first row.

    Raises:
        DataError: the split is empty.
    """
    evaluates: dict[str, list[Any]] = {}
    module = predictor.to(device).eval()
    with torch.inference_mode(), autocast(device, precision):
        trained = _collected(module, loaders["train"]) if "train" in loaders else {}
        for place, (part, loader) in enumerate((name, one) for name, one in loaders.items() if name != "train"):
            for batch in loader:
                if looks is not None and place == 0:
                    looks.add(module, batch)
                scores: Mapping[str, Any] = module.predict(batch.images)
                for variant, found in scores.items():
                    if variant not in evaluates:
                        evaluates[variant] = protocols(module.link, variant == module.headline)
                        for evaluate in evaluates[variant]:
                            if trained and getattr(evaluate, "needs_training", False):
                                evaluate.fit(trained[variant])
                            found_before = (thresholds or {}).get((variant, evaluate.scorer))
                            if found_before is not None and hasattr(evaluate, "with_threshold"):
                                evaluate.with_threshold(found_before)
                    for evaluate in evaluates[variant]:
                        if place == 0 or part in evaluate.parts:
                            evaluate.update(found, batch.labels, batch.indices)
    if not evaluates:
        raise DataError("there is nothing to evaluate: the split has no images")
    evaluated = []
    for variant, of_variant in evaluates.items():
        for place, evaluate in enumerate(of_variant):
            evaluate.reduce()
            headline = variant == module.headline and place == 0
            result = evaluate.compute()
            if headline and looks is not None:
                result.metrics.update(looks.means())
            evaluated.append(Evaluated(evaluate.name, variant, evaluate.scorer, headline, result))
    return evaluated


def _collected(module: Any, loader: Iterable[Any]) -> dict[str, TrainingScores]:
    """What every variant says of training images."""
    found: dict[str, Collected] = {}
    for batch in loader:
        for variant, scores in module.predict(batch.images).items():
            found.setdefault(variant, Collected()).update(scores, batch.labels, batch.indices)
    return {variant: one.all() for variant, one in found.items()}


def examples_of(predictor: Any, network: Any, data: Any, device: torch.device, precision: str) -> dict[str, np.ndarray]:
    """What a method shows of a few test images, spread over the classes, for pictures; {} where it shows nothing.

    Args:
        predictor: what is asked for them.
        network: the method's own network, which says whether there is anything to ask for.
        data: an `ltr.data.module.DataModule`.
    """
    if type(network).examples is ImageClassifier.examples:
        return {}  # no image need be read
    test = data.split.test
    places = np.linspace(0, len(test) - 1, min(EXAMPLES, len(test))).astype(np.int64)
    (batch,) = list(data.evaluation_loader(test[places]))[:1]
    with torch.inference_mode(), autocast(device, precision):
        return predictor.examples(batch.images, batch.labels)
