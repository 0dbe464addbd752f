"""Figure: the background as one class, and as the pseudo-classes of background splitting."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltr.report.classes import BACKGROUND, Classes, class_axis, classes_of, colour_of
from ltr.report.read_run import Run, read_arrays
from ltr.report.style import INK, PALE, figure_file, format_log_axis, percent, set_run_title, use_integer_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_SEPARATE_BARS = 60  # more bars are drawn as one shape


def background_classes(run: Run, path: Path) -> bool:
    """Draw the training counts of the classes with one background class, and of the background's pseudo-classes.

    Both panels are sorted and share one log scale. The title gives the exponential of the pseudo-classes' entropy: as
    many classes of equal size have the same entropy.

    Returns:
        False if the run has no partition of its background.
    """
    partition = read_arrays(run.path / "artifacts" / "partition.npz")
    classes = classes_of(run) if "background_counts" in partition else None
    if classes is None or BACKGROUND not in classes.groups:
        return False
    pseudo_counts = np.sort(partition["background_counts"][partition["background_counts"] > 0])[::-1]
    if not len(pseudo_counts):
        return False
    with figure_file(path, 11.6, 5.0) as figure:
        set_run_title(figure, run)
        before, after = figure.subplots(1, 2, sharey=True)
        _draw_class_counts(before, classes)
        shares = pseudo_counts / pseudo_counts.sum()
        effective_number = float(np.exp(-(shares * np.log(shares)).sum()))
        _draw_sizes(after, np.arange(len(pseudo_counts)), pseudo_counts, PALE, None)
        after.set_xlim(-0.6, len(pseudo_counts) - 0.4)
        after.set_xlabel(f"pseudo-classes; the largest has {percent(shares[0])} of the background")
        after.set_title(
            f"after: {len(pseudo_counts):,} pseudo-classes, as good as {effective_number:.3g} equal ones", loc="left"
        )
        use_integer_ticks(after.xaxis)
    return True


def _draw_class_counts(axes: Axes, classes: Classes) -> None:
    order, groups = classes.order, classes.groups[classes.order]
    share = classes.counts[classes.groups == BACKGROUND].sum() / max(classes.counts.sum(), 1)
    for name in classes.shown_groups():
        _draw_sizes(axes, np.flatnonzero(groups == name), classes.counts[order][groups == name], colour_of(name), name)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    format_log_axis(axes.yaxis, *axes.get_ylim())
    class_axis(axes, classes)
    axes.set_ylabel("training images (log scale)")
    axes.set_title(f"before: {percent(share)} in one class", loc="left", color=INK)
    axes.legend(loc="upper right")


def _draw_sizes(axes: Axes, positions: np.ndarray, sizes: np.ndarray, colour: str, label: str | None) -> None:
    if len(sizes) <= _MAX_SEPARATE_BARS:
        axes.bar(positions, sizes, width=0.8, color=colour, label=label)
    else:
        filled = np.full(positions[-1] - positions[0] + 1, 0.5)
        filled[positions - positions[0]] = sizes
        edges = np.arange(positions[0], positions[-1] + 2) - 0.5
        axes.stairs(filled, edges, fill=True, baseline=0.5, color=colour, label=label)
    axes.grid(False, axis="x")
