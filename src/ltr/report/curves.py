"""Figure: loss and accuracy during training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltr.evaluation.groups import GROUPS
from ltr.report.read_run import Run, number
from ltr.report.style import (
    GROUP_COLOURS,
    GROUP_MARKERS,
    INK,
    PALE,
    figure_file,
    set_run_title,
    text_width,
    use_integer_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRAIN: dict[str, Any] = {"color": INK}
_MONITORED: dict[str, Any] = {"color": "#228877", "linestyle": "--", "marker": "D"}
_TEST: dict[str, Any] = {"markersize": 15, "markeredgecolor": "white", "linestyle": "none", "zorder": 5}
_PANEL_WIDTH = 3.1  # inches, of the axes of a panel
_NAME_SIZE = 13  # points, of the names of stages


def training_curves(run: Run, path: Path) -> bool:
    """Draw loss, accuracy and, for a monitored split, many / medium / few over the epochs of all trained stages.

    Stars at the last epoch are the results on the test split, unless that is the monitored split.

    Returns:
        False if the run trained no epoch, because all of its stages compute arrays.
    """
    curves = run.curves
    if not curves:
        return False
    epochs, borders = _epochs(curves)
    monitored = next((split for split in ("val", "test") if f"{split}/accuracy" in curves), None)
    panels = 3 if monitored else 2
    with figure_file(path, 4.7 * panels, 4.8) as figure:
        set_run_title(figure, run)
        loss, accuracy, *rest = figure.subplots(1, panels)
        _draw_line(loss, curves, "train/loss", epochs, label="train", **_TRAIN)
        _draw_line(accuracy, curves, "train/accuracy", epochs, 100, label="train", **_TRAIN)
        if monitored:
            _draw_line(loss, curves, f"{monitored}/nll", epochs, label=f"{monitored} (NLL)", **_MONITORED)
            _draw_line(accuracy, curves, f"{monitored}/accuracy", epochs, 100, label=monitored, **_MONITORED)
            _draw_groups(rest[0], curves, monitored, epochs)
        if monitored != "test":
            _draw_result(run, accuracy, rest, float(np.nanmax(epochs)))
        loss.set_ylabel("loss")
        loss.set_ylim(bottom=min(0, loss.get_ylim()[0]))
        accuracy.set_ylabel("accuracy (%)")
        for axes in (accuracy, *rest):
            axes.set_ylim(0, 102)
        has_names = len(borders) > 1 and _names_fit(borders)
        for axes in (loss, accuracy, *rest):
            _finish(axes, borders, has_names)
        if len(borders) > 1 and not has_names:
            _list_stages(figure, borders)
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
    """Draw a column with one line per stage, which continues over epochs without validation."""
    if column not in curves or np.isnan(curves[column]).all():
        return
    known = ~np.isnan(curves[column])
    marker = style.pop("marker", "o")
    label = style.pop("label")
    for stage in dict.fromkeys(curves["stage"][known].tolist()):
        in_stage = known & (curves["stage"] == stage)
        step = max(1, int(in_stage.sum()) // 10)  # some ten markers tell lines apart without their colours
        axes.plot(epochs[in_stage], scale * curves[column][in_stage], marker=marker, markevery=step, markersize=6,
                  label=label, **style)  # fmt: skip
        label = "_"  # once in the legend


def _draw_groups(axes: Axes, curves: dict[str, np.ndarray], monitored: str, epochs: np.ndarray) -> None:
    for name in GROUPS:
        colour, marker = GROUP_COLOURS[name], GROUP_MARKERS[name]
        _draw_line(axes, curves, f"{monitored}/{name}", epochs, 100, label=name, color=colour, marker=marker)
    axes.set_ylabel(f"accuracy on {monitored} (%)")


def _draw_result(run: Run, accuracy: Axes, rest: Sequence[Axes], last_epoch: float) -> None:
    """Draw the headline's metrics on test as stars at the last epoch."""
    if run.headline["split"] != "test":
        return
    stars = [(accuracy, "accuracy", "test, final weights", INK)]
    stars += [
        (axes, name, "test" if name == GROUPS[0] else "_", GROUP_COLOURS[name]) for axes in rest for name in GROUPS
    ]
    for axes, name, label, colour in stars:
        value = number(run.headline["metrics"].get(name))
        if value == value:
            axes.plot([last_epoch], [100 * value], marker="*", color=colour, label=label, **_TEST)


def _names_fit(borders: dict[str, tuple[float, float]]) -> bool:
    """Return whether the name of every stage fits above its epochs."""
    total = max(end for _, end in borders.values())
    return all(
        text_width(stage, _NAME_SIZE) < 0.95 * _PANEL_WIDTH * (end - start) / total
        for stage, (start, end) in borders.items()
    )


def _list_stages(figure: Figure, borders: dict[str, tuple[float, float]]) -> None:
    """List the stages with their epochs below the panels, in as many lines as they need."""
    lines = ["stages:"]
    for stage, (start, end) in borders.items():
        epochs = f"{start + 1:.0f}" if end - start == 1 else f"{start + 1:.0f} to {end:.0f}"
        entry = f"{stage} ({epochs})"
        if text_width(f"{lines[-1]} {entry},", _NAME_SIZE) > 0.95 * figure.get_figwidth():
            lines.append("")
        lines[-1] = f"{lines[-1]} {entry},".lstrip()
    figure.supxlabel("\n".join(lines).rstrip(","), fontsize=_NAME_SIZE, color=PALE)


def _finish(axes: Axes, borders: dict[str, tuple[float, float]], has_names: bool) -> None:
    if len(borders) > 1:
        for stage, (start, end) in borders.items():
            axes.axvline(start, color=PALE, linewidth=1)
            if has_names:
                axes.text((start + end) / 2, 1.01, stage, transform=axes.get_xaxis_transform(), ha="center", color=PALE)
    axes.set_xlim(left=0)
    axes.set_xlabel("epoch")
    use_integer_ticks(axes.xaxis)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
