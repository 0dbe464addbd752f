"""Figure: loss and accuracy during training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltr.evaluation.groups import GROUPS
from ltr.report.read_run import Run
from ltr.report.style import GROUP_COLOURS, GROUP_MARKERS, INK, PALE, figure_file, headline_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAIN: dict[str, Any] = {"color": INK}
_MONITORED: dict[str, Any] = {"color": "#228877", "linestyle": "--", "marker": "D"}


def training_curves(run: Run, path: Path) -> bool:
    """Draw loss, accuracy and, for a monitored split, many / medium / few over the epochs of all trained stages.

    Returns:
        False if the run trained no epoch (all of its stages were computed).
    """
    curves = run.curves
    if not curves:
        return False
    epochs, borders = _epochs(curves)
    monitored = next((split for split in ("val", "test") if f"{split}/accuracy" in curves), None)
    panels = 3 if monitored else 2
    with figure_file(path, 4.7 * panels, 4.8) as figure:
        headline_title(figure, run)
        loss, accuracy, *rest = figure.subplots(1, panels)
        _draw_line(loss, curves, "train/loss", epochs, label="train", **_TRAIN)
        _draw_line(accuracy, curves, "train/accuracy", epochs, 100, label="train", **_TRAIN)
        if monitored:
            _draw_line(loss, curves, f"{monitored}/nll", epochs, label=f"{monitored} (NLL)", **_MONITORED)
            _draw_line(accuracy, curves, f"{monitored}/accuracy", epochs, 100, label=monitored, **_MONITORED)
            _draw_groups(rest[0], curves, monitored, epochs)
        loss.set_ylabel("loss")
        loss.set_ylim(bottom=min(0, loss.get_ylim()[0]))
        accuracy.set_ylabel("accuracy (%)")
        for axes in (accuracy, *rest):
            axes.set_ylim(0, 102)
        for axes in (loss, accuracy, *rest):
            _finish(axes, borders)
    return True


def _epochs(curves: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, tuple[float, float]]]:
    """Return the epoch of every row, counted across all stages, and the first and last epoch of each stage."""
    epochs = curves["epoch"].copy()
    borders: dict[str, tuple[float, float]] = {}
    start = 0.0
    for stage in dict.fromkeys(curves["stage"].tolist()):
        in_stage = curves["stage"] == stage
        epochs[in_stage] += start
        borders[stage] = (start, float(np.nanmax(epochs[in_stage])))
        start = borders[stage][1]
    return epochs, borders


def _draw_line(
    axes: Axes, curves: dict[str, np.ndarray], column: str, epochs: np.ndarray, scale: float = 1, **style: Any
) -> None:
    """Draw one column, interrupted between stages but not at blanks (epochs without validation)."""
    if column not in curves or np.isnan(curves[column]).all():
        return
    known = ~np.isnan(curves[column])
    marker = style.pop("marker", "o")
    label = style.pop("label")
    for stage in dict.fromkeys(curves["stage"][known].tolist()):
        in_stage = known & (curves["stage"] == stage)
        marker_step = max(
            1, int(in_stage.sum()) // 10
        )  # a marker on each tenth, so that lines differ without their colours
        axes.plot(
            epochs[in_stage],
            scale * curves[column][in_stage],
            marker=marker,
            markevery=marker_step,
            markersize=6,
            label=label,
            **style,
        )
        label = "_"  # once in the legend


def _draw_groups(axes: Axes, curves: dict[str, np.ndarray], monitored: str, epochs: np.ndarray) -> None:
    for name in GROUPS:
        colour, marker = GROUP_COLOURS[name], GROUP_MARKERS[name]
        _draw_line(axes, curves, f"{monitored}/{name}", epochs, 100, label=name, color=colour, marker=marker)
    axes.set_ylabel(f"accuracy on {monitored} (%)")


def _finish(axes: Axes, borders: dict[str, tuple[float, float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    if len(borders) > 1:
        for stage, (start, end) in borders.items():
            axes.axvline(start, color=PALE, linewidth=1)
            axes.text((start + end) / 2, 1.01, stage, transform=axes.get_xaxis_transform(), ha="center", color=PALE)
    axes.set_xlim(left=0)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
