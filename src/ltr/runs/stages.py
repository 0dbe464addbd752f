"""Stages of a run, loaded from the store or trained."""

from __future__ import annotations

import time
from collections import ChainMap
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from ltr.configuration.targets import instantiate
from ltr.data.loaders.features import StoredFeatures
from ltr.data.module import DataModule
from ltr.errors import CheckpointError, TrainingError
from ltr.escaping import rich_text
from ltr.files import checkpoint_file, link_or_copy
from ltr.methods.core.checkpoint import load_network
from ltr.methods.core.initial_head import check_initial_head
from ltr.methods.core.settings import Settings
from ltr.methods.core.stage import Computation, Stage, StageOutput
from ltr.runs.evaluation.protocols import headline_metric, selecting_protocol
from ltr.runs.failures import explain_failures, out_of_memory_in_evaluation
from ltr.runs.features import NAME, FeatureStage
from ltr.runs.image_size import check_images
from ltr.runs.opening_progress import feature_progress
from ltr.runs.plan import RunPlan, image_shape
from ltr.runs.processes import distributed
from ltr.runs.processes.device import autocast
from ltr.runs.processes.interrupt import StopRequest
from ltr.runs.provenance import code_state, describe_difference
from ltr.runs.result import write_arrays
from ltr.runs.single_images import join_single_images
from ltr.runs.store import RECORD, REMOVED, StageStore
from ltr.runs.training.accumulation import warn_of_long_accumulation
from ltr.runs.training.doubts import warn_of_large_batch
from ltr.runs.training.incidents import INCIDENTS, excess_of
from ltr.runs.training.micro_batch import check_network
from ltr.runs.training.solve import solve_stage
from ltr.runs.training.train import TrainingContext, TrainingRecord, ValidationSpec, train_stage

ARRAYS = "arrays.npz"
_KEPT = ("seconds", "micro_batch", "code", INCIDENTS)  # entries of a stage's record that a run reads


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:  # zip and NumPy raise different errors for a damaged file
        raise CheckpointError(
            f"{path}: the arrays cannot be read ({type(error).__name__}): damaged, or pickled objects, which are never "
            "loaded. Move the folder elsewhere; the same command then makes the stage again"
        ) from error


