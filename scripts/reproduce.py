"""Run a table of results: its rows are experiments, and rows that share a stage train it once.

    python scripts/reproduce.py cifar_lt --seeds 3 --write docs/results.md

Rows are the experiments that conf/published.csv lists for the table; patterns over table names and single experiments
are accepted, too. All rows get the same split. The script prints what is left to train and how long that takes, then
runs what is not finished, all rows of one seed before the next seed. The same command resumes where it was stopped. It
names failed rows at the end, and its exit code is then 1.

    python scripts/reproduce.py --queue --seeds 3 --state FOLDER --results results

--queue takes the rows of `training_queue.ROWS` (or the given ones) in their order, each with its own schedule and
validation rule, and trains them beside other work, in processes of one thread at a low priority. What is finished
is written at once to --results; --state keeps a copy of everything that a lost working folder would cost.

    python scripts/reproduce.py --queue --short --val none --results results

--short takes `training_queue.SHORT_ROWS`, methods at 30 epochs and baselines of equal cost; other rows get 30 epochs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.console import Console

import training_queue
from ltr.cli import report, run_as_process, run_guarded
from ltr.configuration.check import check_config
from ltr.configuration.configs import canonical_json
from ltr.configuration.overrides import compose_config, refused_overrides
from ltr.configuration.tables import TableRow, chosen_rows, narrowed
from ltr.console import plain_warnings, print_line
from ltr.data.packed_images.reading import read_source
from ltr.data.source import Source
from ltr.errors import ConfigError, DataError, Interrupted, LtrError
from ltr.escaping import printer, rich_text
from ltr.names import counted
from ltr.report.figures import draw
from ltr.report.published import markdown, write_between_markers
from ltr.report.published_lines import Entry
from ltr.report.read_run import Run, read_run
from ltr.runs.finished import find_result
from ltr.runs.plan import NeedsValidation
from ltr.runs.processes.interrupt import StopRequest, stop_request
from ltr.runs.result import RESULT, run_directory
from ltr.runs.runner import run
from process_pool import Task, run_tasks, train_command
from training_cost import PlannedRun, cost_lines, hours_left, rates

NO_MATTER = ("paths.", "figures=", "callbacks", "logger", "trainer.num_workers")  # to what comes out
VALIDATION = ("none", "train_fraction", "official", "test_fraction")


@dataclass(eq=False)
class Job:
    """One row with one seed."""

    row: TableRow
    overrides: list[str]
    config: dict[str, Any]
    trial: int | None = None  # of an open-set data set, where --trials is given
    planned: PlannedRun | None = None  # None where there is nothing to do, or nothing that can be done
    is_longer: bool = False  # than the rows that it is a baseline of
    is_lost: bool = False  # its result cannot be held against its data, which cannot be read

    @property
    def label(self) -> str:
        trial = f", trial {self.trial}" if self.trial is not None else ""
        trial += f", {self.config['trainer']['max_epochs']} epochs" if self.is_longer else ""
        return f"{self.row.config}{trial}, seed {self.config['seed']}"

    @property
    def directory(self) -> Path:
        return run_directory(self.config)

    @property
    def is_finished(self) -> bool:
        return not self.is_lost and (self.directory / RESULT).is_file()


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="tables, patterns, experiments; key=value for all rows")
    parser.add_argument("--epochs", type=int, help="trainer.max_epochs of all rows (default: the experiments')")
    parser.add_argument("--seeds", type=int, default=1, metavar="K", help="seeds 0 to K-1 (default 1)")
    trials = "published trials 0 to K-1 of open-set data sets, averaged as seeds are; the experiments' own if not given"
    parser.add_argument("--trials", type=int, metavar="K", help=trials)
    kinds = "dataset.val of all rows; with none, rows that choose on validation images are left out"
    parser.add_argument(
        "--val", choices=VALIDATION, help=f"{kinds} (default test_fraction; with --queue each row's own)"
    )
    parser.add_argument("--only", metavar="PATTERN", help="run only rows whose experiment matches, e.g. '*_crt'")
    parser.add_argument(
        "--parallel", type=int, default=1, metavar="K", help="number of parallel runs, each in a process (default: 1)"
    )
    parser.add_argument("--outputs", metavar="DIR", help="folder of runs and stages (default: paths.outputs)")
    parser.add_argument("--data", metavar="DIR", help="folder of the data sets (default: paths.data)")
    parser.add_argument("--config-dir", metavar="DIR", help="folder with your own configs, as for ltr-train")
    parser.add_argument("--plan", action="store_true", help="print the estimated cost and exit")
    parser.add_argument("--queue", action="store_true", help="run rows in order, as a queue; see above")
    parser.add_argument("--short", action="store_true", help="with --queue: its rows of short schedules; see above")
    parser.add_argument("--state", type=Path, metavar="DIR", help="copy of the stages and runs of --queue")
    parser.add_argument("--results", type=Path, metavar="DIR", help="results of --queue, without weights and images")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table between its markers in this file")
    arguments = parser.parse_intermixed_args(argv)
    for name in ("epochs", "seeds", "trials", "parallel"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name}: at least 1 is needed")
    arguments.overrides = [text for text in arguments.what if "=" in text]
    arguments.tables = [text for text in arguments.what if "=" not in text]
    if arguments.queue:
        rows = [row for row, _ in training_queue.SHORT_ROWS] if arguments.short else training_queue.ROWS
        arguments.lengths = _lengths(arguments)
        arguments.tables = arguments.tables or list(dict.fromkeys(rows))
        arguments.epochs = arguments.epochs or (training_queue.SHORT_EPOCHS if arguments.short else None)
    else:
        arguments.lengths = {}
        arguments.val = arguments.val or "test_fraction"
        if arguments.short:
            parser.error("--short belongs to --queue")
        for name in ("state", "results"):
            if getattr(arguments, name) is not None:
                parser.error(f"--{name} belongs to --queue")
    if not arguments.tables:
        parser.error("a table is needed")
    return arguments


def _lengths(arguments: argparse.Namespace) -> dict[str, list[int]]:
    """Return the epochs of the rows of `--short`, where neither rows nor epochs are given."""
    if not arguments.short or arguments.tables or arguments.epochs:
        return {}
    lengths: dict[str, list[int]] = {}
    for row, epochs in training_queue.SHORT_ROWS:
        lengths.setdefault(row, []).append(epochs)
    return lengths


def main(argv: Sequence[str]) -> int:
    arguments = parse_arguments(argv)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    with plain_warnings(), stop_request() as request:
        return reproduce(arguments, console, request)


def reproduce(arguments: argparse.Namespace, console: Console, request: StopRequest) -> int:
    """Plan, run and tabulate the rows; return the exit code."""
    rows = rows_of(arguments)
    wanted = narrowed(rows, arguments.only) if arguments.only else rows
    failed: dict[str, str] = {}
    jobs = jobs_of(rows, arguments, failed)
    selected = [job for job in jobs if job.row in wanted]
    if arguments.state is not None and selected:
        restored = training_queue.restore(arguments.state, *folders_of(selected))
        if restored:
            folders = counted(restored, "stage or run", "stages and runs")
            console.print(rich_text(f"restored {folders} from {arguments.state}"))
    sources: dict[str, Source] = {}
    look_at_finished(jobs, sources, failed, console)
    finished = sum(job.is_finished for job in selected)
    left_out = plan(selected, sources, failed)
    to_do = [job for job in selected if job.planned is not None]
    named = "queue" if arguments.queue else " ".join(arguments.tables)
    console.print(rich_text(f"{named}: {len(selected)} runs, {finished} finished before, {len(to_do)} to do"))
    planned = [job.planned for job in to_do if job.planned]
    speed = rates(planned, request)
    for line in cost_lines(planned, request, speed) if to_do else []:
        console.print(rich_text(line))
    for config, why in left_out.items():
        console.print(rich_text(f"left out: {config} (--val test_fraction takes it in): {why}"))
    if not arguments.plan:
        if arguments.queue and selected:
            failed |= run_queue(selected, arguments, console, speed)
        else:
            failed |= (run_beside if arguments.parallel > 1 else run_here)(to_do, arguments, console)
        console.print("")
        console.print(rich_text(table(arguments, rows, jobs, list(left_out))))
    for why in dict.fromkeys(failed.values()):
        print_line(f"failed: {'; '.join(label for label in failed if failed[label] == why)}: {why}", sys.stderr)
    return 1 if failed else 0


def rows_of(arguments: argparse.Namespace) -> list[TableRow]:
    """Return the rows of a table in its order, those of a queue in the order in which they are named."""
    if not arguments.queue:
        return chosen_rows(arguments.tables, arguments.config_dir)
    rows = {row.config: row for name in arguments.tables for row in chosen_rows([name], arguments.config_dir)}
    return list(rows.values())


def common(arguments: argparse.Namespace, epochs: int | None) -> list[str]:
    """Return the overrides of all rows of a length; those of the command line come last and win."""
    keys = [text.partition("=")[0].lstrip("+~") for text in arguments.overrides]
    if taken := [key for key in keys if key in ("seed", "experiment", "stages", "resume")]:
        raise ConfigError(f"{taken[0]}=...: the table decides; use --seeds, --only or --plan")
    options = {
        "trainer.max_epochs": epochs,
        "dataset.val": arguments.val,
        "paths.outputs": arguments.outputs,
        "paths.data": arguments.data,
    }
    return [*(f"{key}={value}" for key, value in options.items() if value is not None), *arguments.overrides]


def in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def jobs_of(rows: Sequence[TableRow], arguments: argparse.Namespace, failed: dict[str, str]) -> list[Job]:
    """Return the jobs of every row with every length, seed and trial, seed by seed and the shortest first.

    A row that cannot be composed has failed; where none can, it raises.
    """
    jobs: list[Job] = []
    error: ConfigError | None = None
    pairs = [(row, epochs) for row in rows for epochs in arguments.lengths.get(row.config, [arguments.epochs])]
    for row, epochs in pairs:
        try:
            overrides = [f"experiment={row.config}", *common(arguments, epochs)]
            node = compose_config(overrides, arguments.config_dir)
            if arguments.trials and "trial" not in node.dataset:
                raise ConfigError(f"--trials={arguments.trials}: dataset={node.dataset.name} has no published trials")
            for seed, trial in itertools.product(range(arguments.seeds), range(arguments.trials or 1)):
                OmegaConf.update(node, "seed", seed)
                job_overrides = [f"seed={seed}"]
                if arguments.trials:
                    OmegaConf.update(node, "dataset.trial", trial)
                    job_overrides.append(f"dataset.trial={trial}")
                config = check_config(
                    node, refused_overrides([*overrides, *job_overrides]), [*overrides, *job_overrides]
                )
                trial_of_job = trial if arguments.trials else None
                is_longer = epochs != arguments.epochs
                jobs.append(Job(row, [*overrides, *job_overrides], config, trial_of_job, is_longer=is_longer))
        except ConfigError as mistake:
            error = mistake
            failed[row.config] = in_a_line(mistake)
    if error is not None and not jobs:
        raise error
    # a row's further lengths after the first ones of all rows
    return sorted(jobs, key=lambda job: (job.config["seed"], job.is_longer))


def source_of(job: Job, sources: dict[str, Source]) -> Source:
    """Return the job's data set, which is read once for all rows."""
    config = job.config["dataset"]
    key = canonical_json([config["source"], config.get("packed")])
    if key not in sources:
        sources[key] = read_source(config)
    return sources[key]


