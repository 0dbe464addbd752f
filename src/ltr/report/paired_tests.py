"""Paired comparisons of a table's lines with a reference, from the runs' ``predictions.parquet``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ltr.errors import ConfigError, DataError, nearest
from ltr.report.comparison import Line, Section
from ltr.report.intervals import (
    DRAWS,
    Hits,
    Interval,
    check_same_images,
    hits_of,
    holm,
    paired_bootstrap,
    paired_p,
    sign_flips,
)

BEST = "best"


@dataclass(frozen=True)
class Pair:
    """The difference of a line and the reference over the same test images.

    Attributes:
        line: which one.
        accuracy, balanced: the differences with their intervals.
        p: that neither is right more often (McNemar), adjusted by Holm for the lines of the table.
        p_seeds: the sign-flip test over the seeds that both have, NaN without two of them.
        why: no pair could be made, for this reason.
    """

    line: Line
    accuracy: Interval | None = None
    balanced: Interval | None = None
    p: float = math.nan
    p_seeds: float = math.nan
    why: str = ""


def reference_of(section: Section, label: str) -> Line | None:
    """Return the reference line: the best, or the named one; None if the section has none.

    A name may be the beginning of a label: the best of the lines that begin so.
    """
    if label == BEST:
        return section.lines[0] if section.lines else None
    fitting = [line for line in section.lines if f"{line.label} ".startswith(f"{label} ")]
    return next((line for line in fitting if line.label == label), fitting[0] if fitting else None)


def check_reference(sections: Sequence[Section], label: str) -> None:
    """Raise ConfigError if no table has a line of this name."""
    if label != BEST and all(reference_of(section, label) is None for section in sections):
        known = list(dict.fromkeys(line.label for section in sections for line in section.lines))
        raise ConfigError(f"--against {label}: no line has this name{nearest(label, known)}. There is also '{BEST}'")


def pairs(section: Section, reference: Line, *, draws: int = DRAWS, level: float = 0.95) -> list[Pair]:
    """Return the differences of all other lines of a section and the reference.

    A line whose predictions are missing, or are of other images, says so in place of numbers.

    Raises:
        DataError: the reference's own predictions cannot be used.
    """
    base = hits(reference)
    differences = [_pair(line, reference, base, draws, level) for line in section.lines if line is not reference]
    adjusted = holm([pair.p for pair in differences])
    return [replace(pair, p=p) for pair, p in zip(differences, adjusted)]


def hits(line: Line) -> Hits:
    """Return the correctness of each test image, averaged over a line's runs.

    Raises:
        DataError: predictions that are missing, damaged, or of different images.
    """
    needed = ("id", "label", "prediction")
    return hits_of([run.table("predictions", row, needed) for run, row in zip(line.runs, line.rows)], line.label)


def _pair(line: Line, reference: Line, base: Hits, draws: int, level: float) -> Pair:
    try:
        mine = hits(line)
        check_same_images(mine, base, f"{line.label} and {reference.label}")
    except DataError as error:
        return Pair(line, why=str(error))
    difference = mine.right - base.right
    both = {run.seed: place for place, run in enumerate(reference.runs)}
    metric = line.runs[0].metric
    ours, theirs = line.values(metric), reference.values(metric)
    by_seed = [ours[place] - theirs[both[run.seed]] for place, run in enumerate(line.runs) if run.seed in both]
    return Pair(
        line,
        paired_bootstrap(difference, mine.labels, draws=draws, level=level),
        paired_bootstrap(difference, mine.labels, balanced=True, draws=draws, level=level),
        paired_p(difference),
        sign_flips(by_seed) if len(by_seed) > 1 else math.nan,
    )
