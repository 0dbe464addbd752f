"""Evaluated images that were trained on: the training images of a checkpoint are determined again, and compared."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltr.configuration.configs import canonical_json
from ltr.configuration.reuse import with_overrides
from ltr.data.exclusion import read_split
from ltr.data.overlap import trained_on
from ltr.data.packed import PackedImages, identity_of, read_source
from ltr.data.source import Source
from ltr.data.split import Split, load_split_file
from ltr.errors import ConfigError, LtrError


@dataclass(frozen=True)
class Overlap:
    """The number of evaluated images that were trained on.

    Attributes:
        images: their number; None where it is unknown.
        of: evaluated images.
        reason: why the number is unknown, where a person may want to know.
    """

    images: int | None
    of: int
    reason: str = ""

    def to_dict(self) -> dict[str, int | None]:
        """Return what ``result.json`` holds of it."""
        return {"evaluated_images": self.of, "trained_on_images": self.images}


@dataclass
class TrainingImages:
    """Reads data sets that checkpoints were trained on, and keeps the last one: checkpoints mostly share theirs."""

    kept: dict[str, Source] = field(default_factory=dict)

    def overlap(
        self,
        description: Mapping[str, Any],
        run: Path | None,
        evaluated: tuple[Mapping[str, Any], Source, Split],
        part: str,
    ) -> Overlap:
        """Count the images of ``part`` that a checkpoint was trained on.

        Args:
            description: of the checkpoint, see `ltr.methods.core.checkpoint.describe`; {} of weights of other code.
            run: the folder of its run, where there is one: it holds the exact split.
            evaluated: the data set's config, source and split.
        """
        config, source, split = evaluated
        indices = getattr(split, part)
        if part == "test" and "open_set" in split.protocols:
            indices = np.concatenate([indices, split.unknown])
        if not description:
            return Overlap(None, len(indices))
        try:
            # training has warned of oddities in its data already
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trained, train = self._training(description, run, config, source)
        except LtrError as error:
            lines = str(error).splitlines() or [type(error).__name__]
            return Overlap(None, len(indices), lines[0])
        is_trained_on = trained_on(trained, train, source, indices)
        if is_trained_on is None:
            return Overlap(None, len(indices), _incomparable(trained, source))
        return Overlap(int(is_trained_on.sum()), len(indices))

    def _training(
        self, description: Mapping[str, Any], run: Path | None, config: Mapping[str, Any], source: Source
    ) -> tuple[Source, np.ndarray]:
        """Return the source that a checkpoint was trained on, and the indices of its training images."""
        trained_config = with_overrides({"dataset": description["dataset"]}, ())["dataset"]
        trained = source if _same_source(description["dataset"], config) else self._read(trained_config)
        split_file = None if run is None else run / "split.npz"
        if split_file is not None and split_file.is_file():
            split = load_split_file(split_file, trained)
        else:
            split = read_split(trained_config, trained)
        counts = [int(count) for count in description.get("facts", {}).get("class_counts", ())]
        if split.class_counts.tolist() != counts:
            raise ConfigError(
                f"the data set {split.name} has other training images today than those that it was trained on"
            )
        return trained, split.train

    def _read(self, dataset: Mapping[str, Any]) -> Source:
        config = {**dataset, "source": {key: value for key, value in dataset["source"].items() if key != "download"}}
        key = canonical_json({"source": config["source"], "packed": config.get("packed")})
        if key not in self.kept:
            self.kept.clear()  # before the next one is read: two may not fit
            self.kept[key] = read_source({**config, "image_size": None})
        return self.kept[key]


def _incomparable(trained: Source, evaluated: Source) -> str:
    """Return what to say of two sources that cannot be compared; nothing where one holds arrays and is another's."""
    if any(isinstance(source.images, PackedImages) for source in (trained, evaluated)):
        return "a packed file can only be compared with what it was made from"
    return ""


def _same_source(ours: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two data set configs read one source; one whose folder is gone has moved to the other's."""
    if canonical_json(ours["source"]) == canonical_json(other["source"]) and ours.get("packed") == other.get("packed"):
        return True
    root = ours["source"].get("root")
    has_moved = root is not None and not Path(str(root)).is_dir()
    return has_moved and canonical_json(identity_of(ours["source"])) == canonical_json(identity_of(other["source"]))


def check(label: str, overlap: Overlap, allowed: bool) -> None:
    """Warn where evaluated images were trained on, and refuse an evaluation of nothing else.

    Args:
        allowed: training images are evaluated on purpose.

    Raises:
        ConfigError: all of them were, and that is not allowed.
    """
    if overlap.images is None:
        if overlap.reason:
            warnings.warn(
                f"{label}: whether evaluated images were trained on cannot be found out: {overlap.reason}", stacklevel=2
            )
    elif overlap.images == overlap.of and not allowed:
        raise ConfigError(
            f"all {overlap.of:,} evaluated images were trained on: numbers on them say nothing of new images. Evaluate "
            "images that were held out of training (another --split, or the dataset values of the run), or add "
            "--allow-overlap to evaluate training images on purpose"
        )
    elif overlap.images:
        warnings.warn(
            f"{label}: {overlap.images:,} of the {overlap.of:,} evaluated images were trained on; the numbers are not "
            "those of new images",
            stacklevel=2,
        )
