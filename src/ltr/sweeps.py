"""Sweeps: each job writes its result to a separate file, and a table collects them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import OmegaConf, read_write

from ltr.configuration.sweep_checks import without_validation
from ltr.console import print_line
from ltr.errors import ConfigError, DataError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ltr.runs.result import Outcome

# a launcher's processes inherit it, on other machines too
_FOLDER = "LTR_SWEEP_FOLDER"
_ONE_PROCESS_A_JOB = ("BasicLauncher", "JoblibLauncher", "ParallelLauncher")
_GRID = "BasicSweeper"


class SweepFolder(Callback):
    """Hydra callback that sets the folder for the results of a sweep's jobs; the config ``train`` names it."""

    started: ClassVar[list[Path]] = []  # of the command that is running, see `sweep_folder`

    def on_multirun_start(self, config: DictConfig, **more: Any) -> None:
        wanted = Path(config.hydra.sweep.dir).absolute()
        try:
            folder, made = _claimed(wanted)
        except OSError:  # Hydra would only warn of it; its sweeper makes the folder, and its error is explained
            folder, made = wanted, []
        if folder != wanted:
            print_line(f"{wanted} is the folder of another sweep: the table of this one is in {folder.name}")
        with read_write(config.hydra):
            config.hydra.sweep.dir = str(folder)  # Hydra and its launchers write there, too
        os.environ[_FOLDER] = str(folder)
        self.started.append(folder)
        at_sweep_end(functools.partial(_remove_empty, made))


def _claimed(wanted: Path) -> tuple[Path, list[Path]]:
    """Return a folder that no other sweep uses, and the directories made for it, the innermost first.

    Two sweeps in one folder would share a table, for example if both start in the same second. The second one gets
    ``<wanted>-2``.
    """
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        jobs = folder / "jobs"
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            jobs.mkdir()
            return folder, [jobs, *missing]
    raise AssertionError("unreachable: the numbers do not end")


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove directories from the first to the last, up to one that holds something."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


_at_end: list[Callable[[], None]] = []


def at_sweep_end(function: Callable[[], None]) -> None:
    """Call a function when the running sweep has ended, also by an error or a signal."""
    _at_end.append(function)


@contextlib.contextmanager
def sweep_folder() -> Iterator[list[Path]]:
    """Collect the folder of a command's sweep: the list is empty until a sweep has begun."""
    before = os.environ.pop(_FOLDER, None)
    folders: list[Path] = []
    SweepFolder.started = folders
    try:
        yield folders
    finally:
        while _at_end:
            _at_end.pop()()
        if before is not None:
            os.environ[_FOLDER] = before
        else:
            os.environ.pop(_FOLDER, None)


def current_folder() -> Path | None:
    """Return the folder of the running sweep, where jobs note themselves; None outside of a sweep."""
    folder = os.environ.get(_FOLDER)
    return Path(folder) if folder else None


def in_sweep() -> bool:
    """Return whether this is a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def job_overrides() -> list[str]:
    """Return the running job's overrides as written; empty where Hydra does not run."""
    from ltr.configuration.swept_configs import as_written

    if not HydraConfig.initialized():
        return []
    texts = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [as_written(str(text)) for text in texts] if isinstance(texts, list) else []


def job_titles(overrides: Sequence[Sequence[str]], first: int, command: Sequence[str] = ()) -> list[str]:
    """Return the titles of jobs: the number, and the overrides that not all of them have.

    Args:
        command: overrides of the command, which a single job does not repeat.
    """
    from ltr.configuration.swept_configs import as_written

    texts = [[as_written(text) for text in one if not text.startswith("hydra.")] for one in overrides]
    common = set.intersection(*map(set, texts)) if len(texts) > 1 else set(map(as_written, command))
    titles = []
    for number, one in enumerate(texts, first):
        swept = " ".join(text for text in one if text not in common)
        titles.append(f"job {number} ({swept})" if swept else f"job {number}")
    return titles


def is_search() -> bool:
    """Return whether the sweeper reads what a job returns."""
    return chooses_by(HydraConfig.get().sweeper)


def chooses_by(sweeper: Mapping[str, Any]) -> bool:
    """Return whether a sweeper, the node ``hydra.sweeper``, reads what its jobs return."""
    return _short_name(sweeper) != _GRID


def _short_name(node: Mapping[str, Any]) -> str:
    return str(node.get("_target_")).rsplit(".", 1)[-1]


