"""Figure of a spread: the runs of each line, and the variance components of the differences between lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltr.escaping import name as short_name
from ltr.report.spread import Spread, SpreadLine, SpreadPair
from ltr.report.style import GROUP_COLOURS, INK, PALE, figure_file
from ltr.report.variance_components import deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = dict(zip(("subset", "seed", "rest"), GROUP_COLOURS.values()))
_MAX_LINES = 12


def spread_figure(spread: Spread, path: Path) -> None:
    """Draw a spread as a PNG.

    Left: a dot for each run's deviation from the mean of its line, and a tick for the mean of each subset. Right:
    standard deviations of the differences by their source.
    """
    lines = spread.lines[:_MAX_LINES]
    pairs = [pair for pair in spread.pairs if pair.components is not None][:_MAX_LINES]
    with figure_file(path, 11.5, 1.9 + 0.45 * max(len(lines), len(pairs))) as figure:
        left, right = figure.subplots(1, 2)
        _draw_runs(left, spread, lines)
        _draw_pairs(right, spread, pairs)


def _draw_runs(axes: Axes, spread: Spread, lines: Sequence[SpreadLine]) -> None:
    scale = _scale(spread)
    labels = []
    for row, line in enumerate(lines):
        mean = float(np.mean(list(line.cells.values())))
        for level in sorted({level for level, _ in line.cells}, key=str):
            deviations = [scale * (value - mean) for (other, _), value in line.cells.items() if other == level]
            axes.plot(deviations, [row] * len(deviations), "o", color=PALE, alpha=0.35, markersize=5)
            axes.plot([float(np.mean(deviations))], [row], "|", color=INK, markersize=16, markeredgewidth=1.4)
        labels.append(f"{short_name(line.label, 34)}, {scale * mean:.1f}" if scale > 1 else short_name(line.label, 40))
    axes.set_yticks(range(len(lines)), labels)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    unit = "points of " if scale > 1 else ""
    axes.set_xlabel(f"deviation from the mean, {unit}{spread.metric.title}")
    axes.set_title("a dot per run, a tick per subset", loc="left", fontsize=12)


def _draw_pairs(axes: Axes, spread: Spread, pairs: Sequence[SpreadPair]) -> None:
    scale = _scale(spread)
    shared = set.intersection(*({pair.first, pair.second} for pair in pairs)) if len(pairs) > 1 else set()
    reference = next(iter(shared)) if len(shared) == 1 else ""
    for row, pair in enumerate(pairs):
        assert pair.components is not None
        for offset, (name, colour) in zip((-0.25, 0, 0.25), _COLOURS.items()):
            value = scale * deviation(getattr(pair.components, name).estimate)
            axes.barh(row + offset, value, 0.24, color=colour, label=name if row == 0 else None)
    labels = [
        short_name(pair.second if pair.first == reference else pair.first, 34)
        if reference
        else f"{short_name(pair.first, 22)} - {short_name(pair.second, 22)}"
        for pair in pairs
    ]
    axes.set_yticks(range(len(pairs)), labels)
    axes.set_ylim(max(len(pairs), 1) - 0.5, -0.5)
    axes.set_xlabel("s.d. of the difference" + (", points" if scale > 1 else ""))
    title = f"difference to {short_name(reference, 34)}" if reference else "differences"
    axes.set_title(title, loc="left", fontsize=12)
    if pairs:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _scale(spread: Spread) -> int:
    return 100 if spread.metric.is_fraction else 1
