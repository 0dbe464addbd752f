"""Rows of a leaderboard: checked results of a folder, averaged over seeds, each with its published number."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ltr import escaping
from ltr.errors import DataError
from ltr.evaluation.groups import GROUPS
from ltr.evaluation.metrics import Metric
from ltr.report.columns import value_text
from ltr.report.comparison import Line, Section, sections
from ltr.report.limits import short_schedule
from ltr.report.published_lookup import Published, PublishedNumbers, has_published_backbone
from ltr.report.read_run import Run
from ltr.report.read_runs import finished_runs, shown_value
from ltr.report.results_folder import ResultsFolder
from ltr.report.style import NOTHING


@dataclass(frozen=True)
class LeaderboardRow:
    """Row of a leaderboard: runs that differ only in their seed.

    Attributes:
        dataset, split, protocol: the data; splits of one data set are not comparable.
        label: name of the row; equal names are extended by the settings that differ.
        name: name of its runs.
        method, loss, backbone, schedule, selection: settings as text.
        metric: the headline metric.
        value, deviation: its mean and standard deviation over seeds, as fractions; NaN for one seed.
        groups: accuracy of many, medium and few; NaN where there is none.
        seeds: number of runs.
        published: the published number of the same data, backbone, sampler, loss and method; None if there is none.
        hours: time of all stages, including cached ones; NaN if unknown.
        epochs: length of the main stage; 0 if unknown.
        cost: multiply-accumulate operations of the whole training; NaN if unknown.
        is_short: the schedule is shorter than the recipe's, so that no published number is comparable.
        test_images: evaluated images.
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
        """The value in percent with two decimals, as published numbers are given, with ± s.d. over seeds."""
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
    name = number.metric if number and number.metric in line.rows[0]["metrics"] else section.metric
    is_short = bool(short_schedule(config))
    if number is not None and (
        is_short or name != number.metric or not has_published_backbone(config, number.names_backbone)
    ):
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
    code = provenance.get("code", {})
    commit = (code.get("commit") or "")[:10]
    dirty = " with uncommitted changes" if commit and code.get("dirty") else ""
    return ", ".join(str(provenance[key]) for key in ("device", "precision") if provenance.get(key)), commit + dirty


def _joined(texts: Any) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def backbone_text(config: dict[str, Any]) -> str:
    """Return a backbone as text: ``CifarResNet 32``, ``resnet50``, and whether it is frozen."""
    target = shown_value(config.get("backbone._target_"))
    name = config.get("backbone.name") or " ".join(
        [target, *([str(config["backbone.depth"])] if "backbone.depth" in config else [])]
    )
    is_frozen = config.get("features.name", "images") != "images" or config.get("backbone.trainable") == "none"
    return f"{name}, frozen" if is_frozen else str(name)


def schedule_text(config: dict[str, Any]) -> str:
    """Return the epochs of all stages as text: ``200 epochs + classifier 10``."""
    stages = [
        f"{key.split('.')[-2]} {value}" for key, value in config.items() if re.fullmatch(r"method\.\w+\.epochs", key)
    ]
    return " + ".join([f"{config.get('trainer.max_epochs', NOTHING)} epochs", *stages])


def summary_markdown(rows: Sequence[LeaderboardRow]) -> str:
    """Return the rows as Markdown tables, one per data set, for the documentation; short schedules are left out."""
    rows = [row for row in rows if not row.is_short]
    sources = list(dict.fromkeys(row.published.source for row in rows if row.published))
    text: list[str] = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        text += [f"**{escaping.markdown(dataset)}**", ""]
        headings = [
            "run",
            "result",
            *GROUPS,
            "n",
            "published",
            "deviation",
            "backbone",
            "schedule",
            "test images",
            "hours",
        ]
        numeric = ["---"] + ["---:"] * 7 + ["---"] * 2 + ["---:"] * 2
        text += [f"| {' | '.join(headings)} |", f"| {' | '.join(numeric)} |"]
        for row in (row for row in rows if row.dataset == dataset):
            text.append(f"| {' | '.join(_markdown_cells(row, sources))} |")
        text.append("")
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
