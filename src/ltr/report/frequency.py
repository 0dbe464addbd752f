"""Figure: accuracy of every class over its number of training images."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltr.evaluation.groups import GROUPS
from ltr.report.classes import has_classes
from ltr.report.read_run import Run
from ltr.report.style import GROUP_COLOURS, GROUP_MARKERS, INK, figure_file, headline_title, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_NAMED_CLASSES = 20  # at most this many classes are named bars
_BINNED_CLASSES = 30  # from this many classes on, binned means are drawn
_BINS = 12


def accuracy_by_frequency(run: Run, path: Path) -> bool:
    """Draw per-class accuracy, coloured by many / medium / few; the legend gives the group means.

    Up to 20 classes are named bars from frequent to rare. More classes are points over the number of training images
    (log scale); coinciding points merge into a larger one. From 30 classes on, a line shows the mean and a band
    the interquartile range in bins of equal width in the logarithm. Classes without evaluated images are left out.

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
        headline_title(figure, run)
        axes = figure.subplots()
        counts = classes["train_count"]
        if len(counts) <= _NAMED_CLASSES:
            _draw_bars(axes, classes)
        elif counts.min() == counts.max():
            _draw_ranked(axes, classes)
        else:
            _draw_over_counts(axes, classes)
        axes.set_ylim(0, 104)
        axes.set_ylabel("accuracy of the class (%)")
        # a legend fills its columns from top to bottom: the groups are to be its first line
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
        axes.annotate(
            f"{height:.0f}",
            (position, height),
            xytext=(0, -3 if is_inside else 3),
            textcoords="offset points",
            ha="center",
            va="top" if is_inside else "bottom",
            color="white" if is_inside and groups[position] != "medium" else INK,
            fontsize=12 if len(order) <= 10 else 10,
        )
    labels = [
        f"{_short(name)} ({count})" for name, count in zip(classes["class_name"][order], classes["train_count"][order])
    ]
    axes.set_xticks(np.arange(len(order)), labels, rotation=40, ha="right", rotation_mode="anchor")
    margin = max(0, 6 - len(order)) / 2  # keeps the bars of few classes narrow
    axes.set_xlim(-0.6 - margin, len(order) - 0.4 + margin)
    axes.grid(False, axis="x")
    axes.set_xlabel("class (training images)")


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= 22 else text[:21] + "…"


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
    axes.invert_xaxis()  # frequent to rare from left to right, as the bars
    axes.set_xlabel("training images of the class (log scale)")


def _draw_points(axes: Axes, x: np.ndarray, accuracy: np.ndarray, groups: np.ndarray) -> None:
    size = float(np.clip(9000 / max(len(x), 1), 9, 60))
    for name in GROUPS:
        in_group = groups == name
        if not in_group.any():
            continue
        coordinates, multiplicity = np.unique(
            np.stack([x[in_group], accuracy[in_group].round(1)]), axis=1, return_counts=True
        )
        axes.scatter(
            coordinates[0],
            coordinates[1],
            s=size * np.minimum(multiplicity, 9),
            c=GROUP_COLOURS[name],
            marker=GROUP_MARKERS[name],
            alpha=0.75 if len(x) < 500 else 0.5,
            linewidths=0,
            clip_on=False,
        )


def _draw_binned_mean(axes: Axes, x: np.ndarray, accuracy: np.ndarray) -> None:
    edges = np.geomspace(x.min(), x.max(), _BINS + 1)
    bin_of_class = np.digitize(x, edges[1:-1])
    bins = [bin_of_class == b for b in range(_BINS) if (bin_of_class == b).any()]
    centres = [np.exp(np.log(x[b]).mean()) for b in bins]
    if len(np.unique(accuracy)) > 10:  # with a handful of test images per class the quartiles only jump
        low, high = np.array([np.percentile(accuracy[b], [25, 75]) for b in bins]).T
        axes.fill_between(centres, low, high, color=INK, alpha=0.15, linewidth=0, label="middle half")
    mean = [accuracy[b].mean() for b in bins]
    axes.plot(centres, mean, color="white", linewidth=5)  # a rim, so that the line stands out from the points
    axes.plot(centres, mean, color=INK, marker="o", markersize=6, label="mean of classes")


def _group_handles(run: Run, table: dict[str, np.ndarray]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    handles = []
    for name in GROUPS:
        classes = int((table["group"] == name).sum())
        text = (
            f"{name} {percent(run.headline['metrics'].get(name))} ({classes} {'class' if classes == 1 else 'classes'})"
        )
        colour, marker = GROUP_COLOURS[name], GROUP_MARKERS[name]
        handles.append(Line2D([], [], linestyle="", markersize=10, label=text, color=colour, marker=marker))
    return handles
