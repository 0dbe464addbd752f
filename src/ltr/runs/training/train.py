"""Training of one stage with Lightning, from scratch or from its training state."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console

from ltr.configuration.targets import instantiate
from ltr.errors import CheckpointError, LtrError, TrainingError, first_line
from ltr.escaping import printer
from ltr.identity import name_of
from ltr.methods.core.checkpoint import AtomicCheckpointIO, network_checkpoint, read_checkpoint, write_checkpoint
from ltr.methods.core.initial_head import start_head
from ltr.methods.core.stage import Stage
from ltr.runs.failures import explain_failures, out_of_memory_in_evaluation
from ltr.runs.processes import distributed
from ltr.runs.processes.device import LIGHTNING_PRECISION, autocast
from ltr.runs.processes.interrupt import StopRequest
from ltr.runs.processes.strategies import in_processes
from ltr.runs.provenance import code_state, describe_difference
from ltr.runs.training.accumulation import Accumulation
from ltr.runs.training.averaging import EMACallback
from ltr.runs.training.compile_choice import choose_compilation
from ltr.runs.training.direct_loop import STEP_HOOKS, DirectEpochLoop
from ltr.runs.training.epoch_log import METRICS, EpochLog, read_rows
from ltr.runs.training.graph_loop import GraphEpochLoop, recorder_of
from ltr.runs.training.guards import FiniteGuard, SkipNonfinite, StopOnSignal
from ltr.runs.training.incidents import REPLACED, Incidents
from ltr.runs.training.micro_batch import AutoMicroBatch
from ltr.runs.training.progress import TrainingProgress
from ltr.runs.training.sharpness import SharpnessAware
from ltr.runs.training.state import ResumePoint, SaveState, TrainingState
from ltr.runs.training.validation import ValidationCallback
from ltr.writing import disk_trouble


@dataclass(frozen=True)
class ValidationSpec:
    """Split that training monitors, with its protocol and metric."""

    split: str  # val | test
    protocol: Callable[[str], Any]  # link -> a new protocol object
    monitor: str  # metric that selects the weights
    every_n_epochs: int


@dataclass(frozen=True)
class TrainingContext:
    """Context of a training, which does not determine its outcome."""

    device: torch.device
    config: Mapping[str, Any]  # the configs trainer, strategy, checkpoint and callbacks, and the data set's description
    console: Console
    request: StopRequest
    loggers: Callable[[], list[Any]] = list


@dataclass(frozen=True)
class TrainingRecord:
    """Record of a finished training.

    Attributes:
        seconds: wall time of the training, including interrupted runs that it continued.
        micro_batch: final size of micro-batches; None for whole batches.
        begun_by: state of the code that trained the first part, if it differs from the current code.
        incidents: replaced images and skipped steps.
    """

    seconds: float
    micro_batch: int | None = None
    begun_by: Mapping[str, Any] | None = None
    incidents: Incidents = field(default_factory=Incidents)


class _StartFlag(pl.Callback):
    """Callback that records the start of training, after a checkpoint is restored."""

    has_started = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.has_started = True


def skip_unused_hooks(callback: pl.Callback) -> None:
    """Set the step hooks that a callback does not implement to None, so that Lightning does not call them.

    An empty hook takes as long as an operation on a small tensor, and a step has six hooks.
    """
    for name in STEP_HOOKS:
        if getattr(type(callback), name) is getattr(pl.Callback, name):
            setattr(callback, name, None)


def train_stage(
    stage: Stage,
    module: Any,
    data: Any,
    folder: Path,
    context: TrainingContext,
    validation: ValidationSpec | None,
) -> TrainingRecord:
    """Train a stage and write ``weights.ckpt`` (and ``last.ckpt``) to ``folder``.

    Args:
        module: initialised network of the stage.
        folder: folder of the stage in the store; an unfinished training in it is continued.
        context: configuration, device and signals.
        validation: evaluation during training; None: none.

    Raises:
        TrainingError: the loss is not finite, or memory or disk space runs out.
        Interrupted: a signal stopped the training; its state is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    print_line = printer(context.console)
    state = TrainingState(folder / "state", print_line)
    begun_by = None
    per_epoch = data.images_per_epoch * distributed.world_size()
    resume = state.resume_point(module)
    if resume is not None and (excess := _excess(resume, folder, per_epoch, context.config["trainer"])):
        print_line(f"{stage.name}: starting anew instead of resuming a stopped run, which trained with {excess}")
        state.clear()
        resume = None
    epochs_done = 0 if resume is None else resume.epoch
    if _is_compiled(stage, data, epochs_done, context, print_line):
        module.backbone.compile()
    if resume is not None:
        data.start_at(resume.epoch, resume.batch)
        print_line(f"{stage.name}: resuming in epoch {resume.epoch + 1}, batch {resume.batch + 1} of a stopped run")
        if other := describe_difference(resume.code, code_state()):
            print_line(f"{stage.name}: its beginning was trained by {other}")
            begun_by = resume.code
    trainer, log = _trainer(stage, module, data, folder, state, context, validation)
    start = _StartFlag()
    trainer.callbacks.append(start)  # type: ignore[attr-defined]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        skip_unused_hooks(callback)
    parts = trainer.fit_loop.epoch_loop.automatic_optimization

    def advice() -> str:
        if any(isinstance(callback, ValidationCallback) and callback.is_evaluating for callback in trainer.callbacks):  # type: ignore[attr-defined]
            return out_of_memory_in_evaluation(context.config["evaluation"]["batch_size"])
        return _out_of_memory(stage, parts.micro_batch if isinstance(parts, AutoMicroBatch) else None)

    try:
        with explain_failures(stage.name, advice), _quiet(), context.request.while_polled():
            if resume is None:
                start_head(module, data, context.device, lambda: autocast(context.device, stage.settings.precision))
            trainer.fit(module, datamodule=data, ckpt_path=None if resume is None else resume.path)
    except LtrError:
        raise
    except Exception as error:
        if resume is not None and not start.has_started:
            raise CheckpointError(
                f"{stage.name}: the training state {resume.path} cannot be restored ({type(error).__name__}: "
                f"{first_line(error)}). It is damaged, or from other code: start from scratch with resume=never"
            ) from error
        trouble = disk_trouble(error, stage.name, context.config["paths"]) if isinstance(error, OSError) else None
        if trouble is None:
            raise
        raise trouble from error
    if distributed.is_rank_zero():
        _check_best(trainer, state)
        _write_weights(stage, module, state, folder, context.config)
    seconds = distributed.broadcast_from_rank_zero(lambda: log.total_seconds)
    micro_batch = parts.micro_batch if isinstance(parts, AutoMicroBatch) and parts.halved else None
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    skipped_steps = sum(callback.skipped for callback in callbacks if isinstance(callback, SkipNonfinite))
    incidents = Incidents.of(log.rows, per_epoch, skipped_steps)
    return TrainingRecord(seconds, micro_batch, begun_by, incidents)


