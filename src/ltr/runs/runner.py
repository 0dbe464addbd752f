"""One run: plan the stages, take them from the store or train them, judge the method, write the result."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ltr.configuration.targets import check_arguments, instantiate
from ltr.data.module import DataModule
from ltr.data.source import Source
from ltr.data.splits import Split, save_split
from ltr.errors import CheckpointError, ConfigError, Interrupted
from ltr.evaluation.closed_set import ClosedSet
from ltr.files import link_or_copy, write_json
from ltr.methods.stage import DataFacts, Method, Settings, Stage, StageOutput
from ltr.runs.checkpoint import load_network
from ltr.runs.device import device_name, resolve_device, resolve_precision
from ltr.runs.evaluate import Judged, evaluate
from ltr.runs.interrupt import StopRequest, stop_request
from ltr.runs.loggers import RunLoggers
from ltr.runs.plan import data_facts, image_shape, main_settings, plan_keys, warn_of_double_balancing
from ltr.runs.provenance import provenance
from ltr.runs.result import (
    Outcome,
    finished_before,
    result_rows,
    run_directory,
    write_metrics,
    write_result,
    write_start,
    write_status,
    write_tables,
)
from ltr.runs.store import StageStore
from ltr.runs.train import Surroundings, Watched, train_stage

PROTOCOLS = {"closed_set": ClosedSet}


def run(config: Mapping[str, Any], overrides: Sequence[str], console: Console) -> Outcome:
    """Do what a checked, resolved, plain configuration says.

    Args:
        config: see ``conf/train.yaml``; values and targets have been checked.
        overrides: the command's overrides, kept for the record.
        console: where progress goes.

    Raises:
        LtrError: anything the user can mend; nothing half-written is left.
        Interrupted: a signal; the training state is kept.
    """
    mistakes = check_arguments(config)
    if mistakes:
        raise ConfigError("\n".join(["the configuration does not fit the code:", *(f"  {m}" for m in mistakes)]))
    directory = run_directory(config)
    finished = finished_before(config)
    if finished is not None:
        return finished
    with stop_request() as request:
        return _Run(config, overrides, console, directory, request).carry_out()


class _Run:
    """The state of one run, from data to result. Every step is a method; `carry_out` is their order."""

    def __init__(
        self,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        console: Console,
        directory: Path,
        request: StopRequest,
    ) -> None:
        self.config = config
        self.overrides = overrides
        self.console = console
        self.directory = directory
        self.request = request
        self.device = resolve_device(config["trainer"]["accelerator"])
        self.precision = resolve_precision(config["trainer"]["precision"], self.device)
        self.store = StageStore(Path(config["paths"]["stages"]), self.say)
        self.started = False
        self.images: Any = None  # device-resident pixels, shared by the stages

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False)

    # -- the order of things --------------------------------------------------------------------------------------

    def carry_out(self) -> Outcome:
        config = self.config
        method: Method = instantiate(config["method"])
        source: Source = instantiate(config["dataset"]["source"])
        split: Split = instantiate(config["dataset"]["split"], source)
        self._check_selection(split)
        protocol_of(split, config["evaluation"], "softmax", self.device)  # bounds that contradict each other
        facts = data_facts(config, source, split)
        settings = main_settings(config, self.precision)
        warn_of_double_balancing(settings, facts)
        stages = method.stages(settings, facts)
        keys = plan_keys(stages, config["seed"], source, split)
        specs = {name: spec for name, (_, spec) in keys.items()}
        if config["stages"] == "plan":
            self._print_plan(stages, {name: key for name, (key, _) in keys.items()})
            return Outcome(self.directory, None)
        self._check_resume({name: key for name, (key, _) in keys.items()})
        self.say(
            f"{config['dataset']['name']} x {config['method']['name']}, seed {config['seed']}: "
            f"{len(split.train)} train, {len(split.val)} val, {len(split.test)} test images, "
            f"{facts.num_classes} classes; "
            f"{device_name(self.device)}, {self.precision}\n  {self.directory}"
        )
        started = time.perf_counter()
        loggers = RunLoggers(config, self.directory)
        rows: list[dict[str, Any]] = []
        per_class: Mapping[str, Any] | None = None
        failed = True
        try:
            outputs: dict[str, StageOutput] = {}
            for stage in stages:
                key = keys[stage.name][0]
                outputs[stage.name] = self._stage(stage, key, specs[stage.name], facts, source, split, outputs, loggers)
            self._start(split)
            rows, judged = self._judge(method, stages, outputs, source, split)
            per_class = next(one.result.per_class for one in judged if one.headline)
            result = self._write(stages, outputs, rows, judged, split, time.perf_counter() - started)
            failed = False
            return Outcome(self.directory, result)
        except Interrupted:
            self._note("preempted")
            raise
        except BaseException:
            self._note("failed")
            raise
        finally:
            loggers.finish(rows, per_class, failed)

    def _start(self, split: Split) -> None:
        """Make the run directory, once nothing is left that a check could refuse."""
        if not self.started:
            write_start(self.directory, self.config, self.overrides)
            save_split(split, self.directory / "split.npz")
            self.started = True

    def _note(self, status: str) -> None:
        """Write how the run ended; that must not hide why (a full disk, say)."""
        if self.started:
            with contextlib.suppress(OSError):
                write_status(self.directory, status)

    # -- checks ---------------------------------------------------------------------------------------------------

    def _check_selection(self, split: Split) -> None:
        if self.config["trainer"]["selection"] == "best_val" and not len(split.val):
            raise ConfigError(
                f"trainer.selection=best_val: the split '{split.name}' has no validation images. "
                "Set dataset.val=train_fraction (or test_fraction), or select the last epoch"
            )

    def _check_resume(self, keys: Mapping[str, str]) -> None:
        states = [self.store.folder(key) / "state" for key in keys.values()]
        if self.config["resume"] == "must" and not any(state.is_dir() for state in states):
            raise CheckpointError(
                f"resume=must: there is nothing to go on from, neither a result in {self.directory} nor an unfinished "
                "stage. Use resume=auto to start, or check the overrides: another value is another run"
            )
        if self.config["resume"] == "never":
            for state in states:
                shutil.rmtree(state, ignore_errors=True)

    def _print_plan(self, stages: Sequence[Stage], keys: Mapping[str, str]) -> None:
        for stage in stages:
            status = "stored" if self.store.record(keys[stage.name]) else "to train"
            self.say(f"{stage.name:<16} {keys[stage.name]}  {status:<9} {stage.settings.epochs} epochs")

    # -- stages ---------------------------------------------------------------------------------------------------

    def _stage(
        self,
        stage: Stage,
        key: str,
        spec: Mapping[str, Any],
        facts: DataFacts,
        source: Source,
        split: Split,
        outputs: Mapping[str, StageOutput],
        loggers: Callable[[], list[Any]],
    ) -> StageOutput:
        parents = {name: outputs[name] for name in stage.parents}
        with self.store.locked(key, stage.name):
            record = self.store.record(key)
            reused = record is not None
            if record is None:
                watched = self._watched(stage, split)
                data = self.data_module(source, split, stage.settings, stage.role)
                data.watched = watched.name if watched else None
                module = stage.module(stage.settings, facts, self.config["seed"], stage.role, parents)
                module.optimisation(data.steps_per_epoch)  # a schedule or groups that do not fit are refused here
                self._start(split)
                around = Surroundings(
                    device=self.device,
                    trainer=self.config["trainer"],
                    strategy=self.config["strategy"],
                    checkpoint=self.config["checkpoint"],
                    callbacks=self.config["callbacks"],
                    console=self.console,
                    request=self.request,
                    compile=self.config["compile"],
                    dataset=self.config["dataset"],
                    loggers=loggers,
                )
                folder = self.store.folder(key)
                seconds = train_stage(stage, module, facts, data, folder, self.config["seed"], around, watched)
                self.store.finish(key, spec, seconds, {"name": stage.name})
                self.request.check(f"stopped after stage '{stage.name}'")
                record = self.store.record(key)
                assert record is not None
            else:
                self.say(f"{stage.name}: stored stage {key[:12]}")
        folder = self.store.folder(key)
        last = folder / "last.ckpt"
        return StageOutput(
            name=stage.name,
            key=key,
            load=lambda: load_network(folder / "weights.ckpt", parents),
            load_last=(lambda: load_network(last, parents)) if last.is_file() else None,
            reused=reused,
            seconds=record["seconds"],
        )

    def data_module(self, source: Source, split: Split, settings: Settings, role: str) -> DataModule:
        """The data of one stage; pixels on the device are shared between stages."""
        data = DataModule(
            source,
            split,
            sampler=instantiate(settings.sampler),
            augment=instantiate(settings.augment, image_shape(self.config, source)),
            batch_size=settings.batch_size,
            eval_batch_size=self.config["evaluation"]["batch_size"],
            seed=self.config["seed"],
            role=role,
            epochs=settings.epochs,
            device=self.device,
            num_workers=self.config["trainer"]["num_workers"],
            images=self.images,
            image_size=self.config["dataset"].get("image_size"),
        )
        self.images = data.images
        return data

    def _watched(self, stage: Stage, split: Split) -> Watched | None:
        page = self.config["evaluation"]
        wants_test = page["watch"] == "test" or stage.settings.selection == "best_test"
        name = "test" if wants_test else "val" if len(split.val) else None
        if name is None:
            return None
        return Watched(
            name=name,
            protocol=lambda link: protocol_of(split, page, link, self.device, keep_predictions=False),
            monitor=PROTOCOLS[split.protocols[0]].headline,
            every_n_epochs=page["every_n_epochs"],
        )

    # -- judging --------------------------------------------------------------------------------------------------

    def _judge(
        self,
        method: Method,
        stages: Sequence[Stage],
        outputs: Mapping[str, StageOutput],
        source: Source,
        split: Split,
    ) -> tuple[list[dict[str, Any]], list[Judged]]:
        """Rows of all splits and checkpoints, and what was judged of the selected weights on test."""
        settings = stages[-1].settings
        data = self.data_module(source, split, settings, stages[-1].role)
        predictor = method.predictor(outputs)
        selected = "final" if settings.selection == "last" else "best"
        rows: list[dict[str, Any]] = []
        on_test: list[Judged] = []
        for name in ("val", "test"):
            if not len(getattr(split, name)):
                continue
            judged = self._pass(predictor, data, name, split)
            rows += result_rows(judged, split=name, checkpoint=selected, selection=settings.selection)
            on_test = judged
        last = outputs[stages[-1].name].load_last
        if last is not None:
            judged = self._pass(last(), data, "test", split)
            others = result_rows(judged, split="test", checkpoint="final", selection="last")
            rows += [{**row, "headline": False} for row in others]
        return rows, on_test

    def _pass(self, predictor: Any, data: DataModule, name: str, split: Split) -> list[Judged]:
        def protocol(link: str) -> Any:
            return protocol_of(split, self.config["evaluation"], link, self.device)

        return evaluate(predictor, data.evaluation_loader(name), protocol, self.device, self.precision)

    # -- writing --------------------------------------------------------------------------------------------------

    def _write(
        self,
        stages: Sequence[Stage],
        outputs: Mapping[str, StageOutput],
        rows: Sequence[Mapping[str, Any]],
        judged: Sequence[Judged],
        split: Split,
        seconds: float,
    ) -> dict[str, Any]:
        final = self.store.folder(outputs[stages[-1].name].key)
        checkpoints = self.directory / "checkpoints"
        if (final / "last.ckpt").is_file():
            link_or_copy(final / "last.ckpt", checkpoints / "final.ckpt")
            link_or_copy(final / "weights.ckpt", checkpoints / "best.ckpt")
        else:
            link_or_copy(final / "weights.ckpt", checkpoints / "final.ckpt")
        write_metrics(self.directory, [self.store.folder(outputs[s.name].key) / "metrics.csv" for s in stages])
        write_tables(self.directory, judged, split.class_names)
        about = provenance(device_name(self.device), self.precision)
        about |= {"seed": self.config["seed"], "split": split.name, "split_digest": split.digest(), "seconds": seconds}
        write_json(self.directory / "provenance.json", about)
        listed = [
            {"name": o.name, "key": o.key, "status": "reused" if o.reused else "trained", "seconds": o.seconds}
            for o in outputs.values()
        ]
        data = {
            "split": split.name,
            "split_digest": split.digest(),
            "val_rule": split.val_rule,
            "classes": len(split.class_counts),
            "train_images": len(split.train),
            "test_images": len(split.test),
        }
        result = write_result(self.directory, self.config, listed, rows, data)
        write_status(self.directory, "finished")
        return result


def protocol_of(
    split: Split, page: Mapping[str, Any], link: str, device: torch.device, keep_predictions: bool = True
) -> Any:
    """A fresh object of the split's first protocol, as the evaluation page says."""
    return PROTOCOLS[split.protocols[0]](
        split.class_counts,
        many_above=page["many_above"],
        few_below=page["few_below"],
        top_k=page["top_k"],
        calibration_bins=page["calibration_bins"],
        link=link,
        keep_predictions=keep_predictions,
        device=device,
    )
