"""Paired comparisons of a table's lines with a reference, from the runs' ``predictions.parquet``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ltr.errors import ConfigError, DataError, nearest
from ltr.report.comparison import Line, Section
from ltr.report.intervals import (
    Hits,
    Interval,
    check_same_images,
    hits_of,
    holm,
    paired_bootstrap,
    paired_p_value,
    sign_flip_p_value,
)

BEST = "best"


@dataclass(frozen=True)
class Pair:
    """Difference of a line and the reference on the same test images.

    Attributes:
        line: the compared line.
        accuracy, balanced: differences of accuracy and balanced accuracy with their intervals.
        p: p-value of McNemar's test, adjusted by Holm for the lines of the table.
        p_seeds: p-value of the sign-flip test over shared seeds; NaN for fewer than two.
        reason: why the lines cannot be compared; empty if they can.
    """

    line: Line
    accuracy: Interval | None = None
    balanced: Interval | None = None
    p: float = math.nan
    p_seeds: float = math.nan
    reason: str = ""


def reference_of(section: Section, label: str) -> Line | None:
    """Return the reference line: the best, or the one with this label; None if the section has none.

    The first words of a label suffice; among several matching lines the best one is the reference.
    """
    if label == BEST:
        return section.lines[0] if section.lines else None
    matching_lines = [line for line in section.lines if f"{line.label} ".startswith(f"{label} ")]
    return min(matching_lines, key=lambda line: line.label != label, default=None)


def unknown_reference(label: str, known: Iterable[str]) -> str:
    """Return the message about a label of ``--against`` that no line has."""
    return (
        f"--against {label}: no row has this name{nearest(label, known) or '.'} "
        f"'{BEST}' names the best row of each table"
    )


def check_reference(sections: Sequence[Section], label: str) -> None:
    """Raise ConfigError if no table has a line of this name."""
    if label != BEST and all(reference_of(section, label) is None for section in sections):
        known = dict.fromkeys(line.label for section in sections for line in section.lines)
        raise ConfigError(unknown_reference(label, known))


def pairs(section: Section, reference: Line, *, level: float = 0.95) -> list[Pair]:
    """Return the differences between all other lines of a section and the reference.

    A line whose predictions are missing or belong to other images gets a reason instead of numbers.

    Raises:
        DataError: the predictions of the reference cannot be used.
    """
    reference_hits = hits(reference)
    differences = [_pair(line, reference, reference_hits, level) for line in section.lines if line is not reference]
    adjusted = holm([pair.p for pair in differences])
    return [replace(pair, p=p) for pair, p in zip(differences, adjusted)]


def hits(line: Line) -> Hits:
    """Return the correctness of each test image, averaged over a line's runs.

    Raises:
        DataError: predictions are missing, damaged, or belong to different images.
    """
    columns = ("id", "label", "prediction")
    return hits_of([run.table("predictions", row, columns) for run, row in zip(line.runs, line.rows)], line.label)


def _pair(line: Line, reference: Line, reference_hits: Hits, level: float) -> Pair:
    try:
        line_hits = hits(line)
        check_same_images(line_hits, reference_hits, f"{line.label} and {reference.label}")
    except DataError as error:
        return Pair(line, reason=str(error))
    difference = line_hits.correct - reference_hits.correct
    reference_index = {run.seed: index for index, run in enumerate(reference.runs)}
    metric = line.runs[0].metric
    reference_values = reference.values(metric)
    by_seed = [
        value - reference_values[reference_index[run.seed]]
        for run, value in zip(line.runs, line.values(metric))
        if run.seed in reference_index
    ]
    return Pair(
        line,
        paired_bootstrap(difference, line_hits.labels, level=level),
        paired_bootstrap(difference, line_hits.labels, balanced=True, level=level),
        paired_p_value(difference),
        sign_flip_p_value(by_seed) if len(by_seed) > 1 else math.nan,
    )
