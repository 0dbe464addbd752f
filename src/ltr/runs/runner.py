"""Execution of one run: plan the stages, load or train them, evaluate the method, write the result."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ltr.configuration.targets import check_arguments, instantiate
from ltr.data.loaders.opening import check_files
from ltr.data.module import DataModule
from ltr.data.source import Source
from ltr.errors import CheckpointError, ConfigError, DataError, Interrupted, TrainingError
from ltr.escaping import printer
from ltr.methods.core.stage import StageOutput
from ltr.names import counted
from ltr.runs.evaluation.deployment_prior import evaluation_of
from ltr.runs.evaluation.network import ProtocolResult, examples_of
from ltr.runs.evaluation.split import SplitEvaluator
from ltr.runs.failures import explain_failures
from ltr.runs.figure_arrays import write_figure_arrays
from ltr.runs.finished import IDENTITIES, RunStatus, excess_of_result, find_result
from ltr.runs.image_size import preprocessing_note, resized_for
from ltr.runs.opening_progress import opening_progress
from ltr.runs.pixels import share_pixels
from ltr.runs.plan import RunPlan, plan_of
from ltr.runs.processes import distributed
from ltr.runs.processes.device import device_name, keep_freed_memory
from ltr.runs.processes.interrupt import StopRequest, requeue, stop_request
from ltr.runs.processes.openmp import pop_notice
from ltr.runs.result import RESULT, Outcome, read_result, result_rows, run_directory, write_arrays
from ltr.runs.run_folder import RunFolder
from ltr.runs.run_lock import locked_run
from ltr.runs.stages import Stages
from ltr.runs.store import RECORD, REMOVED, StageStore
from ltr.runs.tracking.loggers import RunLoggers
from ltr.runs.training.doubts import warn_of_doubts, warn_of_endless_deferrals
from ltr.runs.weights_overlap import warn_of_evaluated_training_images
from ltr.writing import check_outputs, disk_trouble


def run(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    console: Console,
    source: Source | None = None,
    read: Callable[[Mapping[str, Any]], Source] = instantiate,
    draw: Callable[[Path], Sequence[Path]] = lambda directory: (),
) -> Outcome:
    """Run a checked, resolved, plain configuration.

    Args:
        config: see ``conf/train.yaml``; values and targets are checked.
        overrides: the command's overrides, stored in the run directory.
        source: data set of ``config`` if it is already read.
        read: see `ltr.runs.plan.plan_of`.
        draw: draws the figures of a finished run directory, also for the loggers; `ltr.runs` does not import reports.

    Raises:
        LtrError: a mistake that the user can correct; no half-written file remains.
        Interrupted: a signal stopped the run; the training state is saved.
    """
    mistakes = check_arguments(config)
    if mistakes:
        raise ConfigError("\n".join(["the configuration does not fit the code:", *(f"  {m}" for m in mistakes)]))
    _check_processes(config)
    with ExitStack() as held:
        local: list[RunStatus] = []  # filled on rank 0 only

        def find_status() -> dict[str, Any]:
            local.append(_status_alone(config, printer(console), source, read, held))
            return {"config": local[0].config, "is_finished": local[0].outcome is not None}

        shared = distributed.broadcast_from_rank_zero(find_status)
        known = {**config, **{key: value for key, value in shared["config"].items() if key in IDENTITIES}}
        if shared["is_finished"]:
            return (local[0].outcome if local else None) or Outcome(run_directory(known), None, reused=True)
        return _run(known, overrides, console, local[0].source if local else source, read, draw)


def _status_alone(
    config: Mapping[str, Any],
    print_line: Callable[[str], None],
    source: Source | None,
    read: Callable[[Mapping[str, Any]], Source],
    held: ExitStack,
) -> RunStatus:
    """Return the status of a run; unless it is finished or only planned, with the lock of its directory in ``held``.

    While another process holds the lock, this process waits, and then looks again: the other one may have finished the
    run, or one on other data, whose result stays there.
    """
    status = find_result(config, print_line, source, read)
    while status.outcome is None and config["stages"] != "plan":
        directory = run_directory(status.config)
        check_outputs(config["paths"], directory)
        before = _mark(directory / RESULT)
        with ExitStack() as attempt:
            has_waited = attempt.enter_context(locked_run(directory, print_line))
            if not has_waited and _mark(directory / RESULT) == before:
                held.enter_context(attempt.pop_all())
                return status
            status = find_result(config, print_line, status.source, read)
            if status.outcome is None and run_directory(status.config) == directory:
                held.enter_context(attempt.pop_all())
                return status
    return status


def _mark(path: Path) -> int | None:
    """Return the time at which a file was written; None if there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def _run(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    console: Console,
    source: Source | None,
    read: Callable[[Mapping[str, Any]], Source],
    draw: Callable[[Path], Sequence[Path]],
) -> Outcome:
    """Run a configuration that has no valid result yet."""
    # memory and disk may run out between stages, and in a stage that trains nothing
    try:
        with stop_request() as request, explain_failures("the run", lambda: "out of memory. Lower batch_size"):
            return _Run(config, overrides, console, request, lambda: plan_of(config, source, read), draw).carry_out()
    except OSError as error:
        trouble = disk_trouble(error, "the run", config["paths"])
        if trouble is None:
            raise
        raise trouble from error