def _excess(resume: ResumePoint, folder: Path, images_per_epoch: int, trainer: Mapping[str, Any]) -> str | None:
    """Return which incidents of a stopped training this run's limits do not allow, the same in every process."""

    def on_rank_zero() -> str:
        rows = [row for row in read_rows(folder / METRICS) if int(row["epoch"]) <= resume.epoch]
        rows.append({REPLACED: resume.replaced_images})
        return Incidents.of(rows, images_per_epoch, resume.skipped_steps).excess(trainer) or ""

    return distributed.broadcast_from_rank_zero(on_rank_zero) or None


def _is_compiled(
    stage: Stage, data: Any, epochs_done: int, context: TrainingContext, print_line: Callable[[str], None]
) -> bool:
    """Return whether the stage's backbone is compiled; print the reason where ``compile=auto`` chooses."""
    if context.config["compile"] != "auto":
        return context.config["compile"] is True
    settings = stage.settings
    images = data.images_per_epoch * (settings.epochs - epochs_done)
    backbone = name_of(str(settings.backbone.get("_target_")))
    is_compiled, reason = choose_compilation(backbone, settings.precision, context.device.type, images)
    print_line(f"{stage.name}: compile=auto: {'compiled' if is_compiled else 'not compiled'}, {reason}")
    return is_compiled


def _out_of_memory(stage: Stage, micro_batch: int | None) -> str:
    """Return the advice for a training step that ran out of memory."""
    settings = stage.settings
    processes = distributed.world_size()
    per_process = f" ({settings.batch_size // processes} in each process)" if distributed.is_distributed() else ""
    tried = "" if micro_batch is None else f", in parts of {micro_batch} (auto_accumulate)"
    further = "; trainer.precision=bf16 saves memory, too" if settings.precision == "fp32" else ""
    if stage.options.get("checkpointing") is False:
        further += "; so does method.checkpointing=true"
    return (
        f"out of memory in a training step at batch_size={settings.batch_size}{per_process}{tried}. Lower batch_size; "
        f"or halve it and set trainer.accumulate={2 * settings.accumulate}: the optimiser's batch stays the same, and "
        "batch normalisation sees half of it (without batch normalisation, trainer.auto_accumulate=true finds a size "
        f"that fits){further}"
    )


