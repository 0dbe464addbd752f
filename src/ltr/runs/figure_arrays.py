"""Small arrays that a run keeps for its figures: sampling frequencies, and norms of the classifier's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.module import DataModule
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import StageOutput
from ltr.runs.result import write_arrays

DRAWS = "draws"  # artifacts/draws.npz
CLASS_WEIGHTS = "class_weights"
_EPOCHS = 16  # epochs per stage, evenly spaced; sampling an epoch takes up to 0.1 s for a million images


def draws_of(data: DataModule) -> dict[str, np.ndarray]:
    """Count how often a stage samples each class, in some of its epochs.

    A sampler is a pure function of the epoch, so the counts can be computed after training and for a cached stage.

    Returns:
        ``epochs`` int64 [E], counted from 1: the first, the last, and those before and after the start of a deferred
        sampler; ``counts`` int32 [E, C], images of each class in the whole epoch.
    """
    chosen = set(np.linspace(0, data.epochs - 1, min(_EPOCHS, data.epochs)).astype(int).tolist())
    start = data.sampler.start_epoch(data.epochs)
    chosen |= {epoch for epoch in (start - 1, start) if 0 <= epoch < data.epochs}
    epochs = sorted(chosen)
    labels, classes = data.split.labels(data.source), data.split.num_classes
    counts = [np.bincount(labels[data.epoch_sample(epoch)], minlength=classes) for epoch in epochs]
    return {"epochs": np.array(epochs) + 1, "counts": np.array(counts, dtype=np.int32)}


def weight_norms(network: Any) -> np.ndarray | None:
    """Return the predictor's `ltr.methods.core.network.ImageClassifier.weight_norms`; None if it has no such method."""
    norms = network.weight_norms() if isinstance(network, ImageClassifier) else None
    return None if norms is None else norms.cpu().numpy()


def write_figure_arrays(
    directory: Path,
    trained: Sequence[tuple[str, DataModule]],
    outputs: Mapping[str, StageOutput],
    predictor: Any,
) -> None:
    """Write ``artifacts/draws.npz`` and ``artifacts/class_weights.npz``.

    Args:
        trained: name and data of each stage that trains on batches.
        outputs: outputs of all stages, by name. If a later stage changes the classifier of ``representation``, the
            norms of that stage are kept as ``before``.
        predictor: the evaluated network; its norms are ``after``.
    """
    folder = directory / "artifacts"
    draws = {f"{name}.{key}": array for name, data in trained for key, array in draws_of(data).items()}
    if draws:
        write_arrays(folder / f"{DRAWS}.npz", draws)
    final_norms = weight_norms(predictor)
    names = list(outputs)
    norms = {} if final_norms is None else {"after": final_norms}
    if "representation" in names[:-1]:
        first_norms = weight_norms(outputs["representation"].load())
        if first_norms is not None:
            norms["before"] = first_norms
    if norms:
        write_arrays(folder / f"{CLASS_WEIGHTS}.npz", norms)