def record_job(number: int, overrides: list[str], outcome: Outcome | None, error: str | None) -> None:
    """Write a job's file: the folder of its result, or its error."""
    folder = current_folder()
    if folder is None:
        return
    from ltr.files import write_json

    finished = outcome is not None and outcome.result is not None
    directory = str(outcome.directory.absolute()) if outcome is not None and finished else None
    record = {"number": number, "overrides": overrides, "directory": directory, "error": error}
    if outcome is not None:
        record["reused"] = outcome.reused
        record["stages"] = [] if outcome.result is None else outcome.result["stages"]
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    write_json(folder / "jobs" / f"{number:05d}.json", record)


def failed_jobs() -> bool:
    """Return whether a job of the running sweep has failed."""
    folder = current_folder()
    return folder is not None and any(record["error"] is not None for record in _records(folder))


def has_jobs() -> bool:
    """Return whether a job of the running sweep has ended."""
    folder = current_folder()
    return folder is not None and bool(_records(folder))


def _records(folder: Path) -> list[dict[str, Any]]:
    return [_record(path) for path in sorted((folder / "jobs").glob("*.json"))]


def _record(path: Path) -> dict[str, Any]:
    """Return a job's note; one that cannot be read is a job that failed."""
    from ltr.results import read_json

    try:
        record = read_json(path)
        good = isinstance(record, dict) and all(isinstance(text, str) for text in record["overrides"])
        good = good and isinstance(record["number"], int) and isinstance(record["error"], (str, type(None)))
        good = good and isinstance(record["directory"], (str, type(None)))
        wrong = "" if good and isinstance(record.get("stages", []), list) else f"{path} is damaged"
    except (DataError, KeyError, TypeError) as error:
        wrong = str(error) if isinstance(error, DataError) else f"{path} is damaged"
    if wrong:
        number = int(path.stem) if path.stem.isascii() and path.stem.isdigit() else 0
        return {"number": number, "overrides": [], "directory": None, "error": wrong}
    return record


def conclude(folder: Path) -> tuple[str, int]:
    """Return the table of a sweep and its exit code: 1 where a job failed.

    The table is also written to ``<folder>/table.txt``.
    """
    from ltr.files import write_text
    from ltr.report.blocks import terminal_width
    from ltr.report.read_run import read_run
    from ltr.report.sweep import Job, sweep_table

    jobs = []
    for record in _records(folder):
        result, wrong = None, record["error"]
        if record["directory"]:
            try:
                # the job's own record of its stages: those of a run that was finished before describe that earlier run
                result = {**read_run(record["directory"]).result, "stages": record["stages"]}
            except DataError as error:  # the other jobs' results are shown
                wrong = str(error)
        jobs.append(Job(record["number"], tuple(record["overrides"]), result, record.get("reused", False), wrong))
    table = sweep_table(jobs)
    if table:
        write_text(folder / "table.txt", table + "\n")
    return sweep_table(jobs, terminal_width()), int(any(job.error is not None for job in jobs))


def check_sweep(config: Mapping[str, Any]) -> None:
    """Refuse what cannot work as a job of a sweep, before anything is imported for it.

    Raises:
        ConfigError: several processes inside a launcher that starts none, or a sweeper that is to choose without
            validation images or by the smallest value.
    """
    hydra = HydraConfig.get()
    check_processes(config, _short_name(hydra.launcher))
    if not is_search():
        return
    for reason in without_validation(config, hydra.runtime.choices):
        raise ConfigError(reason)
    direction = hydra.sweeper.get("direction")
    if direction is not None and not re.search("maximize", str(direction)):
        raise ConfigError(
            f"hydra.sweeper.direction={getattr(direction, 'name', direction)}: the metric is better when larger. Use "
            "+sweep=optuna, or hydra.sweeper.direction=maximize"
        )


def check_processes(config: Mapping[str, Any], launcher: str) -> None:
    """Refuse several processes for a job of a launcher that gives each job one process (`check_sweep`)."""
    devices, strategy = config["trainer"]["devices"], config["strategy"]["name"]
    if launcher in _ONE_PROCESS_A_JOB and (devices != 1 or strategy != "auto"):
        raise ConfigError(
            f"trainer.devices={devices} strategy.name={strategy}: several processes cannot be started inside a sweep "
            "of this launcher. Use hydra/launcher=submitit_slurm, which starts them for each job; or one device per "
            "job, several jobs at a time with +launcher=local; or torchrun for each run by itself"
        )


def own_gpu() -> None:
    """Give a process of a joblib sweep one GPU, in turn; called before the first use of a GPU."""
    import multiprocessing

    name = multiprocessing.current_process().name
    worker = re.fullmatch(r"LokyProcess-(\d+)", name)
    if worker is None:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        gpus = [str(number) for number in range(torch.cuda.device_count())]
    else:
        gpus = [gpu for gpu in visible.split(",") if gpu]
    if len(gpus) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[(int(worker[1]) - 1) % len(gpus)]
