"""Count of evaluated images that a checkpoint was trained on, by reconstructing its training images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltr.configuration.configs import canonical_json
from ltr.configuration.reuse import with_overrides
from ltr.data.deduplication.overlap import find_trained_images
from ltr.data.packed_images.reading import PackedImages, identity_of, read_source
from ltr.data.source import Source
from ltr.data.split import Split, load_split_file
from ltr.data.splitting.exclusion import read_split
from ltr.errors import ConfigError, LtrError, first_line


@dataclass(frozen=True)
class Overlap:
    """Number of evaluated images that were trained on.

    Attributes:
        images: number of evaluated training images; None if it is unknown.
        of: number of evaluated images.
        reason: reason why the number is unknown, if it is worth a message.
    """

    images: int | None
    of: int
    reason: str = ""

    def to_dict(self) -> dict[str, int | None]:
        """Return the entries of ``result.json``."""
        return {"evaluated_images": self.of, "trained_on_images": self.images}


@dataclass
class TrainingImages:
    """Reader of the data sets that checkpoints were trained on; it caches the last one, which most share."""

    sources: dict[str, Source] = field(default_factory=dict)

    def overlap(
        self,
        description: Mapping[str, Any],
        run: Path | None,
        evaluated: tuple[Mapping[str, Any], Source, Split],
        part: str,
    ) -> Overlap:
        """Count the images of ``part`` that a checkpoint was trained on.

        Args:
            description: description of the checkpoint, see `ltr.methods.core.checkpoint.describe`; {} for weights of
                other code.
            run: folder of its run with the exact split, if there is one.
            evaluated: config, source and split of the evaluation's data set.
            part: evaluated part of the split.
        """
        config, source, split = evaluated
        indices = getattr(split, part)
        if part == "test" and "open_set" in split.protocols:
            indices = np.concatenate([indices, split.unknown])
        if not description:
            return Overlap(None, len(indices))
        try:
            # the training has already warned of oddities in its data
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trained, train = self._training(description, run, config, source)
        except LtrError as error:
            return Overlap(None, len(indices), first_line(error))
        is_trained_on = find_trained_images(trained, train, source, indices)
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
            raise ConfigError(f"the training images of the data set {split.name} have changed since the training")
        return trained, split.train

    def _read(self, dataset: Mapping[str, Any]) -> Source:
        config = {**dataset, "source": {key: value for key, value in dataset["source"].items() if key != "download"}}
        key = canonical_json({"source": config["source"], "packed": config.get("packed")})
        if key not in self.sources:
            self.sources.clear()  # before the next one is read: two may not fit into memory
            self.sources[key] = read_source({**config, "image_size": None})
        return self.sources[key]


def _incomparable(trained: Source, evaluated: Source) -> str:
    """Return the reason why two sources cannot be compared; '' if neither is a packed file."""
    if any(isinstance(source.images, PackedImages) for source in (trained, evaluated)):
        return "a packed file can only be compared with the data that it was made from"
    return ""


def _same_source(trained: Mapping[str, Any], evaluated: Mapping[str, Any]) -> bool:
    """Return whether two dataset configs read the same source.

    If the folder of the training no longer exists, its data are assumed to have moved to the folder of the evaluation.
    """
    sources = trained["source"], evaluated["source"]
    if canonical_json(sources[0]) == canonical_json(sources[1]) and trained.get("packed") == evaluated.get("packed"):
        return True
    root = sources[0].get("root")
    has_moved = root is not None and not Path(str(root)).is_dir()
    return has_moved and canonical_json(identity_of(sources[0])) == canonical_json(identity_of(sources[1]))


def check(label: str, overlap: Overlap, allowed: bool) -> None:
    """Warn if some evaluated images were trained on; refuse the evaluation if all of them were.

    Args:
        label: name of the checkpoint, for messages.
        allowed: True if training images are evaluated on purpose.

    Raises:
        ConfigError: all evaluated images were trained on, and ``allowed`` is False.
    """
    if overlap.images is None:
        if overlap.reason:
            warnings.warn(
                f"{label}: cannot determine whether evaluated images were trained on: {overlap.reason}", stacklevel=2
            )
    elif overlap.images == overlap.of and not allowed:
        raise ConfigError(
            f"all {overlap.of:,} evaluated images were trained on: their metrics say nothing about new images. "
            "Evaluate images that were held out of training (another --split, or the dataset values of the run), or "
            "add --allow-overlap to evaluate training images on purpose"
        )
    elif overlap.images:
        warnings.warn(
            f"{label}: {overlap.images:,} of the {overlap.of:,} evaluated images were trained on; the metrics are not "
            "those of new images",
            stacklevel=2,
        )
