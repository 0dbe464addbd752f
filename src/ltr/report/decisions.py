"""Table of decisions: metrics of the thresholds and sets that ``ltr-eval --decide`` chose for each run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from ltr.errors import LtrError
from ltr.escaping import name as short_name
from ltr.evaluation.decision_file import FILE, read_entries
from ltr.files import file_digest
from ltr.report.comparison import Line, Section
from ltr.report.read_runs import FinishedRun
from ltr.report.sheet import Cell, Sheet
from ltr.report.style import NOTHING

_SHOWN_CLASSES = 3  # at most this many classes with different levels are listed
_DECISIONS = ("coverage", "precision", "recall", "accuracy")
_FALSE_ALARMS = "false_alarms_per_thousand"
_SETS = ("coverage", "size")
DECISION_COLUMNS = (
    "decisions_n",
    "decisions_level",
    "decisions_images",
    *(f"decisions_{name}" for name in (*_DECISIONS, _FALSE_ALARMS)),
    *(f"sets_{name}" for name in _SETS),
)


@dataclass(frozen=True)
class _Row:
    """Decisions of one run's weights: names for the table, and the metrics of decisions and of sets by name."""

    label: str
    seed: int
    rules: str
    part: str
    decisions: Mapping[str, float]
    sets: Mapping[str, float]
    is_headline: bool


def decision_sheet(section: Section, problems: list[str]) -> Sheet | None:
    """Return the decisions of the runs whose headline is in this section; None without any.

    Args:
        problems: list to which messages about unusable files are added.
    """
    rows = [row for line in section.all_lines for row in _rows_of_line(line, problems)]
    return _sheet(section, rows) if rows else None


def line_decisions(line: Line) -> dict[str, object]:
    """Return the decisions of a line's runs by the columns of `DECISION_COLUMNS`: means over seeds, as fractions.

    Only the weights of each run's headline count. Without decisions the result is empty; if seeds differ in levels or
    images, there are no means.
    """
    rows = [row for row in _rows_of_line(line, []) if row.is_headline]
    if not rows:
        return {}
    columns: dict[str, object] = {
        "decisions_n": len(rows),
        "decisions_level": " | ".join(dict.fromkeys(row.rules for row in rows)),
        "decisions_images": " | ".join(dict.fromkeys(row.part for row in rows)),
    }
    if len({(row.rules, row.part) for row in rows}) == 1:
        for prefix, metrics in (("decisions", [row.decisions for row in rows]), ("sets", [row.sets for row in rows])):
            for name in dict.fromkeys(name for values in metrics for name in values):
                columns[f"{prefix}_{name}"] = math.fsum(values.get(name, math.nan) for values in metrics) / len(rows)
    return columns


def _rows_of_line(line: Line, problems: list[str]) -> list[_Row]:
    """Return the decisions of the runs whose headline is the line; add messages about unusable files."""
    rows = []
    for run, result in zip(line.runs, line.rows):
        if result["headline"] and (run.path / FILE).is_file():
            try:
                rows += _rows_of_run(run, line.label, str(result.get("checkpoint")), problems)
            except LtrError as error:
                problems.append(str(error))
    return rows


def _rows_of_run(run: FinishedRun, label: str, headline_checkpoint: str, problems: list[str]) -> list[_Row]:
    path = run.path / FILE
    rows = []
    for digest, entry in read_entries(path).items():
        checkpoint = str(entry.get("checkpoint"))
        weights = run.path / "checkpoints" / Path(checkpoint).name
        if weights.is_file() and file_digest(weights) != digest:
            problems.append(
                f"{path} was made for other weights than {weights.name} and is left out. Choose thresholds again: "
                f"ltr-eval {quote(str(run.path))} --decide precision=0.9"
            )
            continue
        measured = entry.get("measured")
        measured = measured if isinstance(measured, Mapping) else {}
        part = next((name for name in ("test", "val") if isinstance(measured.get(name), Mapping)), None)
        if part is None:
            problems.append(f"{path} has no metrics of {checkpoint}. Choose thresholds again by ltr-eval --decide")
            continue
        is_headline = Path(checkpoint).stem == headline_checkpoint
        rows.append(
            _Row(
                label if is_headline else f"{label} ({short_name(checkpoint)})",
                run.seed,
                _rules_text(entry),
                part,
                _numbers(measured[part].get("decisions"), (*_DECISIONS, _FALSE_ALARMS)),
                _numbers(measured[part].get("sets"), _SETS),
                is_headline,
            )
        )
    return rows


