"""One run: plan the stages, take them from the store or train them, evaluate the method, write the result."""

from __future__ import annotations

import contextlib
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from ltr.configuration.targets import check_arguments, instantiate
from ltr.data.module import DataModule
from ltr.data.opening import check_files
from ltr.data.source import Source
from ltr.data.splits import save_split
from ltr.errors import CheckpointError, ConfigError, DataError, Interrupted, TrainingError
from ltr.escaping import rich_text
from ltr.files import link_or_copy, write_json
from ltr.methods.core.checkpoint import network_checkpoint, write_checkpoint
from ltr.methods.core.stage import StageOutput
from ltr.runs import distributed
from ltr.runs.device import device_name, keep_freed_memory
from ltr.runs.evaluate_network import ProtocolResult, evaluate, examples_of
from ltr.runs.failures import explained, out_of_memory_in_evaluation
from ltr.runs.figure_arrays import write_figure_arrays
from ltr.runs.finished import Standing, standing
from ltr.runs.image_size import resized_for
from ltr.runs.interrupt import StopRequest, requeue, stop_request
from ltr.runs.location_stats import location_stats
from ltr.runs.loggers import RunLoggers
from ltr.runs.opening_progress import opening_progress
from ltr.runs.pixels import share_pixels
from ltr.runs.plan import RunPlan, plan_of, warn_of_double_balancing, warn_of_short_schedule
from ltr.runs.protocols import declared_metrics, evaluated_parts, headline_metric, protocols_of
from ltr.runs.provenance import provenance
from ltr.runs.result import (
    AT_THE_END,
    AT_THE_START,
    FINAL,
    RESULT,
    Outcome,
    result_rows,
    run_directory,
    write_arrays,
    write_curve,
    write_metrics,
    write_result,
    write_start,
    write_status,
    write_tables,
)
from ltr.runs.stages import ARRAYS, Stages
from ltr.runs.store import RECORD, REMOVED, StageStore
from ltr.runs.training_doubts import warn_of_frozen_random_weights, warn_of_tiny_rates
from ltr.writing import check_outputs, disk_trouble


def run(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    console: Console,
    source: Source | None = None,
    read: Callable[[Mapping[str, Any]], Source] = instantiate,
    draw: Callable[[Path], Sequence[Path]] = lambda directory: (),
) -> Outcome:
    """Do what a checked, resolved, plain configuration says.

    Args:
        config: see ``conf/train.yaml``; values and targets have been checked.
        overrides: the command's overrides, kept for the record.
        console: where progress goes.
        source: the data set of ``config``, where it has been read already.
        read: see `ltr.runs.plan.plan_of`.
        draw: the pictures of a finished run directory, for the loggers too; drawing belongs to a higher floor.

    Raises:
        LtrError: anything the user can mend; nothing half-written is left.
        Interrupted: a signal; the training state is kept.
    """
    mistakes = check_arguments(config)
    if mistakes:
        raise ConfigError("\n".join(["the configuration does not fit the code:", *(f"  {m}" for m in mistakes)]))
    _check_processes(config)
    looked: list[Standing] = []

    def look() -> dict[str, Any]:
        looked.append(standing(config, partial(_say, console), source, read))
        identities = {key: looked[0].config[key] for key in ("code", "data") if key in looked[0].config}
        return {"identities": identities, "finished": looked[0].outcome is not None}

    found = distributed.broadcast_from_rank_zero(look)
    config = {**config, **found["identities"]}
    if found["finished"]:
        return (looked[0].outcome if looked else None) or Outcome(run_directory(config), None, reused=True)
    source = looked[0].source if looked else source
    if config["stages"] != "plan":
        distributed.broadcast_from_rank_zero(lambda: check_outputs(config["paths"], run_directory(config)))
    # memory and disk may run out between stages, and in a stage that trains nothing
    try:
        with stop_request() as request, explained("the run", lambda: "out of memory. Lower batch_size"):
            return _Run(config, overrides, console, request, lambda: plan_of(config, source, read), draw).carry_out()
    except OSError as error:
        trouble = disk_trouble(error, "the run", config["paths"])
        if trouble is None:
            raise
        raise trouble from error


def _say(console: Console, text: str) -> None:
    console.print(rich_text(text), soft_wrap=True)


def _check_processes(config: Mapping[str, Any]) -> None:
    asked = config["trainer"]["devices"]
    if asked != distributed.world_size() and config["stages"] != "plan":
        raise ConfigError(
            f"trainer.devices={asked}: this process is "
            f"{'alone' if distributed.world_size() == 1 else f'one of {distributed.world_size()}'}. "
            "Use the command ltr-train, which starts them, or torchrun"
        )


