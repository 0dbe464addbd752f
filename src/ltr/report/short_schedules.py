"""Table of results whose schedule is shorter than the recipe's: each method beside baselines of equal cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ltr import escaping
from ltr.evaluation.groups import GROUPS
from ltr.report.leaderboard import LeaderboardRow, hours_text, percent, signed
from ltr.report.style import NOTHING

BASELINES = ("erm", "balanced_softmax")  # names of the runs that others are compared with
_UNIT = "erm"  # an epoch of it is the unit of cost


def short_markdown(rows: Sequence[LeaderboardRow]) -> str:
    """Return the rows of short schedules as Markdown tables, one for each data set and number of test images.

    The cost is in epochs of ERM: the multiply-accumulate operations of the whole training over those of one epoch of
    plain training. The difference from a baseline is that from its run of the nearest cost, whose epochs are in
    brackets.
    """
    short = [row for row in rows if row.is_short]
    text: list[str] = []
    for dataset, split in dict.fromkeys((row.dataset, row.split) for row in short):
        of_split = [row for row in short if (row.dataset, row.split) == (dataset, split)]
        headings = ["run", "epochs", "cost", "result", *GROUPS, *(f"minus {name}" for name in BASELINES), "n", "hours"]
        text += [f"**{escaping.markdown(dataset)}**, {of_split[0].test_images:,} test images", ""]
        text += [f"| {' | '.join(map(escaping.markdown, headings))} |", f"| --- |{' ---: |' * (len(headings) - 1)}"]
        text += [_line(row, of_split) for row in sorted(of_split, key=lambda row: -row.value)]
        text.append("")
    return "\n".join(text).rstrip("\n")


def _line(row: LeaderboardRow, rows: Sequence[LeaderboardRow]) -> str:
    cost = cost_in_epochs(row, rows)
    differences = [_difference(row, nearest_baseline(row, name, rows)) for name in BASELINES]
    groups = (percent(row.groups[group]) for group in GROUPS)
    cells = [_label(row, rows), str(row.epochs), NOTHING if cost != cost else f"{cost:.1f}", row.value_text, *groups]
    cells += [*differences, str(row.seeds), hours_text(row.hours)]
    return f"| {' | '.join(map(escaping.markdown, cells))} |"


def _label(row: LeaderboardRow, rows: Sequence[LeaderboardRow]) -> str:
    """Return the name of a row, with the settings that tell it from rows of equal name and epochs."""
    is_unique = sum((other.name, other.epochs) == (row.name, row.epochs) for other in rows) == 1
    return row.name if is_unique else row.label


def cost_in_epochs(row: LeaderboardRow, rows: Sequence[LeaderboardRow]) -> float:
    """Return the cost of a row in epochs of ERM; NaN if one of the two costs is unknown."""
    units = [other.cost / other.epochs for other in rows if other.name == _UNIT and other.cost > 0]
    return row.cost / units[0] if units else math.nan


def nearest_baseline(row: LeaderboardRow, name: str, rows: Sequence[LeaderboardRow]) -> LeaderboardRow | None:
    """Return the run of a baseline whose cost is nearest to that of a row, as a ratio; None if there is none.

    Where a cost is unknown, that of equal epochs is nearest.
    """
    candidates = [other for other in rows if other.name == name and other.epochs]
    if row in candidates or not candidates:
        return None

    def distance(other: LeaderboardRow) -> float:
        pair = (row.cost, other.cost) if row.cost > 0 and other.cost > 0 else (row.epochs or 1, other.epochs)
        return abs(math.log(pair[0] / pair[1]))

    return min(candidates, key=distance)


def _difference(row: LeaderboardRow, baseline: LeaderboardRow | None) -> str:
    return NOTHING if baseline is None else f"{signed(100 * (row.value - baseline.value))} ({baseline.epochs})"
