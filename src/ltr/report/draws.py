"""Figure: the number of sampled images of each class, and the groups' shares over the epochs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltr.names import counted
from ltr.report.classes import Classes, class_axis, classes_of, colour_of, marker_of
from ltr.report.read_run import Run, read_arrays
from ltr.report.style import PALE, figure_file, format_log_axis, set_run_title, use_integer_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE_STYLES = (("#9DB4CC", "-"), ("#5580AA", "--"), ("#12263A", "-"))  # of epochs: early is pale, late is dark


def draws(run: Run, path: Path) -> bool:
    """Draw for each trained stage the sampled images of every class, and the groups' shares over the epochs.

    Returns:
        False if the run stored no counts of its samplers, or its protocol does not report classes.
    """
    classes = classes_of(run)
    stages = stages_of(read_arrays(run.path / "artifacts" / "draws.npz"))
    if classes is None or not stages or any(counts.shape[1] != len(classes) for _, counts in stages.values()):
        return False
    with figure_file(path, 12.4, 0.6 + 4.6 * len(stages)) as figure:
        set_run_title(figure, run)
        for row, (name, (epochs, counts)) in zip(figure.subplots(len(stages), 2, squeeze=False), stages.items()):
            _draw_classes(row[0], classes, epochs, counts)
            _draw_groups(row[1], classes, epochs, counts)
            if len(stages) > 1:
                row[0].set_title(name, loc="left", color=PALE)
    return True


def stages_of(arrays: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return epochs [E] and counts [E, C] of each stage, from the arrays of ``draws.npz``."""
    names = [name.removesuffix(".epochs") for name in arrays if name.endswith(".epochs")]
    return {name: (arrays[f"{name}.epochs"], arrays[f"{name}.counts"]) for name in names if f"{name}.counts" in arrays}


def _draw_classes(axes: Axes, classes: Classes, epochs: np.ndarray, counts: np.ndarray) -> None:
    order = classes.order
    counts_or_nan = np.where(classes.counts > 0, classes.counts, np.nan)
    axes.plot(counts_or_nan[order], color=PALE, linewidth=6, alpha=0.35, label="training images")
    chosen = shown_draws(epochs, counts)
    for (label, row), (colour, linestyle) in zip(chosen.items(), _LINE_STYLES[-len(chosen) :]):
        values = np.where(counts[row] > 0, counts[row], np.nan)
        marker = "o" if len(classes) <= 20 else None
        axes.plot(values[order], color=colour, linestyle=linestyle, marker=marker, markersize=5, label=label)
    axes.set_yscale("log")
    format_log_axis(axes.yaxis, *axes.get_ylim())
    axes.set_ylabel("images (log scale)")
    class_axis(axes, classes)
    axes.legend(loc="best")


def shown_draws(epochs: np.ndarray, counts: np.ndarray) -> dict[str, int]:
    """Return the rows of counts [E, C] to draw, three at most, by their label.

    Consecutive epochs with equal counts, as before and after a deferral, share a line. If these are more than three,
    the first, the middle and the last epoch have the lines.
    """
    changes = np.flatnonzero((counts[1:] != counts[:-1]).any(axis=1)) + 1
    starts = [0, *changes.tolist()]
    if len(starts) == 1:
        return {"sampled in every epoch": 0}
    if len(starts) > len(_LINE_STYLES):
        return {f"sampled in epoch {epochs[row]}": row for row in sorted({0, len(epochs) // 2, len(epochs) - 1})}
    ends = [*(start - 1 for start in starts[1:]), len(epochs) - 1]
    spans = [(epochs[start], epochs[end], start) for start, end in zip(starts, ends)]
    return {f"sampled in epoch {a}" if a == b else f"sampled in epochs {a} to {b}": row for a, b, row in spans}


def _draw_groups(axes: Axes, classes: Classes, epochs: np.ndarray, counts: np.ndarray) -> None:
    totals = np.maximum(counts.sum(axis=1), 1)
    for name in classes.shown_groups():
        in_group = classes.groups == name
        share = 100 * counts[:, in_group].sum(axis=1) / totals
        label = f"{name} ({counted(int(in_group.sum()), 'class', 'classes')})"
        axes.plot(epochs, share, color=colour_of(name), marker=marker_of(name), markersize=6, label=label)
    axes.set_ylim(0, 102)
    axes.set_ylabel("share of the sampled images (%)")
    axes.set_xlabel("epoch")
    use_integer_ticks(axes.xaxis)
    axes.legend(loc="best")