def _check_best(trainer: pl.Trainer, state: TrainingState) -> None:
    """Refuse to continue without best weights: no epoch was the best one, or their file was removed during the run."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not isinstance(callback, ValidationCallback) or callback.best_path is None:
            continue
        if callback.best_epoch is None:
            raise TrainingError(
                f"no epoch can be selected: {callback.monitor} of the {callback.name} images was not a number (NaN) in "
                "every evaluation. Select the last epoch, trainer.selection=last, or look at what that metric needs"
            )
        if not state.best.is_file():
            raise TrainingError(
                f"{state.best}: the weights of the best epoch ({callback.best_epoch}) were removed during the run. The "
                "same command starts the training of the stage anew"
            )


def _write_weights(stage: Stage, module: Any, state: TrainingState, folder: Path, config: Mapping[str, Any]) -> None:
    """Write the selected ``weights.ckpt``, and ``last.ckpt`` if the last epoch was not selected."""
    whole = config["checkpoint"].get("tuned") == "whole"
    if stage.settings.selection != "last" and state.best.is_file():
        write_checkpoint(folder / "last.ckpt", network_checkpoint(module, config["dataset"], whole=whole))
        selected = network_checkpoint(module, config["dataset"], read_checkpoint(state.best), whole=whole)
    else:
        selected = network_checkpoint(module, config["dataset"], whole=whole)
    write_checkpoint(folder / "weights.ckpt", selected)


def _trainer(
    stage: Stage,
    module: Any,
    data: Any,
    folder: Path,
    state: TrainingState,
    context: TrainingContext,
    validation: ValidationSpec | None,
) -> tuple[pl.Trainer, EpochLog]:
    """Return the Lightning trainer of a stage, and its log; comments explain the order of the callbacks."""
    settings, config, display = stage.settings, context.config["trainer"], context.config["callbacks"]
    progress = TrainingProgress(stage.name, settings.epochs, context.console, display["lines_every"])
    skips = config["on_nonfinite"] == "skip"
    on_row = progress.show if display["progress"] != "none" else None
    log = EpochLog(folder / METRICS, stage.name, on_row, only_finite=skips)
    callbacks: list[pl.Callback] = [
        SkipNonfinite(config["max_nonfinite"], printer(context.console))
        if skips
        else FiniteGuard(data.indices_of_step, config["log_every"])
    ]
    if validation:
        best = state.best if settings.selection != "last" else None
        callbacks.append(ValidationCallback(validation.split, validation.protocol, validation.monitor, log, best))
    if settings.sharpness is not None:
        callbacks.append(SharpnessAware(instantiate(settings.sharpness)))
    if settings.ema_decay is not None:
        callbacks.append(EMACallback(settings.ema_decay, settings.ema_warmup))
    # the row is written before the state is saved, so that a resumed run finds it
    saving = context.config["checkpoint"]
    callbacks += [
        log,
        *([progress] if log.on_row else []),
        SaveState(state, saving["every_n_epochs"], saving.get("min_seconds", 0.0)),
        StopOnSignal(context.request, state.save, saving["every_minutes"]),
    ]
    processes = in_processes(context.config["strategy"])
    plugins = [AtomicCheckpointIO(), *processes.pop("plugins", ())]
    with _quiet():
        trainer = pl.Trainer(
            accelerator="gpu" if context.device.type == "cuda" else "cpu",
            **processes,
            precision=LIGHTNING_PRECISION[settings.precision],  # type: ignore[arg-type]
            max_epochs=settings.epochs,
            # a network with several optimisers clips gradients itself or refuses to; Lightning accepts neither key
            accumulate_grad_batches=settings.accumulate if module.automatic_optimization else 1,
            gradient_clip_val=settings.gradient_clip if module.automatic_optimization else None,
            limit_train_batches=settings.limit_train_batches,
            limit_val_batches=None if validation else 0,
            check_val_every_n_epoch=validation.every_n_epochs if validation else 1,
            deterministic=config["deterministic"] or None,
            benchmark=context.device.type == "cuda" and not config["deterministic"],
            profiler=config["profiler"],
            callbacks=callbacks,
            plugins=plugins,
            logger=context.loggers() or False,  # only rank 0 has loggers
            default_root_dir=folder,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    trainer.fit_loop.epoch_loop = _epoch_loop(trainer, stage.name, context)
    if config["auto_accumulate"]:
        parts = AutoMicroBatch(trainer, settings.batch_size, stage.name, printer(context.console))
        trainer.fit_loop.epoch_loop.automatic_optimization = parts
    elif trainer.accumulate_grad_batches > 1:
        accumulation = Accumulation(trainer, data.images_of_step, module.loss_is_sum)
        trainer.fit_loop.epoch_loop.automatic_optimization = accumulation
    # `StopOnSignal` handles signals; Lightning's handler would run collectives inside a signal handler
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer, log


def _epoch_loop(trainer: pl.Trainer, stage: str, context: TrainingContext) -> DirectEpochLoop:
    """Return the loop over an epoch's batches, which ``compile=graph`` records on a GPU."""
    if context.config["compile"] != "graph":
        return DirectEpochLoop(trainer)
    print_line = printer(context.console)

    def on_obstacle(reason: str) -> None:
        print_line(f"{stage}: compile=graph: {reason}; the steps run one by one")

    recorder = recorder_of(context.device)
    if recorder is None:
        on_obstacle("no CUDA device is used")
        return DirectEpochLoop(trainer)
    return GraphEpochLoop(trainer, recorder, on_obstacle)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's advice for authors of training loops during a block."""
    names = ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for name in ("pytorch_lightning", "lightning_fabric", "lightning_utilities"):
                warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
            # the schedule steps after the optimiser; torch warns because it cannot see that through the gradient scaler
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
