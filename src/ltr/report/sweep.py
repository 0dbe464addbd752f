"""Table of a sweep: a line per setting, mean ± s.d. over its seeds, the best by the validation metric."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ltr.escaping import name as short_name
from ltr.evaluation.metrics import Metric
from ltr.report.blocks import table_blocks
from ltr.report.columns import heading, metric_table, value_text
from ltr.report.limits import footnotes, limits, marks_of
from ltr.report.read_run import number
from ltr.report.read_runs import groups_by_data, settings
from ltr.report.style import NOTHING

_METRIC = "balanced_accuracy"  # of results that do not name theirs
# overrides that do not say which run it is: where things lie, how they are shown, how fast they go
NO_SETTING = (
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
        number: its place in the sweep, from 0.
        overrides: of this job, as they were written.
        result: the content of its ``result.json``; None if it failed or only printed a plan.
        reused: the result was there before the sweep.
        error: what went wrong, or None.
    """

    number: int
    overrides: tuple[str, ...]
    result: Mapping[str, Any] | None = None
    reused: bool = False
    error: str | None = None


def sweep_table(jobs: Sequence[Job], width: int | None = None) -> str:
    """Return the sweep's table as aligned plain text; empty if no job has a result or an error.

    Jobs that differ in nothing but their seed share a line, and in a sweep over the published trials of a data set
    those that differ in their trial too. A cell is the mean in percent, with ± the standard deviation (n - 1) over two
    or more runs; metrics are those of the headline rows on test. ``*`` marks the line with the highest
    mean of the runs' own metric on the validation split; without validation none is marked. A limited line has its mark
    (`ltr.report.limits`) there, and is compared with lines of the same limits only.
    Jobs that are one and the same run (its run hash says so) count once.

    Args:
        width: of the terminal, in characters; columns that do not fit go into further blocks. None: no limit.
    """
    every, jobs = jobs, _each_run_once(jobs)
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
    whole = [key for key in scored if are_alike or not limited[key]]
    is_evaluated = len(scored) == len(lines_of) and len(whole) > 1
    best = max(whole, key=lambda key: scored[key]) if is_evaluated else None
    for key, group in lines_of.items():
        metrics = [_headline(job)["metrics"] for job in group]
        cells = [_cell(metric, [entry.get(metric.name) for entry in metrics]) for metric in columns]
        label = _label(group[0], common, averaged=len(trials) > 1)
        mark = ("*" if key == best else "") + daggers.get(limited[key], "")
        lines.append([mark, label, str(len(group)), *cells])
    text = []
    if lines_of:
        numeric = [False, False, *[True] * (len(lines[0]) - 2)]
        blocks = table_blocks(lines, numeric, 2, width)
        text.append("\n\n".join("\n".join(line.text for line in block) for block in blocks))
        text.append(_stages(jobs) + (" and trials" if len(trials) > 1 else ""))
        if best is not None:
            text.append(f"* highest {selects} on the validation split")
        text += footnotes(daggers)
        if len(jobs) < len(every):
            runs = "1 run" if len(jobs) == 1 else f"{len(jobs)} runs"
            text.append(f"{len(every)} jobs, {runs}: jobs that are one and the same run count once")
    for job in jobs:
        if job.error is not None:
            reason = " ".join(line.strip() for line in job.error.splitlines()[:2])
            text.append(f"failed: job {job.number} ({' '.join(job.overrides)}): {reason}")
    return "\n".join(text)


def _each_run_once(jobs: Sequence[Job]) -> list[Job]:
    """Return one job per run; of several jobs with one run, the one that trained it, if any."""
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
    return groups_by_data([(one.get("group_hash", ""), one.get("data"), one.get("config", {})) for one in results])


def _setting(job: Job, trials: Collection[Any], group: str) -> Any:
    """Return the key of jobs that are averaged: all settings but the seed, and but the trial if there are several."""
    assert job.result is not None
    if len(trials) < 2:
        return group
    config = settings(job.result["config"]) | {"name": job.result["config"].get("name")}
    return tuple(sorted((key, str(value)) for key, value in config.items() if not key.endswith(".trial")))


def _columns(job: Job) -> list[Metric]:
    """Return the metrics of a sweep's columns: those that a report shows of its protocol."""
    assert job.result is not None
    headline = _headline(job)
    table = metric_table([job.result.get("declared_metrics", ())])
    return table.columns("report", headline.get("protocol", "closed_set"), headline["metrics"])


def _label(job: Job, common: Collection[str], averaged: bool = False) -> str:
    """Return the job's overrides without shared ones, the seed, paths and display settings."""
    left_out = (*NO_SETTING, *(["dataset.trial="] if averaged else []))
    own = [text for text in job.overrides if text not in common and not text.lstrip("+~").startswith(left_out)]
    return short_name(" ".join(own) or "(defaults)")


def _headline(job: Job) -> Mapping[str, Any]:
    assert job.result is not None
    return next(row for row in job.result["rows"] if row["headline"])


def _validation(jobs: Sequence[Job], metric: str) -> float | None:
    """Return the mean over seeds of a validation metric, of the variant that is the headline on test."""
    values = []
    for job in jobs:
        assert job.result is not None
        variant = _headline(job)["variant"]
        rows = [row for row in job.result["rows"] if row["split"] == "val" and row["variant"] == variant]
        if not rows:
            return None
        values.append(number(rows[0]["metrics"].get(metric)))
    return statistics.fmean(values)


def _cell(metric: Metric, values: Sequence[Any]) -> str:
    numbers = [number(value) for value in values]
    if any(value != value for value in numbers):
        return NOTHING
    return value_text(metric, statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else math.nan)


def _stages(jobs: Sequence[Job]) -> str:
    """Return a sentence with the numbers of stages trained or computed, and of stages from the cache."""
    made = reused = 0
    for job in jobs:
        for stage in (job.result or {}).get("stages", []):
            if stage["status"] == "trained" and not job.reused:
                made += 1
            else:
                reused += 1
    return f"stages: {made} made, {reused} reused; percent, mean ± s.d. over seeds"
