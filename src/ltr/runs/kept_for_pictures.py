"""Small arrays that a run keeps for its pictures: how its samplers drew, and how long its classifier's weights are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltr.data.module import DataModule
from ltr.methods.posthoc import TauNormalised
from ltr.methods.stage import StageOutput
from ltr.runs.result import write_arrays

DRAWS = "draws"  # artifacts/draws.npz
CLASS_WEIGHTS = "class_weights"
_EPOCHS = 16  # of a stage, evenly spread; a draw costs up to a tenth of a second for a million images


def draws_of(data: DataModule) -> dict[str, np.ndarray]:
    """How often each class is drawn, in some epochs of a stage.

    Draws are pure functions of the epoch, so that they can be repeated after a training, and for a stored one.

    Returns:
        ``epochs`` int64 [E], counted from 1, the first and the last among them, and where the draw is deferred both
        sides of its start; ``counts`` int32 [E, C], images of each class in the whole epoch.
    """
    chosen = set(np.linspace(0, data.epochs - 1, min(_EPOCHS, data.epochs)).astype(int).tolist())
    start = data.sampler.start_epoch(data.epochs)
    chosen |= {epoch for epoch in (start - 1, start) if 0 <= epoch < data.epochs}
    epochs = sorted(chosen)
    labels, classes = data.split.labels(data.source), data.split.num_classes
    counts = [np.bincount(labels[data.draw(epoch)], minlength=classes) for epoch in epochs]
    return {"epochs": np.array(epochs) + 1, "counts": np.array(counts, dtype=np.int32)}


def weight_norms(network: Any) -> np.ndarray | None:
    """The Euclidean length of each class's weights, float64 [C]; None of a classifier without such weights.

    Those of tau-normalisation are the normalised ones, of LWS those times the class's scale; a constant background
    logit is NaN. Cosines, means and points have no length that says anything of a class's logits.
    """
    norms = _of_head(getattr(network, "head", None))
    if norms is None or len(norms) != network.facts.num_classes:
        return None
    if isinstance(network, TauNormalised):
        norms = np.maximum(norms, 1e-12) ** (1 - network.options["taus"][network.options["chosen"]])
    return norms


@torch.no_grad()
def _of_head(head: Any) -> np.ndarray | None:
    kind = getattr(head, "head_kind", None)
    if kind == "linear":
        return head.weight.double().norm(dim=1).cpu().numpy()
    if kind == "scaled":
        inner = _of_head(head.head)
        return None if inner is None else inner * head.scales.double().abs().cpu().numpy()
    if kind == "background":
        inner = _of_head(head.rows)
        return None if inner is None else np.concatenate([[np.nan], inner])
    return None


def keep_for_pictures(
    directory: Path,
    trained: Sequence[tuple[str, DataModule]],
    outputs: Mapping[str, StageOutput],
    predictor: Any,
) -> None:
    """Write ``artifacts/draws.npz`` and ``artifacts/class_weights.npz``.

    Args:
        directory: of the run.
        trained: name and data of each stage that draws batches.
        outputs: of all stages, by name; where a later stage changes the classifier of ``representation``, its norms
            are kept as ``before``.
        predictor: the network that is judged, whose norms are ``after``.
    """
    folder = directory / "artifacts"
    drawn = {f"{name}.{key}": array for name, data in trained for key, array in draws_of(data).items()}
    if drawn:
        write_arrays(folder / f"{DRAWS}.npz", drawn)
    after = weight_norms(predictor)
    names = list(outputs)
    norms = {} if after is None else {"after": after}
    if "representation" in names[:-1]:
        before = weight_norms(outputs["representation"].load())
        if before is not None:
            norms["before"] = before
    if norms:
        write_arrays(folder / f"{CLASS_WEIGHTS}.npz", norms)
