"""Weights that ltr-eval evaluates: their files, and the data sets that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ltr.configuration.configs import canonical_json
from ltr.configuration.evaluation_overrides import ForeignWeights
from ltr.configuration.overrides import load_config
from ltr.configuration.targets import check_arguments
from ltr.data.loaders.device import ResidentImages
from ltr.data.packed_images.reading import read_source
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.data.splitting.exclusion import read_split
from ltr.errors import refuse
from ltr.methods.core.checkpoint import FORMAT, describe, read_checkpoint
from ltr.models.published_names import LAYOUTS, read_published
from ltr.models.state_file import read_state
from ltr.runs.evaluation.overlap import Overlap, TrainingImages


@dataclass(frozen=True)
class Candidate:
    """Weights to evaluate.

    Attributes:
        label: name of the weights in tables.
        config: configuration of the evaluation, see `ltr.configuration.evaluation_overrides`.
        run: folder of the run that trained the weights, if there is one.
        elsewhere: True if the data set differs from the run's.
        image_size: value that the user set for ``dataset.image_size``.
        foreign: options for reading a file of other code; None for ltr's checkpoints.
        allow_overlap: True evaluates training images on purpose.
        options: keys of ``evaluation`` that the command sets.
    """

    label: str
    checkpoint: Path
    config: Mapping[str, Any]
    run: Path | None = None
    elsewhere: bool = False
    image_size: int | None = None
    foreign: ForeignWeights | None = None
    allow_overlap: bool = False
    options: tuple[str, ...] = ()


_OF_CROP = ("image_size", "image_resize", "interpolation")  # keys of a data set that change only its crops


@dataclass
class DatasetCache:
    """Cache of the last data set, with its images if they are arrays; most checkpoints share their data set."""

    datasets: dict[str, tuple[Source, Split]] = field(default_factory=dict)
    images: dict[str, ResidentImages | None] = field(default_factory=dict)
    training: TrainingImages = field(default_factory=TrainingImages)
    overlaps: dict[tuple[Path, str, str], Overlap] = field(default_factory=dict)

    def read(self, dataset: Mapping[str, Any]) -> tuple[str, Source, Split]:
        """Return (key, source, split) of a dataset config; read the data unless they are those of the last call."""
        key = canonical_json({k: v for k, v in dataset.items() if k not in _OF_CROP})
        if key not in self.datasets:
            self.datasets.clear()  # before the next one is read: two may not fit into memory
            self.images.clear()
            refuse(check_arguments({"dataset": dataset}), "the data set's config does not fit the code")
            source = read_source(dataset)
            self.datasets[key] = (source, read_split(dataset, source))
        return key, *self.datasets[key]


def is_foreign(checkpoint: Path) -> bool:
    """Return whether a readable file is not one of ltr's checkpoints.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if checkpoint.suffix == ".safetensors":
        return True
    return read_checkpoint(checkpoint).get("format") != FORMAT


def with_layout(weights: ForeignWeights, checkpoint: Path) -> tuple[ForeignWeights, str | None]:
    """Return options for reading a file of other code, with the layout of its names, and the config of its method.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if weights.names:
        return weights, None
    layout = weights.layout or read_published(checkpoint, read_state, weights.entry)[1]
    return replace(weights, layout=layout), None if layout is None else LAYOUTS[layout].method


def lone_config(checkpoint: Path) -> dict[str, Any]:
    """Return a configuration for a checkpoint without a run: its description and the defaults of evaluation.

    Raises:
        CheckpointError: see `ltr.methods.core.checkpoint.describe`.
    """
    description = describe(checkpoint)
    settings = description.get("settings") or {}
    defaults = {group: config for group, config in load_config([]).items() if group in ("evaluation", "paths")}
    trained = {key: settings[key] for key in ("sampler", "augment", "head", "loss", "backbone") if key in settings}
    name = str(description.get("module", "?")).rsplit(".", 1)[-1]  # a lone file holds no config of its method
    trainer = {"accelerator": "auto", "precision": "auto", "num_workers": 2, "max_epochs": settings.get("epochs")}
    identity = {"name": name, "seed": description["seed"], "method": {"name": name}, "dataset": description["dataset"]}
    return {**identity, **trained, **defaults, "trainer": trainer}
