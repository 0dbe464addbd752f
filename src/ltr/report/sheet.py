"""Contents of tables, independent of their format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ltr.evaluation.metrics import METRICS, Metric
from ltr.report.columns import heading, value_text
from ltr.report.comparison import Line, Section, marks
from ltr.report.intervals import Interval
from ltr.report.limits import footnotes, marks_of
from ltr.report.paired_tests import Pair
from ltr.report.published_lookup import PublishedNumbers
from ltr.report.series import Curve
from ltr.report.style import NOTHING, SELECTED_ON_TEST

_MARKS = {  # for each format, the marks of the best value of a column and of its ties
    "table": ("*", "="),
    "markdown": ("bold", "="),
    "latex": ("bold", "underlined"),
    "html": ("bold", "underlined with dots"),
}


def legend(form: str) -> str:
    """Return the legend of a report's tables in a format: ``table``, ``markdown``, ``latex`` or ``html``."""
    best, tie = _MARKS[form]
    return (
        f"Mean ± s.d. over n seeds; fractions in percent; {best}: best in a column; {tie}: at most one s.d. from it "
        "(the larger of the two s.d.). Cost: seconds of all stages, as if none had been cached; images/s: training "
        "of the first stage."
    )


@dataclass(frozen=True)
class Cell:
    """Cell of a table.

    Attributes:
        text: the shown text.
        number: value for sorting; NaN for text.
        mark: ``best``, ``tie``, ``warning`` or empty.
    """

    text: str
    number: float = math.nan
    mark: str = ""


@dataclass(frozen=True)
class Sheet:
    """Table without a format.

    Attributes:
        title: title of the table.
        headings: column headings.
        numeric: for each column whether it holds numbers, which are aligned to the right.
        rows: cells, row by row.
        notes: sentences below the table.
    """

    title: str
    headings: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def section_sheet(section: Section, metrics: Sequence[Metric], published: PublishedNumbers | None, by: str) -> Sheet:
    """Return the table of a section; lines selected on test come last, flagged and never marked as best."""
    lines = section.all_lines
    marks_by_metric = {metric.name: marks(section.lines, metric) for metric in metrics}
    published_numbers = [published.of(line, section.protocol) if published else None for line in lines]
    sources = list(dict.fromkeys(number.source for number in published_numbers if number is not None))
    conditions = [number.departures if number is not None else "" for number in published_numbers]
    daggers = marks_of([*(line.caveat for line in lines), *conditions])
    rows = []
    for index, line in enumerate(lines):
        dagger = f" {daggers[line.caveat]}" if line.caveat else ""
        selection = f" ({SELECTED_ON_TEST})" if line.on_test else ""
        label = Cell(f"{line.label}{selection}{dagger}", mark="warning" if selection or dagger else "")
        cells = [label, Cell(str(len(line.runs)), len(line.runs))]
        for metric in metrics:
            is_comparable = index < len(section.lines)
            mark = "best" if is_comparable and index in marks_by_metric[metric.name].best else ""
            mark = "tie" if is_comparable and index in marks_by_metric[metric.name].ties else mark
            mean = line.mean(metric.name)
            cells.append(Cell(value_text(metric, mean, line.deviation(metric.name)), mean, mark))
        if sources:
            number = published_numbers[index]
            mark = f"{dagger} {daggers[conditions[index]]}" if conditions[index] else dagger
            text = NOTHING if number is None else f"{number.number:.2f} [{sources.index(number.source) + 1}]{mark}"
            cells.append(Cell(text, math.nan if number is None else number.number))
        epochs = str(line.config.get("trainer.max_epochs", NOTHING))
        cells.append(Cell(epochs, _as_number(epochs)))
        rows.append((*cells, _count(line.seconds, " s"), _count(line.images_per_second)))
    headings = (by, "n", *map(heading, metrics), *(["published"] if sources else []), "epochs", "cost", "images/s")
    notes = []
    if section.test_images:
        notes.append(f"{section.test_images:,} test images of {section.classes:,} classes.")
    notes += [f"[{index}] {source}." for index, source in enumerate(sources, start=1)]
    notes += footnotes(daggers)
    if section.selected_on_test:
        notes.append(f"Rows {SELECTED_ON_TEST} are not compared: the test set chose their epoch.")
    return Sheet(section.title, headings, (False, *[True] * (len(headings) - 1)), tuple(rows), tuple(notes))


def curve_sheet(section: Section, curve: Curve) -> Sheet:
    """Return the table of a sweep's points."""
    rows = []
    for point in curve.points:
        cells = [Cell(f"{point.value}{' *' if point.is_headline else ''}", _as_number(point.value))]
        cells += [
            Cell(value_text(metric, point.means[metric.name], point.deviations[metric.name]), point.means[metric.name])
            for metric in curve.metrics
        ]
        rows.append((*cells, Cell(str(point.seeds), point.seeds)))
    headings = (curve.key, *map(heading, curve.metrics), "n")
    notes = ("* the run's result.",) if any(point.is_headline for point in curve.points) else ()
    title = f"{section.dataset}: {curve.title} over {curve.key}"
    return Sheet(title, headings, (True,) * len(headings), tuple(rows), notes)


def pairs_sheet(section: Section, reference: Line, pairs: Sequence[Pair], level: float) -> Sheet:
    """Return the table of differences between a section's lines and its reference."""
    rows = []
    reasons = []
    for pair in pairs:
        if pair.accuracy is None or pair.balanced is None:
            reasons.append(pair.reason)
            rows.append((Cell(pair.line.label), *[Cell(NOTHING)] * 6))
            continue
        cells = [Cell(pair.line.label)]
        for difference in (pair.accuracy, pair.balanced):
            cells += [_difference(difference.estimate), _interval(difference)]
        rows.append((*cells, _p(pair.p), _p(pair.p_seeds)))
    plain, balanced = (METRICS.find(name).heading for name in ("accuracy", "balanced_accuracy"))
    interval = f"{level:.0%} interval"
    headings = ("row", f"Δ {plain}", interval, f"Δ {balanced}", interval, "p", "p over seeds")
    notes = (
        "Differences in percentage points. Intervals: paired bootstrap over the test images (within classes for "
        f"{balanced}); marked if they exclude zero. p: McNemar's exact test over the test images, or its normal "
        "approximation for means over seeds, adjusted by Holm for the rows of this table; p over seeds: sign flips.",
        *dict.fromkeys(reasons),
    )
    title = f"{section.title}: difference to {reference.label}"
    return Sheet(title, headings, (False, *[True] * 6), tuple(rows), notes)


def _difference(value: float) -> Cell:
    return Cell(f"{100 * value:+.1f}", value)


def _interval(interval: Interval) -> Cell:
    text = f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return Cell(text, interval.low, "best" if interval.excludes_zero else "")


def _p(value: float) -> Cell:
    return Cell(NOTHING if value != value else "< 0.0001" if value < 1e-4 else f"{value:.4f}", value)


def _count(value: float, unit: str = "") -> Cell:
    return Cell(NOTHING if value != value else f"{value:,.0f}{unit}", value)


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
