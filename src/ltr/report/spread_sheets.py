"""Tables of a spread: its lines, the differences between them, and the published gaps inside it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from ltr import escaping
from ltr.names import counted
from ltr.report import formats
from ltr.report.blocks import wrap_lines
from ltr.report.columns import heading
from ltr.report.intervals import Interval
from ltr.report.limits import footnotes, marks_of
from ltr.report.sheet import Cell, Sheet
from ltr.report.spread import Spread
from ltr.report.style import NOTHING
from ltr.report.variance_components import VarianceComponents, deviation

SPREAD_LEGEND = (
    "s.d. of subset: between training subsets, averaged over seeds; of seed: between seeds, averaged over subsets; of "
    "rest: their interaction. One run: s.d. of a single run with a new subset and a new seed. Differences compare runs "
    "with the same subset and seed. Negative variance estimates are shown as 0."
)
_COMPONENTS = ("subset", "seed", "rest")


def spread_sheets(spread: Spread, by: str, level: float) -> list[Sheet]:
    """Return the tables of a spread: lines, differences, and published gaps, if there are any."""
    sheets = [_line_sheet(spread, by, level)]
    if any(pair.components for pair in spread.pairs):
        sheets.append(_pair_sheet(spread, level))
    if spread.gaps and spread.pairs:
        sheets.append(_gap_sheet(spread))
    return sheets


def _line_sheet(spread: Spread, by: str, level: float) -> Sheet:
    daggers = marks_of([line.limited for line in spread.lines])
    rows = []
    for line in spread.lines:
        label = f"{line.label} {daggers[line.limited]}" if line.limited else line.label
        components = line.components
        mean = components.mean.estimate if components else math.fsum(line.cells.values()) / len(line.cells)
        cells = [Cell(label), _grid(components, len(line.cells)), Cell(_plain(spread, mean), mean)]
        rows.append((*cells, *_component_cells(spread, components)))
    headings = (by, "subsets x seeds", heading(spread.metric), *_component_headings(level))
    title = f"{spread.dataset} · {spread.protocol}: spread of {spread.metric.heading} over {spread.factor} and seed"
    numeric = (False, *[True] * (len(headings) - 1))
    return Sheet(title, headings, numeric, tuple(rows), tuple(footnotes(daggers)))


def _pair_sheet(spread: Spread, level: float) -> Sheet:
    rows = []
    compared = [(pair, pair.components) for pair in spread.pairs if pair.components is not None]
    for pair, components in compared:
        mean = components.mean
        interval = f"[{_signed(spread, mean.low)}, {_signed(spread, mean.high)}]"
        cells = [Cell(f"{pair.first} - {pair.second}"), _grid(components, 0)]
        cells.append(Cell(_signed(spread, mean.estimate), mean.estimate))
        cells.append(Cell(interval, mean.low, "best" if mean.excludes_zero else ""))
        rows.append((*cells, *_component_cells(spread, components)))
    interval = f"{level:.0%} interval"
    headings = ("difference", "subsets x seeds", f"Δ {spread.metric.heading}", interval, *_component_headings(level))
    notes = [
        "The interval of a mean difference holds for new subsets and seeds on the same test images; marked if it "
        "excludes zero."
    ]
    if left_out := len(spread.pairs) - len(compared):
        notes.append(f"{counted(left_out, 'difference')} left out, without two subsets x two seeds in common.")
    if spread.single_run_spread == spread.single_run_spread:
        notes.append(
            f"95 % of the differences between two single runs lie within ± {_plain(spread, spread.single_run_spread)} "
            f"of their mean on a new subset, within ± {_plain(spread, spread.seed_spread)} if only the seed is new "
            "(pooled over the differences)."
        )
    title, numeric = f"{spread.dataset} · {spread.protocol}: differences", (False, *[True] * (len(headings) - 1))
    return Sheet(title, headings, numeric, tuple(rows), tuple(notes))


def _gap_sheet(spread: Spread) -> Sheet:
    inside = spread.gaps_inside
    rows = tuple(
        (Cell(gap.first), Cell(gap.second), *(Cell(f"{number:.2f}", number) for number in (*gap.numbers, gap.points)))
        for gap in inside
    )
    limit = _plain(spread, spread.single_run_spread)
    note = (
        f"{len(inside):,} of {counted(len(spread.gaps), 'gap')} between two published numbers on these data are "
        f"smaller than {limit} points, the 95 % spread of a difference between single runs. Two published numbers of "
        "one run each do not show which of these methods is better."
    )
    headings = ("first", "second", "published", "published", "gap")
    title = f"{spread.dataset}: published gaps inside the spread"
    return Sheet(title, headings, (False, False, True, True, True), rows, (note,))


def _component_headings(level: float) -> tuple[str, ...]:
    return *(f"s.d. of {name}" for name in _COMPONENTS), "one run", f"{level:.0%} interval", "subset's share"


def _component_cells(spread: Spread, components: VarianceComponents | None) -> list[Cell]:
    if components is None:
        return [Cell(NOTHING)] * (len(_COMPONENTS) + 3)
    cells = [_sd(spread, getattr(components, name)) for name in (*_COMPONENTS, "total")]
    low, high = deviation(components.total.low), deviation(components.total.high)
    share = components.subset_share
    return [
        *cells,
        Cell(f"[{_plain(spread, low)}, {_plain(spread, high)}]", low),
        Cell(NOTHING) if share != share else Cell(f"{100 * share:.0f} %", share),
    ]


def _grid(components: VarianceComponents | None, runs: int) -> Cell:
    if components is None:
        return Cell(counted(runs, "run") if runs else NOTHING)
    return Cell(f"{components.subsets} x {components.seeds}", components.subsets * components.seeds)


def _sd(spread: Spread, variance: Interval) -> Cell:
    value = deviation(variance.estimate)
    return Cell(_plain(spread, value), value)


def _plain(spread: Spread, value: float) -> str:
    return f"{100 * value:.2f}" if spread.metric.is_fraction else f"{value:.3g}"


def _signed(spread: Spread, value: float) -> str:
    return f"{100 * value:+.2f}" if spread.metric.is_fraction else f"{value:+.3g}"


def spread_text(spreads: Sequence[Spread], form: str, by: str, level: float, width: int | None = None) -> str:
    """Return all tables as ``table``, ``markdown`` or ``latex``, or the variances as ``csv``.

    Args:
        by: heading of the lines' names.
        width: width of a ``table`` in characters; None: no limit.
    """
    if form == "csv":
        return spread_csv(spreads)
    sheets = [sheet for spread in spreads for sheet in spread_sheets(spread, by, level)]
    blocks = map(formats.writer(form, width), sheets)
    legend = f"% {SPREAD_LEGEND}" if form == "latex" else "\n".join(wrap_lines(SPREAD_LEGEND, width))
    return "\n\n".join([*blocks, legend]) + "\n"


def spread_csv(spreads: Sequence[Spread]) -> str:
    """Return CSV with one row per line and difference: variances with their intervals, as fractions squared."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    parts = ("mean", "subset", "seed", "rest", "total")
    columns = [f"{part}_{kind}" for part in parts for kind in ("estimate", "low", "high")]
    writer.writerow(["dataset", "protocol", "factor", "metric", "first", "second", "subsets", "seeds", *columns])
    for spread in spreads:
        rows = [(line.label, "", line.components) for line in spread.lines]
        rows += [(pair.first, pair.second, pair.components) for pair in spread.pairs]
        for first, second, components in rows:
            if components is None:
                continue
            row: list[object] = [spread.dataset, spread.protocol, spread.factor, spread.metric.name, first, second]
            row += [components.subsets, components.seeds]
            for part in parts:
                interval = getattr(components, part)
                row += [f"{value:.8g}" for value in (interval.estimate, interval.low, interval.high)]
            writer.writerow([escaping.csv_cell(cell) for cell in row])
    return buffer.getvalue()
