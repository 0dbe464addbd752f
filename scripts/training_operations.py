"""Write the operations of training into results/costs.csv: the exact cost of a run, on whatever machine it ran.

    python scripts/training_operations.py --data FOLDER                                # the rows of --queue --short
    python scripts/training_operations.py cifar100_lt_erm --epochs 60 --data FOLDER    # and others

Operations are multiply-accumulates of convolutions and matrix products, forward and backward, of all stages. They are
counted in one real training step of each stage, so that passes at perturbed weights, several experts and several views
count as often as they are computed, and multiplied by the number of steps. Computed stages are not counted; they are
computed only where a training builds on them. A line belongs to all seeds of a configuration; lines of other
configurations are kept.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import training_queue
from ltr.cli import run_as_process, run_guarded
from ltr.configuration.overrides import load_config
from ltr.console import print_line
from ltr.data.packed_images.reading import read_source
from ltr.files import write_text
from ltr.methods.core.stage import Stage
from ltr.report.results_checks import COST_COLUMNS, COSTS, read_costs
from ltr.runs.keys import group_hash
from ltr.runs.plan import RunPlan, plan_of
from ltr.runs.processes.interrupt import StopRequest, stop_request
from ltr.runs.stages import Stages
from ltr.runs.store import StageStore

ROOT = Path(__file__).parents[1]


class OperationCounter(TorchDispatchMode):
    """Counter of floating-point operations by torch's formulas; `FlopCounterMode` refuses gradients within a step."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:  # a composite operation counts as its parts
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out


def training_operations(config: dict[str, Any], planned: RunPlan, request: StopRequest) -> float:
    """Return the multiply-accumulate operations of a run's training."""
    with tempfile.TemporaryDirectory() as folder:
        of_one, of_two = (_counted(config, planned, request, steps, Path(folder)) for steps in (1, 2))
    total = 0.0
    for stage in planned.stages:
        if stage.module is not None and stage.checkpoint is None:
            settings = stage.settings
            images = settings.sampler.get("num_samples") or len(planned.split.train)
            steps = settings.epochs * images / settings.batch_size
            total += steps * (of_two[stage.name] - of_one[stage.name])
    return total


def _counted(
    config: dict[str, Any], planned: RunPlan, request: StopRequest, steps: int, folder: Path
) -> dict[str, float]:
    """Return the operations of one epoch of a few steps of each trained stage.

    Args:
        folder: temporary store. Computed stages in it are used again.
    """
    counts: dict[str, float] = {}
    stages = Stages(
        config={**config, "compile": False, "callbacks": {**config["callbacks"], "progress": "none"}},
        plan=replace(planned, split=replace(planned.split, val=np.empty(0, dtype=np.int64))),
        store=StageStore(folder),
        console=Console(quiet=True),
        request=request,
        loggers=lambda stage: [],
        started=lambda: None,
    )
    outputs: dict[str, Any] = {}
    needed = _needed(planned.stages)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for stage in (stage for stage in planned.stages if stage.name in needed):
            if stage.module is None:
                outputs[stage.name] = stages.obtain(stage, stage.name, {}, outputs)
                continue
            settings = stage.settings.replaced(
                epochs=1,
                limit_train_batches=steps,
                selection="last",
                scheduler={"_target_": "ltr.optim.schedules.Constant"},
            )
            with OperationCounter() as counter:
                outputs[stage.name] = stages.obtain(
                    replace(stage, settings=settings), f"{stage.name}-{steps}", {}, outputs
                )
            counts[stage.name] = counter.flops / 2
    return counts


def _needed(stages: Sequence[Stage]) -> set[str]:
    """Return the names of the trained stages and of the stages that they build on."""
    needed: set[str] = set()
    for stage in reversed(stages):
        if stage.module is not None or stage.name in needed:
            needed |= {stage.name, *stage.parents}
    return needed


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="*", help="experiments (default: the rows of --queue --short); key=value for all of them"
    )
    parser.add_argument("--epochs", type=int, default=training_queue.SHORT_EPOCHS)
    parser.add_argument("--val", default="none", help="dataset.val of the runs (default: none)")
    parser.add_argument("--precision", default="bf16", help="trainer.precision of the runs (default: bf16)")
    parser.add_argument("--data", metavar="FOLDER", help="folder of the data sets (default: paths.data)")
    parser.add_argument("--results", type=Path, default=ROOT / "results", metavar="FOLDER")
    arguments = parser.parse_args(argv)
    settings = [word for word in arguments.what if "=" in word]
    rows = [(name, arguments.epochs) for name in arguments.what if "=" not in name] or training_queue.SHORT_ROWS
    path = arguments.results / COSTS
    read_costs(path)  # says what is wrong with it
    lines = {line["group_hash"]: line for line in _lines(path)}
    with stop_request() as request:
        for experiment, epochs in rows:
            overrides = [f"experiment={experiment}", f"trainer.max_epochs={epochs}", f"dataset.val={arguments.val}"]
            overrides += [f"trainer.precision={arguments.precision}", *settings]
            config = load_config([*overrides, *([f"paths.data={arguments.data}"] if arguments.data else [])])
            key = group_hash(config)
            if key in lines:
                print_line(f"{experiment}, {epochs} epochs: counted before")
                continue
            operations = training_operations(config, plan_of(config, read_source(config["dataset"])), request)
            lines[key] = {
                "group_hash": key,
                "run": str(config["name"]),
                "epochs": str(epochs),
                "operations": f"{operations:.4e}",
            }
            _write(path, list(lines.values()))
            print_line(f"{experiment}, {epochs} epochs: {operations:.4e} operations")
    return 0


def _lines(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, lines: list[dict[str, str]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COST_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(lines, key=lambda line: (line["run"], int(line["epochs"]), line["group_hash"])))
    write_text(path, buffer.getvalue())


if __name__ == "__main__":
    sys.exit(run_as_process(lambda: run_guarded(lambda: main(sys.argv[1:]))))
