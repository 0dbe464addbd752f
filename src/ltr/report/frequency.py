"""Figure: accuracy of every class over its number of training images."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltr.evaluation.groups import GROUPS
from ltr.names import counted
from ltr.report.classes import MAX_NAMED, has_classes, shorten
from ltr.report.read_run import Run
from ltr.report.style import GROUP_COLOURS, GROUP_MARKERS, INK, draw_mean_line, figure_file, percent, set_run_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_BINNED_CLASSES = 30  # from this many classes on, binned means are drawn
_BINS = 12


def accuracy_by_frequency(run: Run, path: Path) -> bool:
    """Draw per-class accuracy, coloured by many / medium / few; the legend gives the group means.

    Up to 20 classes are named bars from frequent to rare. More classes are points over the number of training images
    (log scale); equal points are drawn as one larger point. From 30 classes on, a line shows the means of bins of equal
    width on the log scale, and a band their interquartile ranges. Classes without evaluated images are left out.

    Returns:
        False if the protocol does not report classes (retrieval, few-shot).
    """
    if not has_classes(run):
        return False
    table = run.per_class
    shown = table["n"] > 0
    classes = {name: table[name][shown] for name in ("class_name", "train_count", "group")}
    classes["accuracy"] = 100 * table["accuracy"][shown]
    with figure_file(path, 8.6, 5.6) as figure:
        set_run_title(figure, run)
        axes = figure.subplots()
        counts = classes["train_count"]
        if len(counts) <= MAX_NAMED:
            _draw_bars(axes, classes)
        elif counts.min() == counts.max():
            _draw_ranked(axes, classes)
        else:
            _draw_over_counts(axes, classes)
        axes.set_ylim(0, 104)
        axes.set_ylabel("accuracy of the class (%)")
        # a legend fills its columns from top to bottom: this order puts the groups into its first row
        lines = zip_longest(_group_handles(run, table), axes.get_legend_handles_labels()[0])
        handles = [handle for pair in lines for handle in pair if handle is not None]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.4, handletextpad=0.4)
    return True


def _draw_bars(axes: Axes, classes: dict[str, np.ndarray]) -> None:
    order = np.argsort(-classes["train_count"], kind="stable")
    accuracy = classes["accuracy"][order]
    groups = [str(group) for group in classes["group"][order]]
    axes.bar(np.arange(len(order)), accuracy, color=[GROUP_COLOURS[group] for group in groups], width=0.78)
    for position, height in enumerate(accuracy):
        is_inside = height > 90  # leaves no room above the bar
        axes.annotate(f"{height:.0f}", (position, height), xytext=(0, -3 if is_inside else 3),
                      textcoords="offset points", ha="center", va="top" if is_inside else "bottom",
                      color="white" if is_inside and groups[position] != "medium" else INK,
                      fontsize=12 if len(order) <= 10 else 10)  # fmt: skip
    names, counts = classes["class_name"][order], classes["train_count"][order]
    labels = [f"{shorten(name)} ({count})" for name, count in zip(names, counts)]
    axes.set_xticks(np.arange(len(order)), labels, rotation=40, ha="right", rotation_mode="anchor")
    margin = max(0, 6 - len(order)) / 2  # keeps the bars of few classes narrow
    axes.set_xlim(-0.6 - margin, len(order) - 0.4 + margin)
    axes.grid(False, axis="x")
    axes.set_xlabel("class (training images)")


def _draw_ranked(axes: Axes, classes: dict[str, np.ndarray]) -> None:
    """Draw accuracies over their rank, for classes of equal counts."""
    order = np.argsort(-classes["accuracy"], kind="stable")
    _draw_points(axes, np.arange(1, len(order) + 1), classes["accuracy"][order], classes["group"][order])
    axes.set_xlabel(f"class, best to worst; all have {classes['train_count'][0]} training images")


def _draw_over_counts(axes: Axes, classes: dict[str, np.ndarray]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    x = np.maximum(classes["train_count"], 0.5)  # a class without training images is left of 1
    _draw_points(axes, x, classes["accuracy"], classes["group"])
    if len(x) >= _BINNED_CLASSES:
        _draw_binned_mean(axes, x, classes["accuracy"])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "0" if value < 1 else f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.invert_xaxis()  # from frequent to rare, as the bars
    axes.set_xlabel("training images of the class (log scale)")


def _draw_points(axes: Axes, x: np.ndarray, accuracy: np.ndarray, groups: np.ndarray) -> None:
    size = float(np.clip(9000 / max(len(x), 1), 9, 60))
    for name in GROUPS:
        in_group = groups == name
        if not in_group.any():
            continue
        points = np.stack([x[in_group], accuracy[in_group].round(1)])
        points, multiplicity = np.unique(points, axis=1, return_counts=True)
        axes.scatter(points[0], points[1], s=size * np.minimum(multiplicity, 9), c=GROUP_COLOURS[name],
                     marker=GROUP_MARKERS[name], alpha=0.75 if len(x) < 500 else 0.5, linewidths=0,
                     clip_on=False)  # fmt: skip


def _draw_binned_mean(axes: Axes, x: np.ndarray, accuracy: np.ndarray) -> None:
    edges = np.geomspace(x.min(), x.max(), _BINS + 1)
    bin_of_class = np.digitize(x, edges[1:-1])
    bins = [bin_of_class == b for b in range(_BINS) if (bin_of_class == b).any()]
    centres = [np.exp(np.log(x[b]).mean()) for b in bins]
    if len(np.unique(accuracy)) > 10:  # with few test images per class, the quartiles jump between few values
        low, high = np.array([np.percentile(accuracy[b], [25, 75]) for b in bins]).T
        axes.fill_between(centres, low, high, color=INK, alpha=0.15, linewidth=0, label="middle half")
    draw_mean_line(axes, centres, [accuracy[b].mean() for b in bins], "mean of classes")


def _group_handles(run: Run, table: dict[str, np.ndarray]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    handles = []
    for name in GROUPS:
        classes = counted(int((table["group"] == name).sum()), "class", "classes")
        text = f"{name} {percent(run.headline['metrics'].get(name))} ({classes})"
        colour, marker = GROUP_COLOURS[name], GROUP_MARKERS[name]
        handles.append(Line2D([], [], linestyle="", markersize=10, label=text, color=colour, marker=marker))
    return handles
