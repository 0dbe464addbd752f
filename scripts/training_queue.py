"""Queue of `scripts/reproduce.py --queue`: its rows, a copy of its state, and a folder of results.

A queue runs for days beside other work. Its processes may be killed and its working folder may be lost; both cost the
epochs since the last copy and nothing else.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ltr.report.results_folder import without_paths
from ltr.runs.result import RESULT
from ltr.runs.store import RECORD
from process_pool import Task, run_tasks

NICENESS = 10
COPY_EVERY = 300.0  # seconds between two copies of the state

_DECOUPLED = ("crt", "lws", "tau_norm", "tau_norm_bias", "ncm", "posthoc_la")

_LATER = ("mixup_balanced_softmax", "cb_focal", "m2m", "ldam_drw_sla_sd", "mislas")
_LAST = ("mixup_drw", "remix_drw", "ce_drw_sam", "ldam_drw_sam", "equalization")

# rows of one representation stand together: it is trained once
ROWS = (
    *(f"cifar100_lt_{row}" for row in ("erm", *_DECOUPLED, "balanced_softmax", "ldam_drw", "ce_drw")),
    *(f"cifar10_lt_{row}" for row in ("erm", *_DECOUPLED, "ldam_drw", "ce_drw", "balanced_softmax")),
    *(f"{data}_lt_{row}" for row in _LATER for data in ("cifar100", "cifar10")),
    "cifar100_lt_weight_balancing",
    *(f"{data}_lt_{row}" for row in _LAST for data in ("cifar100", "cifar10")),
    *("cifar100_lt_ride", "cifar100_lt_ride_distill"),
    *(f"{data}_lt_{row}" for row in ("sade", "bcl", "cc_sam", "proco") for data in ("cifar100", "cifar10")),
)

SHORT_EPOCHS = 30

# experiments of `--queue --short` and their epochs: methods beside baselines, then baselines of the methods' cost
SHORT_ROWS: tuple[tuple[str, int], ...] = (
    *(
        (f"cifar100_lt_{row}", SHORT_EPOCHS)
        for row in (
            *("erm", "balanced_softmax", "mislas", "remix_drw", "ce_drw", "ce_drw_sam", "equalization", "ride"),
            *("mixup_balanced_softmax", "sade", "ldam_drw", "ldam_drw_sam", "mixup_drw", "weight_balancing"),
            *("bcl", "proco", "cc_sam", "ride_distill"),
        )
    ),
    *((f"cifar100_lt_{row}", epochs) for epochs in (60, 45, 90) for row in ("erm", "balanced_softmax")),
)

RESULT_FILES = (RESULT, "provenance.json")
TRAINING_STATE = "state/last.ckpt"  # of a stage


@dataclass
class QueueFolders:
    """Folders of a queue's outputs.

    Attributes:
        stages: the stage store.
        outputs: the folder of run directories.
        state: a copy of both; None: there is none.
        results: results without weights and images; None: they are not copied.
        keys: the stages of the queue; others in the store are left alone.
        runs: the run directories of the queue, finished or not.
    """

    stages: Path
    outputs: Path
    state: Path | None
    results: Path | None
    keys: frozenset[str]
    runs: tuple[Path, ...]
    clock: Callable[[], float] = time.monotonic
    _saved: float = field(default=float("-inf"), init=False)

    def save(self) -> None:
        """Copy changed files."""
        if self.state is not None:
            pairs = [(self.stages / key, self.state / "stages" / key) for key in sorted(self.keys)]
            pairs += [(run, self.state / "runs" / run.relative_to(self.outputs)) for run in self.runs]
            for original, copy in pairs:
                if original.is_dir():
                    mirror(original, copy, prune=has_progress(original))
        if self.results is not None:
            keep_results(self.runs, self.outputs, self.results)
        self._saved = self.clock()

    def save_if_due(self) -> None:
        """Copy changed files if the last copy is older than five minutes."""
        if self.clock() - self._saved >= COPY_EVERY:
            self.save()


def has_progress(folder: Path) -> bool:
    """Return whether a folder holds a finished stage, a finished run or a training state.

    The folder of a stage or run that has only begun, or was lost in part, may lack files that its copy holds.
    """
    return any((folder / name).is_file() for name in (RECORD, RESULT, TRAINING_STATE))


def restore(state: Path, stages: Path, outputs: Path) -> int:
    """Restore stages and runs that the working folders lack from the copy; return their number.

    A stage without a training state is replaced if its copy has one. Each folder is copied beside its place and
    renamed: a restore that is cut off leaves no folder half-made.
    """
    pairs = [(copy, stages / copy.name) for copy in sorted((state / "stages").glob("*"))]
    pairs += [(copy, outputs / copy.relative_to(state / "runs")) for copy in sorted((state / "runs").glob("*/*/*"))]
    lost = [(copy, original) for copy, original in pairs if copy.is_dir() and _is_lost(original, copy)]
    for copy, original in lost:
        beside = original.with_name(f".{original.name}.restored")
        shutil.rmtree(beside, ignore_errors=True)  # of a restore that was cut off
        mirror(copy, beside)
        shutil.rmtree(original, ignore_errors=True)
        os.replace(beside, original)
    return len(lost)


def _is_lost(original: Path, copy: Path) -> bool:
    if not original.exists():
        return True
    # an unfinished run directory is left alone: the run writes it again from its stages
    is_stage = not (copy / RESULT).is_file()
    return is_stage and has_progress(copy) and not has_progress(original)


def run_queue(
    tasks: Sequence[Task],
    at_once: int,
    folders: QueueFolders,
    left: Callable[[], float],
    say: Callable[[str], None],
) -> dict[str, str]:
    """Run a queue's tasks in one-thread processes at low priority; return the failed ones and the reasons.

    Args:
        left: hours of one process that are left.
    """

    def finished(task: Task) -> None:
        folders.save()
        say(f"after {task.label}: {left():.1f} hours of one process are left")

    folders.save()  # before the first run ends, and what earlier commands have finished
    os.nice(max(0, NICENESS - os.nice(0)))  # the processes inherit it
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        return run_tasks(tasks, at_once, environment, say, finished=finished, meanwhile=folders.save_if_due)
    finally:
        folders.save()  # the states of processes that were told to stop


def mirror(original: Path, copy: Path, prune: bool = True) -> None:
    """Synchronise ``copy`` with the files of ``original``.

    Each file is written beside its place and renamed, and keeps its time. A file that vanishes meanwhile, as a
    temporary one does, is skipped. Files that only the copy has are removed at the end: a copy that was cut off
    holds too much rather than too little.

    Args:
        prune: False keeps the files that only the copy has.
    """
    wanted = set()
    for folder, _, names in os.walk(original):
        inside = Path(folder).relative_to(original)
        (copy / inside).mkdir(parents=True, exist_ok=True)
        for name in names:
            source, target = Path(folder) / name, copy / inside / name
            wanted.add(target)
            try:
                if not target.is_file() or not filecmp.cmp(source, target, shallow=True):
                    beside = target.with_name(f".{name}.copy")
                    shutil.copy2(source, beside)
                    os.replace(beside, target)
            except FileNotFoundError:
                continue
    for folder, _, names in os.walk(copy) if prune else ():
        for target in (Path(folder) / name for name in names):
            if target not in wanted:
                target.unlink(missing_ok=True)


def keep_results(runs: Iterable[Path], outputs: Path, results: Path) -> int:
    """Copy the results of finished runs, without weights and images; return the number of new or changed ones.

    Args:
        runs: run directories below ``outputs``.
        results: they go to the same place below this folder. Of paths in a result only the file's name is kept.
    """
    changed = 0
    for run in runs:
        if not (run / RESULT_FILES[0]).is_file():
            continue
        target = results / run.relative_to(outputs)
        target.mkdir(parents=True, exist_ok=True)
        texts = {name: without_paths((run / name).read_text("utf-8")) for name in RESULT_FILES}
        old = {name: (target / name).read_text("utf-8") for name in RESULT_FILES if (target / name).is_file()}
        if texts != old:
            changed += 1
            for name, text in texts.items():
                beside = target / f".{name}.new"
                beside.write_text(text, "utf-8")
                os.replace(beside, target / name)
    return changed
