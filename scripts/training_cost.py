"""Estimated cost of a set of runs: the stages that are not cached, their images, and a training rate."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ltr.configuration.configs import canonical_json, read_config, without_private
from ltr.data.source import Source
from ltr.errors import Interrupted, LtrError
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import Stage
from ltr.names import counted
from ltr.runs.plan import RunPlan, plan_of
from ltr.runs.processes.device import device_name
from ltr.runs.processes.interrupt import StopRequest
from ltr.runs.stages import Stages
from ltr.runs.store import StageStore

RATE_EPOCHS = 2  # the first warms up, the last is read


@dataclass(frozen=True)
class OpenStage:
    """A stage that is not cached.

    Attributes:
        epochs: still to train; those of an interrupted training are counted off. 0 for a computed stage.
        images: drawn in an epoch.
        kind: stages of the same kind train at about the same rate; see `kind_of`.
    """

    key: str
    name: str
    epochs: int
    images: int
    kind: str

    @property
    def is_computed(self) -> bool:
        return self.epochs == 0


@dataclass(frozen=True)
class PlannedRun:
    """A run and the stages of its plan that are not cached."""

    config: Mapping[str, Any]
    plan: RunPlan
    open: list[OpenStage]

    @classmethod
    def of(cls, config: Mapping[str, Any], source: Source) -> PlannedRun:
        """Plan a run; raise what `plan_of` raises."""
        plan = plan_of(config, source)
        return cls(config, plan, open_stages(config, plan))


def open_stages(config: Mapping[str, Any], planned: RunPlan) -> list[OpenStage]:
    """Return the stages of a plan that its run would train or compute, in order."""
    store = StageStore(Path(config["paths"]["stages"]))
    stages = []
    for stage in planned.stages:
        key = planned.keys[stage.name][0]
        if stage.checkpoint is None and store.record(key) is None:
            done = _epochs_done(store.folder(key))
            epochs = max(stage.settings.epochs - done, 1) if stage.module else 0
            stages.append(OpenStage(key, stage.name, epochs, _images(stage, planned), kind_of(stage, planned)))
    return stages


def kind_of(stage: Stage, planned: RunPlan) -> str:
    """Return the settings that determine a training rate: network, augmentation, batch, size, precision, device."""
    one = stage.settings
    parts = [one.backbone, one.augment, one.batch_size, one.precision, planned.dataset_info.image_shape]
    return canonical_json(without_private([*parts, device_name(planned.device)]))


def _images(stage: Stage, planned: RunPlan) -> int:
    images, limit = len(planned.split.train), stage.settings.limit_train_batches
    images = stage.settings.sampler.get("num_samples") or images
    return images if limit is None else min(images, limit * stage.settings.batch_size)


def _epochs_done(folder: Path) -> int:
    """Return the finished epochs of an interrupted training; 0 without one."""
    if not (folder / "state").is_dir() or not (folder / "metrics.csv").is_file():
        return 0
    return int(_rows(folder / "metrics.csv")[-1].get("epoch", 0) or 0)


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)) or [{}]


def first_trained(planned: RunPlan) -> Stage:
    """Return a plan's first stage that trains a network from random weights.

    Where all build on another stage (background splitting's needs its pseudo-labels), a plain network with the settings
    of the first one is as fast.
    """
    trained = [stage for stage in planned.stages if stage.module]
    alone = [stage for stage in trained if not stage.parents]
    return alone[0] if alone else replace(trained[0], module=ImageClassifier, parents=(), options={})


def measured_rate(config: Mapping[str, Any], planned: RunPlan, request: StopRequest) -> float:
    """Measure training images per second of a plan's first stage over a few real steps that leave no files.

    Second stages on a frozen backbone are faster; evaluation is not in it.
    """
    stage = first_trained(planned)
    steps = 4 if planned.device.type == "cpu" else 60
    settings = stage.settings.replaced(
        epochs=RATE_EPOCHS,
        limit_train_batches=steps,
        selection="last",
        scheduler=without_private(read_config("scheduler/constant")),  # a warm-up may be longer than this
    )
    without_val = replace(planned.split, val=np.empty(0, dtype=np.int64))
    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(
            config={**config, "callbacks": {**config["callbacks"], "progress": "none"}},
            plan=replace(planned, split=without_val),
            store=StageStore(Path(folder)),
            console=Console(quiet=True),
            request=request,
            loggers=lambda stage: [],
            started=lambda: None,
        )
        stages.obtain(replace(stage, settings=settings, checkpoint=None), "rate", {}, {})
        return float(_rows(Path(folder) / "rate" / "metrics.csv")[-1]["images_per_second"])


def rates(runs: Iterable[PlannedRun], request: StopRequest) -> dict[str, float]:
    """Measure images per second of every kind of stage to train, on the first stage of such a run.

    A run that fails in its first steps measures nothing: another one of its kind may.
    """
    rate_of_kind: dict[str, float] = {}
    of_first: dict[str, float] = {}
    for run in runs:
        for kind in dict.fromkeys(stage.kind for stage in run.open if not stage.is_computed):
            if kind not in rate_of_kind:
                first = kind_of(first_trained(run.plan), run.plan)
                try:
                    if first not in of_first:
                        of_first[first] = measured_rate(run.config, run.plan, request)
                    rate_of_kind[kind] = of_first[first]
                except LtrError as error:
                    if isinstance(error, Interrupted):
                        raise
    return rate_of_kind


def hours_left(runs: Sequence[PlannedRun], speed: Mapping[str, float]) -> float:
    """Return the hours of the stages to train, one run at a time; stages of unknown rate are left out.

    Args:
        speed: images per second of every kind of stage, see `rates`.
    """
    stages = {stage.key: stage for run in runs for stage in open_stages(run.config, run.plan)}
    timed = [stage for stage in stages.values() if stage.kind in speed]
    return sum(stage.epochs * stage.images / speed[stage.kind] for stage in timed) / 3600


def cost_lines(runs: Sequence[PlannedRun], request: StopRequest, speed: Mapping[str, float] | None = None) -> list[str]:
    """Return the cost of runs in sentences: stages (each counted once, by its key), images, a rate, hours.

    Args:
        speed: images per second of every kind of stage, where `rates` has measured them already.
    """
    stages = list({stage.key: stage for run in runs for stage in run.open}.values())
    train = [stage for stage in stages if not stage.is_computed]
    needed = {key for run in runs for key, _ in run.plan.keys.values()}
    text = [
        f"stages: {len(needed)} (one that several runs share counts once); {len(needed) - len(stages)} cached, "
        f"{len(train)} to train, {len(stages) - len(train)} to compute"
    ]
    if train:
        speed = rates(runs, request) if speed is None else speed
        images = sum(stage.epochs * stage.images for stage in train)
        timed = [stage for stage in train if stage.kind in speed]
        minutes = sum(stage.epochs * stage.images / speed[stage.kind] for stage in timed) / 60
        shown = ", ".join(f"{rate:,.0f}" for rate in dict.fromkeys(speed.values())) or "no"
        text += [
            f"training: {sum(stage.epochs for stage in train):,} epochs, {images:,} images",
            f"rate: {shown} images/s, measured over a few steps on {device_name(runs[0].plan.device)}",
            f"time: about {minutes / 60:.1f} hours ({minutes:,.0f} minutes), one run at a time; "
            "evaluation comes on top, and classifiers on a frozen backbone are faster than this",
        ]
        if failed := len(train) - len(timed):
            text.append(f"this leaves out {counted(failed, 'stage')}, whose first steps failed")
    return text
