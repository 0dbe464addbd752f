"""Evaluation of existing weights, for ``ltr-eval``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltr.configuration.own_code import changed_code
from ltr.configuration.targets import check_arguments
from ltr.data.loaders.device import ResidentImages
from ltr.data.module import DataModule
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.errors import ConfigError, LtrError, refuse
from ltr.evaluation.rows import refuse_bad_scores
from ltr.evaluation.scores import log_normaliser, probabilities
from ltr.methods.core.checkpoint import describe, network_from_description
from ltr.methods.foreign import foreign_network
from ltr.runs.evaluation.candidates import Candidate, DatasetCache
from ltr.runs.evaluation.deployment_prior import evaluation_of
from ltr.runs.evaluation.input_adapter import adapt_input, adapted_dataset, check_evaluable
from ltr.runs.evaluation.network import ProtocolResult, examples_of
from ltr.runs.evaluation.overlap import Overlap
from ltr.runs.evaluation.overlap import check as check_overlap
from ltr.runs.evaluation.protocols import protocols_of
from ltr.runs.evaluation.split import SplitEvaluator
from ltr.runs.evaluation.unused_options import refuse_unused_options
from ltr.runs.plan import describe_dataset
from ltr.runs.processes.device import keep_freed_memory, predicting, resolve_device, resolve_precision
from ltr.runs.result import result_rows


@dataclass(frozen=True)
class CheckpointEvaluation:
    """Results of one candidate.

    Attributes:
        config: configuration with the image size of the evaluation.
        rows: rows as in ``result.json``.
        evaluated: results on ``part``, for every variant, protocol and scorer.
        examples: the method's example arrays of some test images.
        overlap: number of evaluated images that were trained on.
        note: sentence about changes to the images for the network; '' without changes.
    """

    candidate: Candidate
    config: dict[str, Any]
    split: Split
    part: str
    rows: list[dict[str, Any]]
    evaluated: list[ProtocolResult]
    examples: dict[str, Any]
    device: torch.device
    precision: str
    overlap: Overlap
    note: str = ""
    fingerprint: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def evaluate_checkpoints(
    candidates: Sequence[Candidate], part: str, print_line: Callable[[str], None] = lambda text: None
) -> Iterator[CheckpointEvaluation]:
    """Check all checkpoints, then evaluate them one after the other on a part of their splits.

    Args:
        part: ``test`` or ``val``.
        print_line: prints changes to the images for a network.

    Raises:
        CheckpointError: weights cannot be read, have other classes, or lack the outputs that a protocol needs.
        ConfigError: the part has no images, the network does not accept the images, or values contradict each other.
        DataError: the data set is missing or damaged.
    """
    data = DatasetCache()
    if len(candidates) > 1:
        for candidate in candidates:
            _prepared(candidate, part, data)
    for candidate in candidates:
        for package in changed_code(candidate.config):
            print_line(
                f"{candidate.label}: the code of {package} has changed since the run: the evaluation uses today's code"
            )
        evaluation = _evaluate(candidate, part, data)
        if evaluation.note:
            print_line(f"{candidate.label}: {evaluation.note}")
        yield evaluation


def headline_probabilities(
    candidate: Candidate, check: Callable[[Split], object] = lambda split: None
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], Split]:
    """Return float32 probabilities [N, C] and int64 labels [N] of the parts ``val`` and ``test``, and the split.

    They are those of the headline variant; a part without images is omitted.

    Args:
        check: called with the split before any image is read; may raise an error.

    Raises:
        CheckpointError, ConfigError, DataError: see `evaluate_checkpoints`; ConfigError without validation images.
        TrainingError: a score is not finite.
    """
    data = DatasetCache()
    _, _, split = data.read(candidate.config["dataset"])
    if not len(split.val):
        raise ConfigError(
            f"{candidate.checkpoint}: thresholds are chosen on validation images, and the split '{split.name}' has "
            "none. Train with dataset.val=train_fraction"
        )
    check(split)
    prepared = _prepared(candidate, "val", data)
    device = resolve_device(prepared.config["trainer"]["accelerator"])
    precision = resolve_precision(prepared.config["trainer"]["precision"], device)
    module = _data_module(prepared, device, None)
    predictor = prepared.predictor.to(device).eval()
    results = {}
    with predicting(predictor, device, precision):
        for part in ("val", "test"):
            if not len(getattr(split, part)):
                continue
            values, labels = [], []
            for batch in module.evaluation_loader(part):
                logits = predictor.predict(batch.images)[predictor.headline].logits
                if logits is None or logits.ndim != 2 or logits.shape[1] != split.num_classes:
                    raise ConfigError(
                        f"{candidate.checkpoint}: its method gives no score for each class, so there is nothing to "
                        "decide by. Choose a run of a classifier"
                    )
                logits = logits.float()
                normaliser = log_normaliser(logits, predictor.link)
                values.append(probabilities(logits, normaliser, predictor.link).cpu().numpy())
                labels.append(batch.labels.cpu().numpy())
            table = np.concatenate(values)
            refuse_bad_scores(int((~np.isfinite(table)).any(axis=1).sum()), len(table))
            results[part] = (table, np.concatenate(labels).astype(np.int64))
    return results, split


@dataclass(frozen=True)
class _Prepared:
    predictor: Any
    network: Any
    config: dict[str, Any]
    key: str
    source: Source
    split: Split
    evaluated: Split  # `split` with the class counts of the network's training
    overlap: Overlap
    note: str


def _prepared(candidate: Candidate, part: str, data: DatasetCache) -> _Prepared:
    """Return the checked network and its data; an error names the checkpoint."""
    config = dict(candidate.config)
    description = describe(candidate.checkpoint) if candidate.foreign is None else {}
    network = network_from_description(description, candidate.checkpoint) if candidate.foreign is None else None
    key, source, split = data.read(config["dataset"])
    try:
        if network is None:
            network = _foreign(candidate, config, source, split)
            config["backbone"] = dict(network.settings.backbone)  # with the residual shortcuts of the file's code
        split = _in_order_of(split, network.dataset_info.class_names)
        if candidate.elsewhere:
            config["dataset"] = adapted_dataset(config["dataset"], source, network.dataset_info, candidate.image_size)
        predictor, note = adapt_input(network, config["dataset"], source)
        evaluated = _with_training_counts(split, network)
        if evaluated is not split:
            counts = "classes are grouped by the training images of the network, which are not those of the data"
            note = "; ".join([note, counts] if note else [counts])
        check_evaluable(predictor, network, split, source, config["dataset"], part, config["evaluation"])
        overlap = _overlap(candidate, description, part, data, (config["dataset"], source, split), key)
        protocols_of(evaluated, evaluation_of(config), network.link, torch.device("cpu"))
        refuse_unused_options(split, config["evaluation"], candidate.options, part)
    except LtrError as error:
        text = str(error)
        if str(candidate.checkpoint) in text:
            raise
        raise type(error)(f"{candidate.checkpoint}: {text}") from error
    return _Prepared(predictor, network, config, key, source, split, evaluated, overlap, note)


def _in_order_of(split: Split, names: Sequence[str]) -> Split:
    """Return the split with the labels of a network of the same classes in another order, as of folders and a table."""
    if split.class_names == tuple(names) or sorted(split.class_names) != sorted(names):
        return split
    number = {name: label for label, name in enumerate(names)}
    labels = np.array([number[name] for name in split.class_names])
    if "background" in split.protocols and labels[0] != 0:
        return split
    label_map, counts = split.label_map.copy(), np.zeros_like(split.class_counts)
    is_class = (label_map >= 0) & (label_map < len(names))  # others are unknown, or test classes of retrieval
    label_map[is_class] = labels[label_map[is_class]]
    counts[labels] = split.class_counts
    return replace(split, label_map=label_map, class_names=tuple(names), class_counts=counts)


def _with_training_counts(split: Split, network: Any) -> Split:
    """Return the split with the images that the network was trained on as class counts, if it has the same classes.

    Groups of classes and priors describe the network, which knows nothing of the training images of another data set.
    """
    trained = network.dataset_info
    if tuple(trained.class_names) != split.class_names or list(trained.class_counts) == split.class_counts.tolist():
        return split
    return replace(split, class_counts=np.array(trained.class_counts))


def _overlap(
    candidate: Candidate,
    description: Mapping[str, Any],
    part: str,
    data: DatasetCache,
    evaluated: tuple[Mapping[str, Any], Source, Split],
    key: str,
) -> Overlap:
    """Count the evaluated images that were trained on; print or refuse them once for each checkpoint."""
    evaluation = (candidate.checkpoint, part, key)
    if evaluation not in data.overlaps:
        overlap = data.training.overlap(description, candidate.run, evaluated, part)
        check_overlap(candidate.label, overlap, candidate.allow_overlap)
        data.overlaps[evaluation] = overlap
    return data.overlaps[evaluation]


def _foreign(candidate: Candidate, config: Mapping[str, Any], source: Source, split: Split) -> Any:
    weights = candidate.foreign
    assert weights is not None
    refuse(
        check_arguments({part: config[part] for part in ("backbone", "head", "loss")}), "configs do not fit the code"
    )
    dataset_info = describe_dataset(config, source, split)
    return foreign_network(
        candidate.checkpoint,
        config,
        dataset_info,
        entry=weights.entry,
        names=weights.names,
        transposed=weights.transposed,
        layout=weights.layout,
        padding=weights.padding,
    )


def _evaluate(candidate: Candidate, part: str, data: DatasetCache) -> CheckpointEvaluation:
    prepared = _prepared(candidate, part, data)
    config, split = prepared.config, prepared.split
    device = resolve_device(config["trainer"]["accelerator"])
    if device.type == "cpu":
        keep_freed_memory()
    precision = resolve_precision(config["trainer"]["precision"], device)
    module = _data_module(prepared, device, data.images.get(prepared.key))
    data.images[prepared.key] = module.images

    evaluator = SplitEvaluator(
        prepared.evaluated, module, evaluation_of(config), device, precision, f"{candidate.label}, "
    )
    results = evaluator.evaluate_parts(prepared.predictor, [part], prepared.network)[part]
    checkpoint, selection = _selection(candidate.checkpoint, prepared.network)
    return CheckpointEvaluation(
        candidate,
        config,
        split,
        part,
        result_rows(results, split=part, checkpoint=checkpoint, selection=selection),
        results,
        examples_of(prepared.predictor, prepared.network, module, device, precision),
        device,
        precision,
        prepared.overlap,
        prepared.note,
        prepared.source.fingerprint,
        prepared.source.metadata_digests(),
    )


def _data_module(prepared: _Prepared, device: torch.device, images: ResidentImages | None) -> DataModule:
    dataset, evaluation = prepared.config["dataset"], prepared.config["evaluation"]
    return DataModule.for_evaluation(
        prepared.source,
        prepared.split,
        dataset,
        evaluation["batch_size"],
        device=device,
        num_workers=prepared.config["trainer"]["num_workers"],
        images=images,
    )


def _selection(checkpoint: Path, network: Any) -> tuple[str, str]:
    """Return the entries ``checkpoint`` and ``selection`` of this file's rows of results."""
    name = "best" if checkpoint.stem == "best" else "final"
    # if best.ckpt exists, final.ckpt holds the last epoch; otherwise the file holds the epoch that selection chose
    is_last_epoch = checkpoint.stem == "last" or (name == "final" and checkpoint.with_name("best.ckpt").is_file())
    return name, "last" if is_last_epoch else network.settings.selection
