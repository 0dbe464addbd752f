"""Evaluation of a trained method: all variants, protocols and scorers in one pass over a split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ltr.errors import DataError
from ltr.evaluation.training_scores import TrainingScores, TrainingScoresTable
from ltr.methods.core.network import ImageClassifier
from ltr.runs.evaluation.location_stats import LocationStats
from ltr.runs.processes.device import autocast, predicting

EXAMPLES = 16  # number of test images for which a method may return example arrays


@dataclass(frozen=True)
class ProtocolResult:
    """Result of one protocol with one scorer for one variant.

    Attributes:
        variant: name of the variant of the method's predictions.
        scorer: name of the scorer, or None.
        headline: True for the headline result of the run.
        result: metrics, per_class, predictions and curves of the protocol.
    """

    protocol: str
    variant: str
    scorer: str | None
    headline: bool
    result: Any


def evaluate(
    predictor: Any,
    loaders: Mapping[str, Iterable[Any]],
    protocols: Callable[[str, bool], list[Any]],
    device: torch.device,
    precision: str,
    thresholds: Mapping[tuple[str, str | None], float] | None = None,
    stats: LocationStats | None = None,
) -> list[ProtocolResult]:
    """Run ``predictor.predict`` over a split once and evaluate each variant that it returns.

    Args:
        predictor: a module with `predict`, ``headline`` and ``link`` (see `ltr.methods.core.stage.Method.predictor`).
        loaders: batches by part of the split, each image once: the evaluated part, further parts that protocols read
            (``unknown``), and ``train`` to fit scorers.
        protocols: (link, True to keep a row per image) -> new protocol objects, the headline first. Only the headline
            variant keeps rows.
        precision: ``bf16``, ``fp16`` or ``fp32``.
        thresholds: thresholds of the open-set protocol by (variant, scorer), chosen on validation images.
        stats: location statistics, which are added to the metrics of the headline variant's first row.

    Raises:
        DataError: the split is empty.
    """
    protocols_of_variants: dict[str, list[Any]] = {}
    module = predictor.to(device).eval()
    with predicting(module, device, precision):
        training = _training_scores(module, loaders["train"]) if "train" in loaders else {}
        for position, (part, loader) in enumerate((name, one) for name, one in loaders.items() if name != "train"):
            for batch in loader:
                predictions: Mapping[str, Any]
                if stats is not None and position == 0:
                    predictions, locations = module.predict_with_locations(batch.images)
                    stats.add(locations, batch)
                else:
                    predictions = module.predict(batch.images)
                for variant, scores in predictions.items():
                    if variant not in protocols_of_variants:
                        fresh = protocols(module.link, variant == module.headline)
                        _prepare(fresh, variant, training.get(variant), thresholds or {})
                        protocols_of_variants[variant] = fresh
                    for protocol in protocols_of_variants[variant]:
                        if position == 0 or part in protocol.parts:
                            if getattr(protocol, "reads_images", False):  # protocols of users may lack it
                                protocol.update_images(_as_network_takes(module, batch.images), batch.indices)
                            protocol.update(scores, batch.labels, batch.indices)
    if not protocols_of_variants:
        raise DataError("there is nothing to evaluate: the split has no images. Choose another part or data set")
    results = []
    for variant, variant_protocols in protocols_of_variants.items():
        for position, protocol in enumerate(variant_protocols):
            protocol.reduce()
            headline = variant == module.headline and position == 0
            result = protocol.compute()
            if headline and stats is not None:
                result.metrics.update(stats.means())
            results.append(ProtocolResult(protocol.name, variant, protocol.scorer, headline, result))
    return results


def _as_network_takes(predictor: Any, images: torch.Tensor) -> torch.Tensor:
    """Return images as the network inside an `InputAdapter` takes them."""
    adapt = getattr(predictor, "adapt", None)
    return images if adapt is None else adapt(images)


def _prepare(
    protocols: Iterable[Any],
    variant: str,
    training: TrainingScores | None,
    thresholds: Mapping[tuple[str, str | None], float],
) -> None:
    """Fit the scorers that need it, and set the thresholds chosen on validation images."""
    for protocol in protocols:
        if training is not None and getattr(protocol, "needs_training", False):
            protocol.fit(training)
        threshold = thresholds.get((variant, protocol.scorer))
        if threshold is not None and hasattr(protocol, "with_threshold"):
            protocol.with_threshold(threshold)


def _training_scores(module: Any, loader: Iterable[Any]) -> dict[str, TrainingScores]:
    """Return the scores of the training images, by variant."""
    tables: dict[str, TrainingScoresTable] = {}
    for batch in loader:
        for variant, scores in module.predict(batch.images).items():
            tables.setdefault(variant, TrainingScoresTable()).update(scores, batch.labels, batch.indices)
    return {variant: table.joined() for variant, table in tables.items()}


def examples_of(predictor: Any, network: Any, data: Any, device: torch.device, precision: str) -> dict[str, np.ndarray]:
    """Return the method's example arrays of a few test images, spread over the classes; {} if it has none.

    Args:
        predictor: computes the arrays.
        network: the method's network, which declares whether it has examples.
    """
    if type(network).examples is ImageClassifier.examples:
        return {}  # without reading images
    test = data.split.test
    positions = np.linspace(0, len(test) - 1, min(EXAMPLES, len(test))).astype(np.int64)
    (batch,) = list(data.evaluation_loader(test[positions]))[:1]
    with torch.inference_mode(), autocast(device, precision):
        return predictor.examples(batch.images, batch.labels)
