"""Warning of weights that were trained on images that the run evaluates."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ltr.data.source import Source
from ltr.data.split import Split
from ltr.errors import LtrError
from ltr.identity import name_of
from ltr.methods.core.checkpoint import describe
from ltr.names import counted
from ltr.runs.evaluation.overlap import Overlap, TrainingImages
from ltr.runs.named_files import named_paths

_CHECKPOINT = ".ckpt"


def warn_of_evaluated_training_images(config: Mapping[str, Any], source: Source, split: Split) -> Overlap | None:
    """Warn of each of ltr's checkpoints that a configuration names if it was trained on evaluated images.

    Such a checkpoint, in ``method.start_from`` or ``backbone.weights`` for example, is of a run with another split of
    the data. Checkpoints that cannot be read are left to the stage that reads them.

    Args:
        config: the checked, resolved, plain configuration.
        source, split: its data.

    Returns:
        The largest number of test images that one of them was trained on; None without any.
    """
    largest: Overlap | None = None
    training = TrainingImages()
    for key, file in named_paths(config):
        if file.suffix != _CHECKPOINT:
            continue
        try:
            description = describe(file)
        except LtrError:
            continue
        if not _may_share_images(description.get("dataset") or {}, config["dataset"]):
            continue
        run = file.absolute().parent.parent if file.parent.name == "checkpoints" else None
        trained_on = []
        for part in ("test", "val"):
            overlap = training.overlap(description, run, (config["dataset"], source, split), part)
            if overlap.reason and part == "test":
                warnings.warn(
                    f"{key}: cannot determine whether test images were trained on: {overlap.reason}", stacklevel=2
                )
            if overlap.images:
                if part == "test" and (largest is None or overlap.images > (largest.images or 0)):
                    largest = overlap
                name = "test" if part == "test" else "validation"
                trained_on.append(f"{overlap.images:,} of the {counted(overlap.of, f'{name} image')}")
        if trained_on:
            warnings.warn(
                f"{key}={file}: these weights were trained on {' and '.join(trained_on)}, so the metrics are not those "
                "of new images. Use weights of a run with the same split",
                stacklevel=2,
            )
    return largest


def _may_share_images(trained: Mapping[str, Any], evaluated: Mapping[str, Any]) -> bool:
    """Return whether two dataset configs may name the same images: of one kind of source, or a user's own images.

    Other data sets are not read, which would take minutes for a large one, and fail where its files are not here.
    """
    if "source" not in trained:
        return False
    kinds = {name_of(str(dataset["source"].get("_target_"))) for dataset in (trained, evaluated)}
    is_own = all("exif" in dataset for dataset in (trained, evaluated))
    return len(kinds) == 1 or is_own
