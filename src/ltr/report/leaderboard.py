"""Rows of a leaderboard: checked results of a folder, averaged over seeds, each with its published number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ltr import escaping
from ltr.errors import DataError
from ltr.evaluation.groups import GROUPS
from ltr.evaluation.metrics import Metric
from ltr.report.columns import value_text
from ltr.report.comparison import Line, Section, sections
from ltr.report.formats import markdown_table
from ltr.report.limits import short_schedule
from ltr.report.naming import commit_text, schedule_text
from ltr.report.published_lookup import Published, PublishedNumbers
from ltr.report.read_run import Run
from ltr.report.read_runs import finished_runs, shown_value
from ltr.report.results_folder import ResultsFolder
from ltr.report.style import NOTHING

_NUMERIC = ("result", *GROUPS, "n", "published", "deviation", "test images", "hours")
_HEADINGS = ("run", *_NUMERIC[:-2], "backbone", "schedule", *_NUMERIC[-2:])


@dataclass(frozen=True)
class LeaderboardRow:
    """Row of a leaderboard: runs that differ only in their seed.

    Attributes:
        dataset, split, protocol: the data; splits of one data set are not comparable.
        label: name of the row; settings that differ tell equal names apart.
        name: name of the runs.
        method, loss, backbone, schedule, selection: settings as text.
        metric: the headline metric.
        value, deviation: its mean and standard deviation over seeds, as fractions; NaN for one seed.
        groups: accuracy of many, medium and few; NaN where there is none.
        seeds: number of runs.
        published: the published number for the same data, backbone, sampler, loss and method; None without one.
        hours: time of all stages, including cached ones; NaN if unknown.
        epochs: length of the main stage; 0 if unknown.
        cost: multiply-accumulate operations of the whole training; NaN if unknown.
        is_short: True if the schedule is shorter than the recipe's, so that no published number is comparable.
        test_images: number of evaluated images.
        hardware, commit: from ``provenance.json``; empty without it.
        files: run folders below the results folder.
    """

    dataset: str
    split: str
    protocol: str
    label: str
    name: str
    method: str
    loss: str
    backbone: str
    schedule: str
    selection: str
    metric: Metric
    value: float
    deviation: float
    groups: dict[str, float]
    seeds: int
    published: Published | None
    hours: float
    epochs: int
    cost: float
    is_short: bool
    test_images: int
    hardware: str
    commit: str
    files: tuple[str, ...]

    @property
    def difference(self) -> float:
        """Difference to the published number, in percentage points; NaN without one."""
        return 100 * self.value - self.published.number if self.published else math.nan

    @property
    def value_text(self) -> str:
        """The value in percent with two decimals, like published numbers, with ± s.d. over seeds."""
        if not self.metric.is_fraction or self.value != self.value:
            return value_text(self.metric, self.value, self.deviation)
        text = f"{100 * self.value:.2f}"
        return text if self.deviation != self.deviation else f"{text} ± {100 * self.deviation:.2f}"


def leaderboard_rows(results: ResultsFolder) -> list[LeaderboardRow]:
    """Return the rows of all accepted results, whole schedules before short ones: by data set and split, best first."""
    if not results.accepted:
        return []
    folders = {run.path: run for run in results.accepted}
    collection = finished_runs([results.folder])
    runs = [run for run in collection.runs if run.path in folders]
    short = [run for run in runs if short_schedule(run.config)]
    published = PublishedNumbers()
    return [
        _row(section, line, published, results, folders)
        # apart, so that a name need not say its schedule
        for part in ([run for run in runs if run not in short], short)
        for section in (sections(part, ("name",)) if part else [])
        for line in section.lines
        if line.rows[0]["headline"]
    ]


def _row(
    section: Section, line: Line, published: PublishedNumbers, results: ResultsFolder, folders: dict[Any, Run]
) -> LeaderboardRow:
    config = line.config
    number = published.of(line, section.protocol)
    has_metric = number is not None and number.metric in line.rows[0]["metrics"]
    name = number.metric if number is not None and has_metric else section.metric
    is_short = bool(short_schedule(config))
    has_conditions = not is_short and has_metric
    if number is not None and not (has_conditions and not number.departures):
        number = None
    provenance = [_provenance(folders[run.path]) for run in line.runs]
    return LeaderboardRow(
        dataset=section.dataset,
        split=section.split,
        protocol=section.protocol,
        label=line.label,
        name=str(config.get("name", "?")),
        method=str(config.get("method.name", "?")),
        loss=shown_value(config.get("loss._target_")),
        backbone=backbone_text(config),
        schedule=schedule_text(config),
        selection=line.selection + (", tau on validation" if config.get("method.tau") == "auto" else ""),
        metric=section.table.find(name, section.protocol),
        value=line.mean(name),
        deviation=line.deviation(name),
        groups={group: line.mean(group) for group in GROUPS},
        seeds=len(line.runs),
        published=number,
        hours=line.seconds / 3600,
        epochs=int(config.get("trainer.max_epochs") or 0),
        cost=results.costs.get(str(folders[line.runs[0].path].result.get("group_hash")), math.nan),
        is_short=is_short,
        test_images=section.test_images,
        hardware=_joined(text for text, _ in provenance),
        commit=_joined(text for _, text in provenance),
        files=tuple(run.path.relative_to(results.folder).as_posix() for run in line.runs),
    )


def _provenance(run: Run) -> tuple[str, str]:
    """Return hardware and commit of a run; empty texts without ``provenance.json``."""
    try:
        provenance = run.provenance
    except DataError:
        return "", ""
    hardware = ", ".join(str(provenance[key]) for key in ("device", "precision") if provenance.get(key))
    return hardware, commit_text(provenance.get("code", {}))


def _joined(texts: Any) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def backbone_text(config: dict[str, Any]) -> str:
    """Return a backbone as text: ``CifarResNet 32`` or ``resnet50, frozen``."""
    target, depth = shown_value(config.get("backbone._target_")), config.get("backbone.depth", "")
    name = config.get("backbone.name") or f"{target} {depth}".rstrip()
    is_frozen = config.get("features.name", "images") != "images" or config.get("backbone.trainable") == "none"
    return f"{name}, frozen" if is_frozen else str(name)


def summary_markdown(rows: Sequence[LeaderboardRow]) -> str:
    """Return the rows as Markdown tables, one per data set, without short schedules."""
    rows = [row for row in rows if not row.is_short]
    sources = list(dict.fromkeys(row.published.source for row in rows if row.published))
    text: list[str] = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        text += [f"**{escaping.markdown(dataset)}**", ""]
        cells = (_markdown_cells(row, sources) for row in rows if row.dataset == dataset)
        text += [*markdown_table(_HEADINGS, [heading in _NUMERIC for heading in _HEADINGS], cells), ""]
    text += [f"[{position}] {escaping.markdown(source)}." for position, source in enumerate(sources, start=1)]
    return "\n".join(text)


def _markdown_cells(row: LeaderboardRow, sources: Sequence[str]) -> list[str]:
    metric = "" if row.metric.name in ("accuracy", "balanced_accuracy") else f"{row.metric.heading} "
    cells = [row.label, f"{metric}{row.value_text}", *(percent(row.groups[group]) for group in GROUPS), str(row.seeds)]
    published = NOTHING
    if row.published is not None:
        published = f"{row.published.number:.2f} [{sources.index(row.published.source) + 1}]"
    rest = [signed(row.difference), row.backbone, row.schedule, f"{row.test_images:,}", hours_text(row.hours)]
    return [*map(escaping.markdown, cells), published, *map(escaping.markdown, rest)]


def percent(value: float) -> str:
    """Return a fraction in percent with two decimals; a dash for NaN."""
    return NOTHING if value != value else f"{100 * value:.2f}"


def signed(points: float) -> str:
    """Return a difference in points, ``+0.08``; a dash for NaN."""
    return NOTHING if points != points else f"{points:+.2f}"


def hours_text(hours: float) -> str:
    """Return hours with one decimal, ``2.6``; a dash for NaN."""
    return NOTHING if hours != hours else f"{hours:.1f}"