@dataclass
class Stages:
    """Provider of the stages of one run, in order: cached, loaded, trained or computed.

    Attributes:
        started: called once, after all checks of the first training and before anything is written for it.
        images: pixels on the device, shared between the stages.
    """

    config: Mapping[str, Any]
    plan: RunPlan
    store: StageStore
    console: Console
    request: StopRequest
    loggers: Callable[[str], list[Any]]  # for the epochs of a stage, by its name
    started: Callable[[], None]
    images: Any = field(default=None, init=False)
    feature_stage: FeatureStage | None = field(default=None, init=False)
    features: StoredFeatures | None = field(default=None, init=False)
    cached_code: dict[str, dict[str, Any]] = field(
        default_factory=dict, init=False
    )  # code of cached stages, by their name

    def obtain_features(self) -> None:
        """Compute the missing features that the stages of a run and its evaluation read."""
        stage = next(
            (one for one in self.plan.stages if one.module is not None and one.settings.features is not None), None
        )
        if stage is None:
            return
        images = self.data_module(stage.settings.replaced(features=None), stage.role)
        images.processes = (0, 1)  # rank 0 computes all of them
        self.feature_stage = FeatureStage(
            stage, self.plan.dataset_info, self.config["seed"], images, self.store, self.plan.device, self._print_line
        )
        split = self.plan.split
        parts = [split.train, split.val, split.test, split.unknown]

        tables: list[StoredFeatures] = []  # filled on rank 0 only, because opening a table reads all of it

        def obtain() -> bool:
            assert self.feature_stage is not None
            with self.request.while_polled(), explain_failures(NAME, lambda: out_of_memory_in_evaluation(evaluated)):
                tables.append(self.feature_stage.obtain(parts, split.train, progress, self.request.check))
            return True

        def progress(total: int) -> Any:
            self.started()
            return feature_progress(self.console, total)

        evaluated = self.config["evaluation"]["batch_size"]
        distributed.broadcast_from_rank_zero(obtain)
        self.features = tables[0] if tables else self.feature_stage.stored()

    def obtain(self, stage: Stage, key: str, spec: Mapping[str, Any], before: Mapping[str, StageOutput]) -> StageOutput:
        """Return the finished stage of a key from the store, or train and store it.

        Args:
            spec: specification that the key is the hash of; stored with the stage.
            before: outputs of the earlier stages, by name.
        """
        parents = {name: before[name] for name in stage.parents}
        folder = self.store.folder(key)
        trains = stage.checkpoint is None and not stage.compute
        # all checks run before anything is written, including the lock
        missing = trains and distributed.broadcast_from_rank_zero(lambda: not self.is_stored(key))
        prepared = self._prepared(stage, parents) if missing else None
        with ExitStack() as held:

            def look() -> dict[str, Any] | None:
                held.enter_context(self.store.locked(key, stage.name))
                record = self.store.record(key)
                if record is not None and (excess := excess_of(record.get(INCIDENTS), self.config["trainer"])):
                    self._print_line(f"{stage.name}: not the cached stage {key[:12]}: {excess}")
                    self.store.discard(key)
                    record = None
                if record is None and self.config["resume"] == "never":  # no other run trains it: the lock is held
                    self.store.remove_state(key)
                return None if record is None else {name: record.get(name) for name in _KEPT}

            stored = distributed.broadcast_from_rank_zero(look)
            reused = stored is not None or stage.checkpoint is not None
            if stored is not None:
                self._report_reuse(stage.name, key, stored.pop("code"))
                incidents = stored.pop(INCIDENTS) or {}
                made = TrainingRecord(**stored)
            else:
                made = self._make(stage, folder, parents, prepared if trains else None)
                finished: dict[str, Any] = {"name": stage.name, "code": code_state()}
                finished |= {"begun_by": made.begun_by} if made.begun_by else {}
                finished |= {"micro_batch": made.micro_batch} if made.micro_batch else {}
                incidents = dict(ChainMap(*(dict(parent.incidents) for parent in parents.values())))
                incidents |= {stage.name: new} if (new := made.incidents.to_dict()) else {}
                finished |= {INCIDENTS: incidents} if incidents else {}
                distributed.broadcast_from_rank_zero(lambda: bool(self.store.finish(key, spec, made.seconds, finished)))
                self.request.check(f"stopped after stage '{stage.name}'")
        if not (folder / RECORD).is_file():
            raise TrainingError(f"stage '{stage.name}' ({folder}): {REMOVED}")
        last = folder / "last.ckpt"
        arrays = _read_arrays(folder / ARRAYS)
        if "summary" in arrays:
            self._print_line(f"{stage.name}: {arrays['summary']}")
        return StageOutput(
            name=stage.name,
            key=key,
            load=lambda: load_network(folder / "weights.ckpt", parents),
            arrays=arrays,
            load_last=(lambda: load_network(last, parents)) if last.is_file() else None,
            reused=reused,
            seconds=made.seconds,
            micro_batch=made.micro_batch,
            incidents=incidents,
        )

    def is_stored(self, key: str) -> bool:
        """Return whether the store has a finished stage whose incidents this run's limits allow."""
        record = self.store.record(key)
        return record is not None and excess_of(record.get(INCIDENTS), self.config["trainer"]) is None

    def _print_line(self, text: str) -> None:
        self.console.print(rich_text(text), soft_wrap=True)

    def _report_reuse(self, name: str, key: str, code: Mapping[str, Any] | None) -> None:
        """Print that a stage comes from the store, and name the code that made it if it differs."""
        other = describe_difference(code, code_state())
        made = f", made by {other}" if other else ""
        self._print_line(f"{name}: cached stage {key[:12]}{made}")
        if code:
            self.cached_code[name] = dict(code)

    def _make(
        self,
        stage: Stage,
        folder: Path,
        parents: Mapping[str, StageOutput],
        prepared: tuple[DataModule, Any, ValidationSpec | None] | None,
    ) -> TrainingRecord:
        """Train a stage in all processes, or compute or copy it in the first one."""
        if stage.checkpoint is not None:
            return TrainingRecord(distributed.broadcast_from_rank_zero(lambda: self._link_checkpoint(stage, folder)))
        if stage.compute is not None:
            return TrainingRecord(distributed.broadcast_from_rank_zero(lambda: self._compute(stage, folder, parents)))
        return self._train(stage, folder, *(prepared or self._prepared(stage, parents)))

    def _train(
        self, stage: Stage, folder: Path, data: DataModule, network: Any, validation: ValidationSpec | None
    ) -> TrainingRecord:
        self.started()
        context = self._training_context(stage)
        if stage.settings.solver == "lbfgs":
            return solve_stage(stage, network, data, folder, context, validation, self._print_line)
        trained = train_stage(stage, network, data, folder, context, validation)
        arrays = network.artifacts()
        if arrays and distributed.is_rank_zero():
            write_arrays(folder / ARRAYS, arrays)
        return trained

    def _prepared(
        self, stage: Stage, parents: Mapping[str, StageOutput]
    ) -> tuple[DataModule, Any, ValidationSpec | None]:
        """Return data, network and validation of a stage's training, after checking schedule and augmentation."""
        data = self.data_module(stage.settings, stage.role)
        validation = self._validation_spec(stage)
        data.monitored_part = validation.split if validation else None
        seed = self.config["seed"]
        network = stage.network(self.plan.dataset_info, seed, parents)
        if self.feature_stage is not None and stage.settings.features is not None:
            self.feature_stage.check(network.backbone, stage.name)
            network.fit_standardization(map(torch.from_numpy, data.plain_features(data.split.train)))
        norms = check_images(stage, network, self.plan.dataset_info, self.config["dataset"])
        join_single_images(stage, data, norms, self.config["strategy"], self._print_line)
        check_initial_head(network)
        network.optimisation(data.steps_per_epoch)
        warn_of_large_batch(stage, data.images_per_epoch * distributed.world_size())
        limit = stage.settings.limit_train_batches or data.steps_per_epoch
        warn_of_long_accumulation(stage.name, stage.settings, min(limit, data.steps_per_epoch))
        if self.config["trainer"]["auto_accumulate"]:
            check_network(stage, network)
        return data, network, validation

    def _link_checkpoint(self, stage: Stage, folder: Path) -> float:
        assert stage.checkpoint is not None
        self.started()
        link_or_copy(checkpoint_file(Path(stage.checkpoint)), folder / "weights.ckpt")
        self._print_line(f"{stage.name}: taken from {stage.checkpoint}")
        return 0.0

    def _compute(self, stage: Stage, folder: Path, parents: Mapping[str, StageOutput]) -> float:
        began = time.perf_counter()
        data = self.data_module(stage.settings, stage.role)
        data.processes = (0, 1)  # rank 0 computes it for all processes
        computation = Computation(
            parents=parents,
            settings=stage.settings,
            dataset_info=self.plan.dataset_info,
            source=self.plan.source,
            split=self.plan.split,
            loader=data.evaluation_loader,
            device=self.plan.device,
            autocast=lambda: autocast(self.plan.device, stage.settings.precision),
            seed=self.config["seed"],
            role=stage.role,
        )
        self.started()
        evaluated = self.config["evaluation"]["batch_size"]
        with explain_failures(stage.name, lambda: out_of_memory_in_evaluation(evaluated)):
            arrays = stage.target(computation, **stage.options)
        write_arrays(folder / ARRAYS, arrays)
        return time.perf_counter() - began

    def data_module(self, settings: Settings, role: str) -> DataModule:
        """Return the data of a stage with these settings."""
        trainer, shape = self.config["trainer"], image_shape(self.config, self.plan.source)
        data = DataModule(
            self.plan.source,
            self.plan.split,
            sampler=instantiate(settings.sampler),
            augment=instantiate(settings.augment, shape),
            views=[instantiate(view, shape) for view in settings.views],
            batch_size=settings.batch_size,
            eval_batch_size=self.config["evaluation"]["batch_size"],
            seed=self.config["seed"],
            role=role,
            epochs=settings.epochs,
            device=self.plan.device,
            num_workers=self.config["trainer"]["num_workers"],
            images=self.images,
            image_size=self.config["dataset"].get("image_size"),
            image_resize=self.config["dataset"].get("image_resize"),
            features=None if settings.features is None else self.features,
            array_size=self.config["dataset"].get("resize_to"),
            interpolation=self.config["dataset"].get("interpolation"),
            max_skipped=trainer["max_skipped"] if trainer["on_error"] == "skip" else None,
        )
        data.processes = (distributed.rank(), distributed.world_size())
        self.images = data.images
        return data

    def _validation_spec(self, stage: Stage) -> ValidationSpec | None:
        config, selection = self.config["evaluation"], stage.settings.selection
        wants_test = config["monitor_split"] == "test" or selection == "best_test"
        if wants_test and selection == "best_val":
            self._print_line(
                f"{stage.name}: evaluation.monitor_split=test does not apply: selection=best_val evaluates the "
                "validation images during training"
            )
            wants_test = False
        split = "test" if wants_test else "val" if len(self.plan.split.val) else None
        if split is None:
            return None
        return ValidationSpec(
            split=split,
            protocol=lambda link: selecting_protocol(self.plan.split, config, link, self.plan.device),
            monitor=headline_metric(self.plan.split),
            every_n_epochs=config["every_n_epochs"],
        )

    def _training_context(self, stage: Stage) -> TrainingContext:
        return TrainingContext(
            device=self.plan.device,
            config=self.config,
            console=self.console,
            request=self.request,
            loggers=lambda: self.loggers(stage.name),
        )