def _read(job: Job, sources: dict[str, Source], config: Mapping[str, Any]) -> Source:
    return source_of(job, sources)


def look_at_finished(jobs: Sequence[Job], sources: dict[str, Source], failed: dict[str, str], console: Console) -> None:
    """Find the result of every job; a result on data that have changed since is left out.

    A job whose data cannot be read any more has failed; its result stays where it is.
    """
    for job in jobs:
        try:
            job.config = find_result(job.config, printer(console), read=partial(_read, job, sources)).config
        except LtrError as error:
            failed[job.label] = in_a_line(error)
            job.is_lost = True


def plan(jobs: Sequence[Job], sources: dict[str, Source], failed: dict[str, str]) -> dict[str, str]:
    """Plan the jobs that are not finished; return the rows that need validation images and have none, and why."""
    left_out: dict[str, str] = {}
    for job in jobs:
        if job.is_finished or job.is_lost:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the run itself says them
                job.planned = PlannedRun.of(job.config, source_of(job, sources))
        except NeedsValidation as error:
            left_out[job.row.config] = in_a_line(error)
        except Interrupted:
            raise
        except Exception as error:
            failed[job.label] = in_a_line(error)
    return left_out


def run_here(jobs: Sequence[Job], arguments: argparse.Namespace, console: Console) -> dict[str, str]:
    """Run the jobs one after the other in this process; return those that failed, and why."""
    failed = {}
    for number, job in enumerate(jobs, start=1):
        assert job.planned is not None
        console.print(rich_text(f"\n[{number}/{len(jobs)}] {job.label}"))
        try:
            outcome = run(job.config, job.overrides, console, job.planned.plan.source)
            if job.config["figures"] != "none" and not outcome.reused:
                draw(outcome.directory, job.config["figures"])
        except Interrupted:
            raise
        except Exception as error:
            report(error, f"{job.label}: ")
            failed[job.label] = in_a_line(error)
    return failed


