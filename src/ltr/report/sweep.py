"""Table of a sweep: mean ± s.d. over the seeds of each setting, and the best setting by the validation metric."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ltr.escaping import name as short_name
from ltr.evaluation.metrics import Metric
from ltr.names import counted
from ltr.report.blocks import table_blocks, wrap_lines
from ltr.report.columns import heading, mean_text, metric_table
from ltr.report.ignored_settings import is_ignored_override
from ltr.report.limits import footnotes, limits_of, marks_of
from ltr.report.read_run import headline_row, number, validation_value
from ltr.report.read_runs import groups_by_data, settings_without_trial
from ltr.report.style import SELECTED_ON_TEST

_METRIC = "balanced_accuracy"  # for results that name no metric


@dataclass(frozen=True)
class Job:
    """Outcome of a job of a sweep.

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

    Jobs that differ only in their seed, or in the published trial of a data set, share a line. Cells give the mean of
    the headline rows in percent, with ± the standard deviation (n - 1) of two or more runs. ``*`` marks the line with
    the highest mean of the selection metric on the validation split; without validation images no line is marked.
    Limited lines have a footnote (`ltr.report.limits`) and are compared only if all lines have the same limits. Jobs
    with the same run hash count once.

    Args:
        width: terminal width in characters; columns that do not fit go into further blocks. None: no limit.
    """
    all_jobs, jobs = jobs, _each_run_once(jobs)
    finished = [job for job in jobs if job.result is not None]
    blocks, notes = _finished_jobs(finished, jobs, width) if finished else ([], [])
    if finished and len(jobs) < len(all_jobs):
        notes.append(f"{len(all_jobs)} jobs, {counted(len(jobs), 'run')}: jobs of the same run count once")
    for job in jobs:
        if job.error is not None:
            reason = " ".join(line.strip() for line in job.error.splitlines()[:2])
            notes.append(f"failed: job {job.number} ({' '.join(job.overrides)}): {reason}")
    return "\n".join([*blocks, *(line for note in notes for line in wrap_lines(note, width))])


def _finished_jobs(finished: Sequence[Job], jobs: Sequence[Job], width: int | None) -> tuple[list[str], list[str]]:
    """Return the table of the finished jobs, if there are any, and its notes."""
    has_trials = len({_config(job).get("dataset.trial") for job in finished} - {None}) > 1
    groups = groups_by_data([_result(job) for job in finished])
    jobs_of_lines: dict[Any, list[Job]] = {}
    for job, group in zip(finished, groups):
        key = settings_without_trial(_config(job)) if has_trials else group
        jobs_of_lines.setdefault(key, []).append(job)
    metric = _result(finished[0]).get("metric", _METRIC)
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs_of_lines) > 1 else set()
    columns = _columns(finished[0])
    reasons = {
        key: limits_of((_config(job), _result(job).get("data", {})) for job in members)
        for key, members in jobs_of_lines.items()
    }
    daggers = marks_of(list(reasons.values()))
    best = _best_line(jobs_of_lines, reasons, metric)
    lines = [["", "setting", "n", *map(heading, columns)]]
    for key, members in jobs_of_lines.items():
        rows = [headline_row(_result(job))["metrics"] for job in members]
        cells = [mean_text(column, [number(row.get(column.name)) for row in rows]) for column in columns]
        mark = ("*" if key == best else "") + daggers.get(reasons[key], "")
        lines.append([mark, _label(members[0], common, has_trials), str(len(members)), *cells])
    blocks = table_blocks(lines, [False, False, *[True] * (len(lines[0]) - 2)], 2, width)
    notes = [_stages(jobs) + (" and trials" if has_trials else "")]
    notes += [] if best is None else [f"* highest {metric} on the validation split"]
    on_test = [_label(members[0], common, has_trials) for members in jobs_of_lines.values()
               if any(map(_is_selected_on_test, members))]  # fmt: skip
    notes += [f"{SELECTED_ON_TEST}, never the best: {', '.join(on_test)}"] if on_test else []
    has_validation = any(validation_value(_result(job), metric) is not None for job in finished)
    if has_validation and not _are_alike(jobs_of_lines.values()):
        notes.append("no row is the best: the validation images or the metrics of the rows differ")
    return ["\n\n".join("\n".join(line.text for line in block) for block in blocks)], [
        *notes,
        *footnotes(daggers, are_ranked=best is not None and bool(reasons[best])),
    ]


def _best_line(jobs_of_lines: Mapping[Any, Sequence[Job]], reasons: Mapping[Any, str], metric: str) -> Any:
    """Return the key of the line with the highest validation metric; None unless several lines are comparable.

    Lines are comparable if their validation images and their metric are the same. Weights that were selected on the
    test set are never the best.
    """
    jobs_of_lines = {key: jobs for key, jobs in jobs_of_lines.items() if not any(map(_is_selected_on_test, jobs))}
    if not _are_alike(jobs_of_lines.values()):
        return None
    values = {key: _validation(jobs, metric) for key, jobs in jobs_of_lines.items()}
    are_alike = len(set(reasons.values())) == 1
    comparable = {key: value for key, value in values.items() if value is not None and (are_alike or not reasons[key])}
    if None in values.values() or len(comparable) < 2:
        return None
    return max(comparable, key=lambda key: comparable[key])


def _are_alike(lines: Iterable[Sequence[Job]]) -> bool:
    """Return whether the jobs of all lines have the same validation images and metric, over trials the same ones."""
    return len({frozenset(map(_measured, jobs)) for jobs in lines}) < 2


def _measured(job: Job) -> tuple[str, ...]:
    """Return what tells the validation images and the metric of a job apart."""
    result = _result(job)
    data = result.get("data", {})
    return tuple(str(value) for value in (result.get("metric"), data.get("split_digest"), data.get("fingerprint")))


def _is_selected_on_test(job: Job) -> bool:
    return bool(headline_row(_result(job)).get("selection") == "best_test")


def _each_run_once(jobs: Sequence[Job]) -> list[Job]:
    """Return one job per run: among jobs of the same run, the one that trained it."""
    kept: dict[Any, Job] = {}
    for job in jobs:
        run = None if job.result is None else job.result.get("run_hash")
        key = job.number if run is None else run
        earlier = kept.setdefault(key, job)
        if earlier.reused and not job.reused:
            kept[key] = replace(job, number=earlier.number, overrides=earlier.overrides)
    return list(kept.values())


def _result(job: Job) -> Mapping[str, Any]:
    return job.result or {}


def _config(job: Job) -> dict[str, Any]:
    return _result(job).get("config", {})


def _columns(job: Job) -> list[Metric]:
    """Return the metrics of the columns: those that reports show for the protocol."""
    headline = headline_row(_result(job))
    table = metric_table([_result(job).get("declared_metrics", ())])
    return table.columns("report", headline.get("protocol", "closed_set"), headline["metrics"])


def _label(job: Job, common: Collection[str], has_trials: bool) -> str:
    """Return the overrides of a job, without those of all jobs and those that do not distinguish settings."""
    overrides = [text for text in job.overrides if text not in common and not is_ignored_override(text)]
    if has_trials:
        overrides = [text for text in overrides if not text.lstrip("+~").startswith("dataset.trial=")]
    return short_name(" ".join(map(_as_typed, overrides)) or "(defaults)")


def _as_typed(override: str) -> str:
    """Return a nested choice in its plain form: ``features.pool=max`` for Hydra's ``pool@features.pool=max``."""
    key, _, value = override.partition("=")
    group, _, node = key.lstrip("+").partition("@")
    return f"{node}={value}" if "." in node and node.rpartition(".")[2] == group else override


def _validation(jobs: Sequence[Job], metric: str) -> float | None:
    """Return the mean of `validation_value` over seeds; None if a run has none."""
    values = [validation_value(_result(job), metric) for job in jobs]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _stages(jobs: Sequence[Job]) -> str:
    """Return a note with the numbers of trained (or computed) and of reused stages."""
    trained = [
        stage["status"] == "trained" and not job.reused for job in jobs for stage in _result(job).get("stages", [])
    ]
    made = f"{sum(trained)} trained or computed, {len(trained) - sum(trained)} from the cache"
    return f"stages: {made}; percent, mean ± s.d. over seeds"