def _check_processes(config: Mapping[str, Any]) -> None:
    devices = config["trainer"]["devices"]
    if devices != distributed.world_size() and config["stages"] != "plan":
        raise ConfigError(
            f"trainer.devices={devices}: this process is "
            f"{'alone' if distributed.world_size() == 1 else f'one of {distributed.world_size()}'}. "
            "Use the command ltr-train, which starts them, or torchrun"
        )


class _Run:
    """One run from data to result."""

    def __init__(
        self,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        console: Console,
        request: StopRequest,
        plan: Callable[[], RunPlan],
        draw: Callable[[Path], Sequence[Path]],
    ) -> None:
        self.config = config
        self.draw = draw
        self.console = console
        self.print_line = printer(console)
        # one process downloads and unpacks the data set
        with distributed.rank_by_rank() if config["dataset"]["source"].get("download") else contextlib.nullcontext():
            planned = plan()
        self.plan = replace(planned, source=share_pixels(planned.source, self.print_line))
        if self.plan.device.type == "cpu":
            keep_freed_memory()
        overlap = None
        if distributed.is_rank_zero():
            overlap = warn_of_evaluated_training_images(config, self.plan.source, self.plan.split)
        for stage in self.plan.stages:
            if stage.module and not stage.checkpoint:
                warn_of_doubts(stage, self.plan.dataset_info)
            if note := resized_for(stage, self.plan.dataset_info):
                self.print_line(note)
        warn_of_endless_deferrals(self.plan.stages, self.plan.dataset_info)
        if note := preprocessing_note(config, self.plan.dataset_info.image_shape):
            self.print_line(note)
        self.store = StageStore(Path(config["paths"]["stages"]), self.print_line)
        self.folder = RunFolder(
            run_directory(config), config, overrides, self.plan.source, self.plan.split, self.store, self.print_line
        )
        self.folder.overlap = overlap
        self.loggers = RunLoggers(
            config if distributed.is_rank_zero() else {**config, "logger": {"name": "csv"}},
            self.folder.path,
            {
                stage.name: stage.settings.epochs if stage.module and not stage.checkpoint else 0
                for stage in self.plan.stages
            },
        )
        self.stages = Stages(
            config=config,
            plan=self.plan,
            store=self.store,
            console=console,
            request=request,
            loggers=self.loggers,
            started=self.folder.begin,
        )

    def carry_out(self) -> Outcome:
        """Obtain every stage, evaluate and write the result; with ``stages=plan`` only print the plan."""
        if self.config["stages"] == "plan":
            if read_result(self.folder.path) is None:  # a finished run is not resumed, but reused
                self._check_state()
            self._print_plan()
            return Outcome(self.folder.path, None)
        distributed.broadcast_from_rank_zero(self._check_state)
        self._print_header()
        self._check_files()
        start = time.perf_counter()
        rows: list[dict[str, Any]] = []
        on_test: list[ProtocolResult] = []
        finished = False
        try:
            self.stages.obtain_features()
            outputs: dict[str, StageOutput] = {}
            for stage in self.plan.stages:
                key, spec = self.plan.keys[stage.name]
                outputs[stage.name] = self.stages.obtain(stage, key, spec, outputs)
            self.folder.begin()
            predictor = self.plan.method.predictor(outputs)
            rows, on_test = self._evaluate(predictor, outputs)
            result = None
            if distributed.is_rank_zero():
                self._check_stages(outputs)
                self._write_examples(predictor)
                write_figure_arrays(self.folder.path, self._trained_stages(), outputs, predictor)
                self.folder.write_weights(predictor, outputs[self.plan.stages[-1].name])
                run_info = {
                    "device": device_name(self.plan.device),
                    "precision": self.plan.precision,
                    "stored_stages": self.stages.cached_code,
                    "seconds": time.perf_counter() - start,
                }
                result = self.folder.finish(outputs, rows, on_test, run_info)
            finished = True
            return Outcome(self.folder.path, result)
        except Interrupted as stopped:
            self.folder.note("preempted")
            if distributed.is_rank_zero() and (line := requeue(stopped)):
                self.print_line(line)
            raise
        except BaseException:
            self.folder.note("failed")
            raise
        finally:
            try:
                if finished and distributed.is_rank_zero():
                    self.loggers.log_result(rows, on_test, self._draw_figures())
                    self.folder.check_whole()
            finally:
                self.loggers.close(failed=not finished)

    # -- before ---------------------------------------------------------------------------------------------------

    def _states(self) -> list[Path]:
        return [self.store.folder(key) / "state" for key, _ in self.plan.keys.values()]

    def _check_state(self) -> None:
        """Refuse ``resume=must`` without an unfinished stage."""
        if self.config["resume"] == "must" and not any(state.is_dir() for state in self._states()):
            raise CheckpointError(
                f"resume=must: there is nothing to resume, neither a result in {self.folder.path} nor an "
                "unfinished stage. Use resume=auto to start, or check the overrides: other values make another run"
            )

    def _print_plan(self) -> None:
        for stage in self.plan.stages:
            key = self.plan.keys[stage.name][0]
            status = "cached" if self.stages.is_stored(key) else "to compute" if stage.compute else "to train"
            work = "no training" if stage.compute else stage.checkpoint or counted(stage.settings.epochs, "epoch")
            self.print_line(f"{stage.name:<16} {key}  {status:<9} {work}")

    def _print_header(self) -> None:
        images = ", ".join(f"{len(getattr(self.plan.split, part))} {part}" for part in ("train", "val", "test"))
        where = f"{device_name(self.plan.device)}, {self.plan.precision}"
        where += f", {distributed.world_size()} processes" if distributed.is_distributed() else ""
        self.print_line(
            f"{self.config['dataset']['name']} x {self.config['method']['name']}, seed {self.config['seed']}: "
            f"{images} images, {counted(self.plan.dataset_info.num_classes, 'class', 'classes')}; {where}\n"
            f"  {self.folder.path}"
        )
        if self.plan.device.type == "cpu" and (notice := pop_notice()):
            self.print_line(f"  {notice}")
        result = read_result(self.folder.path) if self.config["resume"] != "never" else None
        if result is not None and (excess := excess_of_result(result, self.config["trainer"])):
            self.print_line(f"  the finished result is not used: {excess}")
        for package, identity in self.config.get("code", {}).items():
            self.print_line(f"  code outside ltr: {package} ({identity})")
        for remark in self.plan.source.remarks:
            self.print_line(f"  {remark}")

    def _check_files(self) -> None:
        """Open the image files before the first training, unless all stages are cached."""
        trainer = self.config["trainer"]
        if not trainer["check_files"] or all(self.stages.is_stored(key) for key, _ in self.plan.keys.values()):
            return

        def lines() -> list[str]:
            return check_files(
                self.plan.source,
                self.plan.split,
                workers=trainer["num_workers"],
                dataset=self.config["dataset"],
                may_skip=trainer["on_error"] == "skip",
                shown=lambda total: opening_progress(self.console, total),
            )

        for line in distributed.broadcast_from_rank_zero(lines):
            warnings.warn(line, stacklevel=1)

    def _draw_figures(self) -> Sequence[Path]:
        """Draw the figures; return none if a file that they need was removed, which `RunFolder.check_whole` reports."""
        try:
            return self.draw(self.folder.path)
        except (DataError, OSError):
            if not self.folder.missing_files():
                raise
            return ()

    # -- after ----------------------------------------------------------------------------------------------------

    def _evaluate(
        self, predictor: Any, outputs: Mapping[str, StageOutput]
    ) -> tuple[list[dict[str, Any]], list[ProtocolResult]]:
        """Return the rows of all splits and checkpoints, and the results of the selected weights on test."""
        final = self.plan.stages[-1]
        selection = final.settings.selection
        data = self.stages.data_module(final.settings, final.role)

        evaluator = SplitEvaluator(
            self.plan.split, data, evaluation_of(self.config), self.plan.device, self.plan.precision, "evaluation "
        )
        last = outputs[final.name].load_last
        selected = "final" if last is None else "best"
        results = evaluator.evaluate_parts(predictor, ("val", "test"))
        rows: list[dict[str, Any]] = []
        for part, part_results in results.items():
            rows += result_rows(part_results, split=part, checkpoint=selected, selection=selection)
        if last is not None:
            # the threshold applies to the selected weights, not to those of the last epoch
            last_results = evaluator.evaluate_parts(last(), ["test"], with_threshold=False)["test"]
            last_rows = result_rows(last_results, split="test", checkpoint="final", selection="last")
            rows += [{**row, "headline": False} for row in last_rows]
        return rows, results["test"]

    def _write_examples(self, predictor: Any) -> None:
        """Write the method's example arrays of a few test images, for figures."""
        data = self.stages.data_module(self.plan.stages[-1].settings, self.plan.stages[-1].role)
        arrays = examples_of(predictor, predictor, data, self.plan.device, self.plan.precision)
        if arrays:
            write_arrays(self.folder.path / "artifacts" / "examples.npz", arrays)

    def _trained_stages(self) -> list[tuple[str, DataModule]]:
        stages = [stage for stage in self.plan.stages if stage.module and not stage.checkpoint]
        return [(stage.name, self.stages.data_module(stage.settings, stage.role)) for stage in stages]

    def _check_stages(self, outputs: Mapping[str, StageOutput]) -> None:
        """Refuse to continue without the folders of the stages, whose files the run's folder links."""
        for output in outputs.values():
            folder = self.store.folder(output.key)
            if not (folder / RECORD).is_file():
                raise TrainingError(f"stage '{output.name}' ({folder}): {REMOVED}")
