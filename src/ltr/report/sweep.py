"""Table of a sweep: mean ± s.d. over the seeds of each setting, and the best setting by the validation metric."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ltr.escaping import name as short_name
from ltr.evaluation.metrics import Metric
from ltr.names import counted
from ltr.report.blocks import table_blocks, wrap_lines
from ltr.report.columns import heading, metric_table, value_text
from ltr.report.limits import footnotes, limits, marks_of
from ltr.report.read_run import headline_row, number, validation_value
from ltr.report.read_runs import groups_by_data, settings
from ltr.report.style import NOTHING

_METRIC = "balanced_accuracy"  # for results that name no metric
# overrides of locations, display and speed do not distinguish settings
IGNORED_OVERRIDES = (
    "seed=",
    "paths.",
    "figures=",
    "callbacks",
    "logger",
    "checkpoint.",
    "resume=",
    "stages=",
    "compile=",
    "hydra",
    "launcher=",
    "trainer.num_workers=",
    "trainer.log_every=",
    "trainer.profiler=",
    "trainer.on_error=",
    "trainer.max_skipped=",
    "trainer.max_nonfinite=",
    "trainer.check_files=",
    "evaluation.batch_size=",
    "dataset.roots=",
    "dataset.download=",
)


@dataclass(frozen=True)
class Job:
    """The outcome of one job of a sweep.

    Attributes:
        number: index in the sweep, from 0.
        overrides: overrides of the job, as written.
        result: the content of its ``result.json``; None if it failed or only printed a plan.
        reused: True if the result existed before the sweep.
        error: error message; None if the job succeeded.
    """

    number: int
    overrides: tuple[str, ...]
    result: Mapping[str, Any] | None = None
    reused: bool = False
    error: str | None = None


def sweep_table(jobs: Sequence[Job], width: int | None = None) -> str:
    """Return the sweep's table as aligned plain text; empty if no job has a result or an error.

    Jobs that differ only in their seed share a line; so do published trials of a data set in a sweep over these. Cells
    give the mean in percent of the headline rows on test, with ± the standard deviation (n - 1) for two or more runs.
    ``*`` marks the line with the highest mean of the selection metric on the validation split; without validation no
    line is marked. Limited lines have a footnote mark (`ltr.report.limits`) and are compared with lines of the same
    limits only. Jobs with the same run hash count once.

    Args:
        width: terminal width in characters; columns that do not fit go into further blocks. None: no limit.
    """
    all_jobs, jobs = jobs, _each_run_once(jobs)
    trials = {_trial(job) for job in jobs if job.result is not None} - {None}
    lines_of: dict[Any, list[Job]] = {}
    for job, name in zip(jobs, _groups(jobs)):
        if job.result is not None:
            lines_of.setdefault(_setting(job, trials, name), []).append(job)
    selects = next((job.result.get("metric", _METRIC) for job in jobs if job.result is not None), _METRIC)
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(lines_of) > 1 else set()
    columns = next((_columns(job) for job in jobs if job.result is not None), [])
    lines = [["", "setting", "n", *map(heading, columns)]]
    validation = {key: _validation(group, selects) for key, group in lines_of.items()}
    scored = {key: value for key, value in validation.items() if value is not None}
    limited = {key: limits((group[0].result or {}).get("config", {})) for key, group in lines_of.items()}
    daggers = marks_of(list(limited.values()))
    are_alike = len(set(limited.values())) == 1
    unlimited = [key for key in scored if are_alike or not limited[key]]
    is_evaluated = len(scored) == len(lines_of) and len(unlimited) > 1
    best = max(unlimited, key=lambda key: scored[key]) if is_evaluated else None
    for key, group in lines_of.items():
        metrics = [_headline(job)["metrics"] for job in group]
        cells = [_cell(metric, [entry.get(metric.name) for entry in metrics]) for metric in columns]
        label = _label(group[0], common, averaged=len(trials) > 1)
        mark = ("*" if key == best else "") + daggers.get(limited[key], "")
        lines.append([mark, label, str(len(group)), *cells])
    blocks_of_text, notes = [], []
    if lines_of:
        numeric = [False, False, *[True] * (len(lines[0]) - 2)]
        blocks = table_blocks(lines, numeric, 2, width)
        blocks_of_text.append("\n\n".join("\n".join(line.text for line in block) for block in blocks))
        notes = [_stages(jobs) + (" and trials" if len(trials) > 1 else "")]
        if best is not None:
            notes.append(f"* highest {selects} on the validation split")
        notes += footnotes(daggers)
        if len(jobs) < len(all_jobs):
            runs = counted(len(jobs), "run")
            notes.append(f"{len(all_jobs)} jobs, {runs}: jobs that are one and the same run count once")
    for job in jobs:
        if job.error is not None:
            reason = " ".join(line.strip() for line in job.error.splitlines()[:2])
            notes.append(f"failed: job {job.number} ({' '.join(job.overrides)}): {reason}")
    return "\n".join([*blocks_of_text, *(line for note in notes for line in wrap_lines(note, width))])


def _each_run_once(jobs: Sequence[Job]) -> list[Job]:
    """Return one job per run; among jobs with the same run, the one that trained it, if any."""
    kept: dict[Any, Job] = {}
    for job in jobs:
        run = None if job.result is None else job.result.get("run_hash")
        key = job.number if run is None else run
        earlier = kept.setdefault(key, job)
        if earlier.reused and not job.reused:
            kept[key] = replace(job, number=earlier.number, overrides=earlier.overrides)
    return list(kept.values())


def _trial(job: Job) -> Any:
    return (job.result or {}).get("config", {}).get("dataset.trial")


def _groups(jobs: Sequence[Job]) -> list[str]:
    results = [job.result or {} for job in jobs]
    return groups_by_data(
        [(result.get("group_hash", ""), result.get("data"), result.get("config", {})) for result in results]
    )


def _setting(job: Job, trials: Collection[Any], group: str) -> Any:
    """Return the key of jobs to average: all settings but the seed, and but the trial if there are several."""
    assert job.result is not None
    if len(trials) < 2:
        return group
    config = settings(job.result["config"]) | {"name": job.result["config"].get("name")}
    return tuple(sorted((key, str(value)) for key, value in config.items() if not key.endswith(".trial")))


def _columns(job: Job) -> list[Metric]:
    """Return the metrics of the columns: those that reports show for the protocol."""
    assert job.result is not None
    headline = _headline(job)
    table = metric_table([job.result.get("declared_metrics", ())])
    return table.columns("report", headline.get("protocol", "closed_set"), headline["metrics"])


def _label(job: Job, common: Collection[str], averaged: bool = False) -> str:
    """Return the job's overrides without shared ones, the seed, paths and display settings."""
    left_out = (*IGNORED_OVERRIDES, *(["dataset.trial="] if averaged else []))
    shown_overrides = [
        text for text in job.overrides if text not in common and not text.lstrip("+~").startswith(left_out)
    ]
    return short_name(" ".join(shown_overrides) or "(defaults)")


def _headline(job: Job) -> Mapping[str, Any]:
    assert job.result is not None
    return headline_row(job.result)


def _validation(jobs: Sequence[Job], metric: str) -> float | None:
    """Return the mean of `validation_value` over seeds; None where a run has none."""
    values = [validation_value(job.result, metric) for job in jobs if job.result is not None]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _cell(metric: Metric, values: Sequence[Any]) -> str:
    numbers = [number(value) for value in values]
    if any(value != value for value in numbers):
        return NOTHING
    return value_text(metric, statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else math.nan)


def _stages(jobs: Sequence[Job]) -> str:
    """Return a sentence with the numbers of trained (or computed) and of cached stages."""
    trained = reused = 0
    for job in jobs:
        for stage in (job.result or {}).get("stages", []):
            if stage["status"] == "trained" and not job.reused:
                trained += 1
            else:
                reused += 1
    return f"stages: {trained} made, {reused} reused; percent, mean ± s.d. over seeds"
