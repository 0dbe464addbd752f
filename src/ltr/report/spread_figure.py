"""Figure of a spread: every run of every line, and what a difference to the first line varies by."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ltr.escaping import name as short_name
from ltr.report.spread import Spread
from ltr.report.style import GROUP_COLOURS, INK, PALE, figure_file
from ltr.report.variance_components import deviation

_COLOURS = dict(zip(("subset", "seed", "rest"), GROUP_COLOURS.values()))
_MAX_LINES = 12


def spread_figure(spread: Spread, path: Path) -> None:
    """Draw a spread as a PNG.

    Left: one mark per run, a tick per subset's mean. Right: standard deviations of the differences by their source.
    """
    lines = spread.lines[:_MAX_LINES]
    pairs = [pair for pair in spread.pairs if pair.components is not None][:_MAX_LINES]
    scale = 100 if spread.metric.is_fraction else 1
    unit = " (%)" if spread.metric.is_fraction else ""
    rows = max(len(lines), len(pairs))
    with figure_file(path, 11.5, 1.9 + 0.5 * rows) as figure:
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.1, 1]})
        for row, line in enumerate(lines):
            levels = sorted({level for level, _ in line.cells}, key=str)
            values = [[value for (level, _), value in line.cells.items() if level == one] for one in levels]
            for one in values:
                left.plot(scale * np.array(one), [row] * len(one), "o", color=PALE, alpha=0.35, markersize=5)
            means = [scale * float(np.mean(one)) for one in values]
            left.plot(means, [row] * len(means), "|", color=INK, markersize=16, markeredgewidth=1.4)
        left.set_yticks(range(len(lines)), [short_name(line.label, 40) for line in lines])
        left.set_ylim(len(lines) - 0.5, -0.5)
        left.set_xlabel(f"{spread.metric.title}{unit}: dots are runs, ticks are subsets")
        for row, pair in enumerate(pairs):
            assert pair.components is not None
            for offset, (name, colour) in zip((-0.25, 0, 0.25), _COLOURS.items()):
                value = scale * deviation(getattr(pair.components, name).estimate)
                right.barh(row + offset, value, 0.24, color=colour, label=name if row == 0 else None)
        labels = [f"{short_name(pair.first, 26)} - {short_name(pair.second, 26)}" for pair in pairs]
        right.set_yticks(range(len(pairs)), labels)
        right.set_ylim(max(len(pairs), 1) - 0.5, -0.5)
        right.set_xlabel("s.d. of a difference, in points" if scale == 100 else "s.d. of a difference")
        if pairs:
            right.legend(loc="lower right")