class _Run:
    """One run on its way from data to result: built with its plan, carried out once."""

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
        self.overrides = overrides
        self.console = console
        self.directory = run_directory(config)
        self.started = False
        self.written: list[str] = []  # tables and arrays, which not every run has
        # a data set that is fetched or unpacked is so by one process
        with distributed.rank_by_rank() if config["dataset"]["source"].get("download") else contextlib.nullcontext():
            planned = plan()
        self.device, self.precision, self.method = planned.device, planned.precision, planned.method
        self.source = share_pixels(planned.source, self.say)
        self.split, self.dataset_info = planned.split, planned.dataset_info
        self.plan, self.keys = planned.stages, planned.keys
        if self.device.type == "cpu":
            keep_freed_memory()
        for stage in self.plan:
            if stage.module and not stage.checkpoint:
                warn_of_double_balancing(stage.settings, self.dataset_info)
                warn_of_short_schedule(stage.settings)
                warn_of_tiny_rates(stage.settings)
                warn_of_frozen_random_weights(stage)
            if note := resized_for(stage, self.dataset_info):
                self.say(note)
        self.store = StageStore(Path(config["paths"]["stages"]), self.say)
        self.loggers = RunLoggers(
            config if distributed.is_rank_zero() else {**config, "logger": {"name": "csv"}},
            self.directory,
            {stage.name: stage.settings.epochs if stage.module and not stage.checkpoint else 0 for stage in self.plan},
        )
        self.stages = Stages(
            config=config,
            source=self.source,
            split=self.split,
            dataset_info=self.dataset_info,
            device=self.device,
            store=self.store,
            console=console,
            request=request,
            loggers=self.loggers,
            started=self._start,
        )

    def say(self, text: str) -> None:
        self.console.print(rich_text(text), soft_wrap=True)

    def carry_out(self) -> Outcome:
        """Every stage, the evaluation and the writing; or only the plan, where that was asked for."""
        if self.config["stages"] == "plan":
            self._print_plan()
            return Outcome(self.directory, None)
        distributed.broadcast_from_rank_zero(self._check_resume)
        self._announce()
        self._check_files()
        began = time.perf_counter()
        rows: list[dict[str, Any]] = []
        evaluated: list[ProtocolResult] = []
        finished = False
        try:
            outputs: dict[str, StageOutput] = {}
            for stage in self.plan:
                key, spec = self.keys[stage.name]
                outputs[stage.name] = self.stages.obtain(stage, key, spec, outputs)
            self._start()
            predictor = self.method.predictor(outputs)
            rows, evaluated = self._evaluate(predictor, outputs)
            result = None
            if distributed.is_rank_zero():
                self._check_stages(outputs)
                self._keep_examples(predictor)
                write_figure_arrays(self.directory, self._trained(), outputs, predictor)
                self._keep_weights(predictor, outputs)
                result = self._write(outputs, rows, evaluated, time.perf_counter() - began)
            finished = True
            return Outcome(self.directory, result)
        except Interrupted as stopped:
            self._note("preempted")
            if distributed.is_rank_zero() and (told := requeue(stopped)):
                self.say(told)
            raise
        except BaseException:
            self._note("failed")
            raise
        finally:
            try:
                if finished and distributed.is_rank_zero():
                    pictures = self._drawn()
                    self.loggers.log_result(rows, evaluated, pictures)
                    self._check_whole()
            finally:
                self.loggers.close(failed=not finished)

    # -- before ---------------------------------------------------------------------------------------------------

    def _check_resume(self) -> None:
        states = [self.store.folder(key) / "state" for key, _ in self.keys.values()]
        if self.config["resume"] == "must" and not any(state.is_dir() for state in states):
            raise CheckpointError(
                f"resume=must: there is nothing to go on from, neither a result in {self.directory} nor an unfinished "
                "stage. Use resume=auto to start, or check the overrides: another value is another run"
            )
        if self.config["resume"] == "never":
            for state in states:
                shutil.rmtree(state, ignore_errors=True)

    def _print_plan(self) -> None:
        for stage in self.plan:
            key = self.keys[stage.name][0]
            status = "stored" if self.store.record(key) else "to train"
            work = "computed" if stage.compute else stage.checkpoint or f"{stage.settings.epochs} epochs"
            self.say(f"{stage.name:<16} {key}  {status:<9} {work}")

    def _announce(self) -> None:
        images = ", ".join(f"{len(getattr(self.split, part))} {part}" for part in ("train", "val", "test"))
        where = f"{device_name(self.device)}, {self.precision}"
        where += f", {distributed.world_size()} processes" if distributed.is_distributed() else ""
        self.say(
            f"{self.config['dataset']['name']} x {self.config['method']['name']}, seed {self.config['seed']}: "
            f"{images} images, {self.dataset_info.num_classes} classes; {where}\n"
            f"  {self.directory}"
        )
        for package, identity in self.config.get("code", {}).items():
            self.say(f"  code outside ltr: {package} ({identity})")

    def _check_files(self) -> None:
        """Open the image files before anything is trained, where anything is to be."""
        trainer = self.config["trainer"]
        if not trainer["check_files"] or all(self.store.record(key) for key, _ in self.keys.values()):
            return

        def lines() -> list[str]:
            return check_files(
                self.source,
                self.split,
                workers=trainer["num_workers"],
                dataset=self.config["dataset"],
                may_skip=trainer["on_error"] == "skip",
                shown=lambda total: opening_progress(self.console, total),
            )

        for line in distributed.broadcast_from_rank_zero(lines):
            warnings.warn(line, stacklevel=1)

    def _start(self) -> None:
        """Make the run directory, once nothing is left that a check could refuse."""
        if not self.started and distributed.is_rank_zero():
            write_start(self.directory, self.config, self.overrides)
            save_split(self.split, self.directory / "split.npz")
            self.started = True

    def _note(self, status: str) -> None:
        """Write how the run ended; that must not hide why (a full disk, say)."""
        if self.started:
            with contextlib.suppress(OSError):
                write_status(self.directory, status)

    def _drawn(self) -> Sequence[Path]:
        """The pictures; none where what they are drawn from was removed, which `_check_whole` says."""
        try:
            return self.draw(self.directory)
        except (DataError, OSError):
            if not self._missing():
                raise
            return ()

    # -- after ----------------------------------------------------------------------------------------------------

    def _evaluate(
        self, predictor: Any, outputs: Mapping[str, StageOutput]
    ) -> tuple[list[dict[str, Any]], list[ProtocolResult]]:
        """Rows of all splits and checkpoints, and what was evaluated of the selected weights on test."""
        final = self.plan[-1]
        selection = final.settings.selection
        data = self.stages.data_module(final.settings, final.role)
        self._check_shares()

        thresholds: dict[tuple[str, str | None], float] = {}

        def evaluated_on(part: str, predictor: Any) -> list[ProtocolResult]:
            def protocols(link: str, keep: bool) -> list[Any]:
                return protocols_of(self.split, self.config["evaluation"], link, self.device, keep)

            parts = evaluated_parts(self.split, part, self.config["evaluation"])
            loaders = {name: data.evaluation_loader(name) for name in parts}
            with explained(f"evaluation {part}", lambda: out_of_memory_in_evaluation(data.eval_batch_size)):
                looks = location_stats(predictor, data)
                return evaluate(predictor, loaders, protocols, self.device, self.precision, thresholds, looks)

        last = outputs[final.name].load_last
        selected = "final" if last is None else "best"
        rows: list[dict[str, Any]] = []
        if len(self.split.val):
            on_val = evaluated_on("val", predictor)
            rows += result_rows(on_val, split="val", checkpoint=selected, selection=selection)
            # known or unknown is decided on test at the threshold that accepts 95 % of the validation images
            found = [one for one in on_val if one.protocol == "open_set"]
            thresholds |= {(one.variant, one.scorer): one.result.threshold_at_95_tpr for one in found}
        on_test = evaluated_on("test", predictor)
        rows += result_rows(on_test, split="test", checkpoint=selected, selection=selection)
        if last is not None:
            thresholds.clear()  # they are of the other weights
            others = result_rows(evaluated_on("test", last()), split="test", checkpoint="final", selection="last")
            rows += [{**row, "headline": False} for row in others]
        return rows, on_test

    def _check_shares(self) -> None:
        """A part of the split with fewer images than processes would leave one with nothing to evaluate."""
        for part in ("val", "test"):
            images = len(getattr(self.split, part))
            if 0 < images < distributed.world_size():
                raise DataError(
                    f"the split '{self.split.name}' has {images} {part} images for "
                    f"{distributed.world_size()} processes. Use "
                    f"fewer"
                )

    def _keep_examples(self, predictor: Any) -> None:
        """What the method shows of a few test images, for pictures."""
        data = self.stages.data_module(self.plan[-1].settings, self.plan[-1].role)
        arrays = examples_of(predictor, predictor, data, self.device, self.precision)
        if arrays:
            write_arrays(self.directory / "artifacts" / "examples.npz", arrays)

    def _trained(self) -> list[tuple[str, DataModule]]:
        stages = [stage for stage in self.plan if stage.module and not stage.checkpoint]
        return [(stage.name, self.stages.data_module(stage.settings, stage.role)) for stage in stages]

    def _check_stages(self, outputs: Mapping[str, StageOutput]) -> None:
        """What a run keeps of its stages is taken from the store: refuse to go on without it."""
        for output in outputs.values():
            folder = self.store.folder(output.key)
            if not (folder / RECORD).is_file():
                raise TrainingError(f"stage '{output.name}' ({folder}): {REMOVED}")

    def _missing(self) -> list[str]:
        """Files that every finished run's directory has, and that are not there."""
        needed = [*AT_THE_START, *AT_THE_END, f"checkpoints/{FINAL}", *self.written]
        return [name for name in needed if not (self.directory / name).is_file()]

    def _check_whole(self) -> None:
        """Refuse to end well with half a directory: without its result the same command writes it again."""
        missing = self._missing()
        if missing:
            (self.directory / RESULT).unlink(missing_ok=True)
            if self.directory.is_dir():
                self._note("failed")
            raise TrainingError(
                f"{self.directory}: {', '.join(missing)} missing: something removed files of the run while it was at "
                "work. The same command writes them again, from the stages that are stored"
            )

    def _keep_weights(self, predictor: Any, outputs: Mapping[str, StageOutput]) -> None:
        """``checkpoints/``: links to the store's files, which may be pruned; or the method's own final network."""
        folder = self.store.folder(outputs[self.plan[-1].name].key)
        checkpoints = self.directory / "checkpoints"
        if (folder / "last.ckpt").is_file():
            link_or_copy(folder / "last.ckpt", checkpoints / FINAL)
            link_or_copy(folder / "weights.ckpt", checkpoints / "best.ckpt")
        elif (folder / "weights.ckpt").is_file():
            link_or_copy(folder / "weights.ckpt", checkpoints / FINAL)
        else:
            write_checkpoint(checkpoints / FINAL, network_checkpoint(predictor, self.config["dataset"]))

    def _write(
        self,
        outputs: Mapping[str, StageOutput],
        rows: Sequence[Mapping[str, Any]],
        evaluated: Sequence[ProtocolResult],
        seconds: float,
    ) -> dict[str, Any]:
        if any(not (self.directory / name).is_file() for name in AT_THE_START):
            self.say(f"{self.directory} was removed while the run was at work: it is written anew")
            self.started = False
            self._start()
        folders = [self.store.folder(output.key) for output in outputs.values()]
        write_metrics(self.directory, [folder / "metrics.csv" for folder in folders])
        write_tables(self.directory, evaluated, self.split.class_names)
        write_curve(self.directory, rows)
        for output, folder in zip(outputs.values(), folders):
            if output.arrays:
                link_or_copy(folder / ARRAYS, self.directory / "artifacts" / f"{output.name}.npz")
        made = [*self.directory.glob("*.parquet"), *self.directory.glob("artifacts/*.npz")]
        self.written = sorted(str(path.relative_to(self.directory)) for path in made)
        about = provenance(device_name(self.device), self.precision)
        about["code"] = {**about["code"], "own": self.config.get("code", {})}
        about |= {"stored_stages": self.stages.made_by} if self.stages.made_by else {}
        about |= {"processes": distributed.world_size()}
        micro = {output.name: output.micro_batch for output in outputs.values() if output.micro_batch}
        about |= {"micro_batch": micro} if micro else {}
        about |= {
            "data": self.source.fingerprint,
            "seed": self.config["seed"],
            "split": self.split.name,
            "split_digest": self.split.digest(),
        }
        write_json(self.directory / "provenance.json", {**about, "seconds": round(seconds, 3)})
        stages = [
            {"name": o.name, "key": o.key, "status": "reused" if o.reused else "trained", "seconds": o.seconds}
            for o in outputs.values()
        ]
        data = {
            "fingerprint": self.source.fingerprint,
            "split": self.split.name,
            "split_digest": self.split.digest(),
            "val_rule": self.split.val_rule,
            "classes": self.split.num_classes,
            **{f"{part}_images": len(getattr(self.split, part)) for part in ("train", "val", "test", "unknown")},
        }
        result = write_result(
            self.directory,
            self.config,
            stages,
            rows,
            data,
            headline_metric(self.split),
            declared_metrics(self.split, self.config["evaluation"]),
        )
        write_status(self.directory, "finished")
        return result