def _numbers(metrics: Any, names: Sequence[str]) -> dict[str, float]:
    """Return metrics by name, NaN for missing numbers; {} without metrics."""
    if not isinstance(metrics, Mapping):
        return {}
    values = {name: metrics.get(name) for name in names}
    return {
        name: float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
        for name, value in values.items()
    }


def _rules_text(entry: Mapping[str, Any]) -> str:
    """Return the wanted levels, such as ``precision 0.9 (lynx 0.99)``."""
    common, by_class = entry.get("rules"), entry.get("class_levels")
    texts = []
    for rule, level in common.items() if isinstance(common, Mapping) else ():
        of_classes = by_class.get(rule) if isinstance(by_class, Mapping) else None
        of_classes = of_classes if isinstance(of_classes, Mapping) else {}
        named = [f"{short_name(str(name))} {value}" for name, value in list(of_classes.items())[:_SHOWN_CLASSES]]
        if len(of_classes) > _SHOWN_CLASSES:
            named.append(f"{len(of_classes) - _SHOWN_CLASSES:,} more")
        texts.append(
            short_name(str(rule)) + ("" if level is None else f" {level}") + (f" ({', '.join(named)})" if named else "")
        )
    return ", ".join(texts)


def _sheet(section: Section, rows: Sequence[_Row]) -> Sheet:
    has_decisions, has_sets = any(row.decisions for row in rows), any(row.sets for row in rows)
    has_alarms = any(not math.isnan(row.decisions.get(_FALSE_ALARMS, math.nan)) for row in rows)
    headings = ["row", "seed", "level", "images"]
    numeric = [False, True, False, False]
    if has_decisions:
        headings += _DECISIONS
    if has_alarms:
        headings.append("false alarms / 1000 ↓")
    if has_sets:
        headings += ["set coverage", "set size"]
    numeric += [True] * (len(headings) - len(numeric))
    cells = []
    for row in rows:
        line = [Cell(row.label), Cell(str(row.seed), row.seed), Cell(row.rules), Cell(row.part)]
        if has_decisions:
            line += [_percent(row.decisions.get(name, math.nan)) for name in _DECISIONS]
        if has_alarms:
            line.append(_number(row.decisions.get(_FALSE_ALARMS, math.nan), 1))
        if has_sets:
            line += [_percent(row.sets.get("coverage", math.nan)), _number(row.sets.get("size", math.nan), 2)]
        cells.append(tuple(line))
    notes = []
    if has_decisions:
        notes.append(
            "Decisions at thresholds chosen on validation images. Coverage: images with a decision; accuracy: of "
            "these; precision and recall: means over classes."
        )
    if has_alarms:
        notes.append("False alarms: background images decided as another class, per thousand background images.")
    if has_sets:
        notes.append("Set coverage: images whose conformal set holds their class; set size: mean number of classes.")
    return Sheet(f"{section.title}: decisions", tuple(headings), tuple(numeric), tuple(cells), tuple(notes))


def _percent(value: float) -> Cell:
    return Cell(NOTHING) if math.isnan(value) else Cell(f"{100 * value:.1f}", value)


def _number(value: float, digits: int) -> Cell:
    return Cell(NOTHING) if math.isnan(value) else Cell(f"{value:.{digits}f}", value)