def run_beside(jobs: Sequence[Job], arguments: argparse.Namespace, console: Console) -> dict[str, str]:
    """Run several jobs at once, each in its own process; return those that failed, and why."""
    environment = dict(os.environ)
    if any(job.planned is not None and job.planned.plan.device.type == "cpu" for job in jobs):
        environment["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // arguments.parallel))
    return run_tasks(tasks_of(jobs, arguments), arguments.parallel, environment, printer(console))


def tasks_of(jobs: Sequence[Job], arguments: argparse.Namespace) -> list[Task]:
    tasks = []
    for job in jobs:
        assert job.planned is not None
        log = Path(job.config["paths"]["outputs"]) / "reproduce" / f"{job.row.config}-{job.directory.name}.log"
        stages = frozenset(stage.key for stage in job.planned.open)
        tasks.append(Task(job.label, train_command(job.overrides, arguments.config_dir), log, stages))
    return tasks


def run_queue(
    jobs: Sequence[Job], arguments: argparse.Namespace, console: Console, speed: Mapping[str, float]
) -> dict[str, str]:
    """Run the jobs in one-thread processes at a low priority; return those that failed, and why.

    Args:
        jobs: all of the queue: the results of finished ones are kept as well.
        speed: images per second of every kind of stage.
    """
    to_do = [job for job in jobs if job.planned is not None]
    planned = [job.planned for job in to_do if job.planned is not None]
    folders = training_queue.QueueFolders(
        *folders_of(jobs),
        state=arguments.state,
        results=arguments.results,
        keys=frozenset(key for run in planned for key, _ in run.plan.keys.values()),
        runs=tuple(job.directory for job in jobs),
    )
    return training_queue.run_queue(
        tasks_of(to_do, arguments), arguments.parallel, folders, lambda: hours_left(planned, speed), printer(console)
    )


def folders_of(jobs: Sequence[Job]) -> tuple[Path, Path]:
    """Return the folders of stages and of runs, which all jobs share."""
    paths = jobs[0].config["paths"]
    return Path(paths["stages"]), Path(paths["outputs"])


def _readable(folders: Iterable[Path]) -> Iterator[Run]:
    """Yield the runs in these folders; print a warning for each that is damaged, and leave it out."""
    for folder in folders:
        try:
            run = read_run(folder)
            _ = run.provenance
        except DataError as error:
            print_line(f"warning: {error}", sys.stderr)
            continue
        yield run


def table(arguments: argparse.Namespace, rows: Sequence[TableRow], jobs: Sequence[Job], left_out: Sequence[str]) -> str:
    """Return the Markdown of all finished runs, also of earlier commands, and write it to ``--write``."""
    entries, missing = [], []
    for row in rows:
        jobs_of_row = [job for job in jobs if job.row is row and not job.is_longer]
        runs = tuple(_readable(job.directory for job in jobs_of_row if job.is_finished))
        if runs:
            entries.append(Entry(row.config, runs, row.published, row.citation, row.metric))
        lacking = list(dict.fromkeys(str(job.config["seed"]) for job in jobs_of_row if not job.is_finished))
        if (lacking or not jobs_of_row) and row.config not in left_out:
            missing.append(row.config + (f" (seed {', '.join(lacking)})" if runs else ""))
    block = markdown(entries, command(arguments), missing, left_out)
    if arguments.write and entries:
        write_between_markers(arguments.write, ",".join(arguments.tables), block)
    return block


def command(arguments: argparse.Namespace) -> str:
    """Return the command that makes the whole table, without paths."""
    words = ["python", "scripts/reproduce.py", *(["--queue"] if arguments.queue else [])]
    if arguments.lengths:  # the rows and epochs of --short
        words.append("--short")
    else:
        words += [*arguments.tables, *(["--epochs", str(arguments.epochs)] if arguments.epochs else [])]
    words += ["--seeds", str(arguments.seeds), *(["--trials", str(arguments.trials)] if arguments.trials else [])]
    words += ["--val", arguments.val] if arguments.val not in (None, "test_fraction") else []
    return shlex.join([*words, *(text for text in arguments.overrides if not text.startswith(NO_MATTER))])


if __name__ == "__main__":
    sys.exit(run_as_process(lambda: run_guarded(lambda: main(sys.argv[1:]))))
