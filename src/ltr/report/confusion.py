"""Figure: confusions between classes, and the share of errors that go to frequent classes."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltr.evaluation.averages import ratio
from ltr.report.classes import MAX_NAMED, Classes, colour_of, predictions_of, shorten
from ltr.report.read_run import Run
from ltr.report.style import INK, PALE, figure_file, percent, set_run_title, use_integer_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_MATRIX_CLASSES = 100  # at most this many classes are shown as a matrix
MAX_LISTED = 10  # confusions and false positives listed for more classes
_MAX_CELL_NUMBERS = 12  # at most this many classes have percentages in the cells
_CORRECT_COLOUR = "#DDDDDD"


def confusion(run: Run, path: Path) -> bool:
    """Draw the confusion matrix (beyond 100 classes: the most frequent confusions) and the predictions of each group.

    Rows of the matrix are true classes from frequent to rare and sum to 1; the colour scale follows the square root, so
    that rare confusions are visible. A note at each group's bar gives its head-absorption rate, see `absorption`.

    Returns:
        False if the run stored no predictions of its classes.
    """
    evaluated = predictions_of(run)
    if evaluated is None:
        return False
    classes, predictions = evaluated
    total = len(classes)
    cells, counts = np.unique(predictions["label"] * total + predictions["prediction"], return_counts=True)
    true, predicted = cells // total, cells % total
    with figure_file(path, 15.0, 8.0) as figure:
        set_run_title(figure, run)
        grid = figure.add_gridspec(2, 2, width_ratios=[1.55, 1])
        if total <= MAX_MATRIX_CLASSES:
            _draw_matrix(figure, figure.add_subplot(grid[:, 0]), classes, true, predicted, counts)
        else:
            _draw_frequent_confusions(figure.add_subplot(grid[0, 0]), classes, true, predicted, counts)
            _draw_false_positives(figure.add_subplot(grid[1, 0]), classes, true, predicted, counts)
        _draw_groups(figure.add_subplot(grid[:, 1]), classes, true, predicted, counts)
    return True


def absorption(classes: Classes, true: np.ndarray, predicted: np.ndarray, counts: np.ndarray, group: str) -> float:
    """Return a group's head-absorption rate: the share of its errors that are predicted as a many-shot class.

    Args:
        true, predicted: labels int64 [K] of the non-empty cells of the confusion matrix.
        counts: int64 [K], images in them.

    Returns:
        A fraction; NaN if the group has no errors.
    """
    wrong = (true != predicted) & (classes.groups[true] == group)
    return float(ratio(counts[wrong & (classes.groups[predicted] == "many")].sum(), counts[wrong].sum()))


def absorption_by_chance(classes: Classes, group: str) -> float:
    """Return the head-absorption rate of errors spread evenly over the other classes; NaN without other classes."""
    many = int((classes.groups == "many").sum()) - (group == "many")
    return many / (len(classes) - 1) if len(classes) > 1 else math.nan


def _draw_matrix(
    figure: Figure, axes: Axes, classes: Classes, true: np.ndarray, predicted: np.ndarray, counts: np.ndarray
) -> None:
    from matplotlib.colors import PowerNorm

    total, order = len(classes), classes.order
    matrix = np.zeros((total, total))
    matrix[true, predicted] = counts
    matrix = ratio(matrix, matrix.sum(axis=1, keepdims=True))[order][:, order]
    image = axes.imshow(matrix, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.72, pad=0.015, ticks=[0, 0.05, 0.2, 0.5, 1])
    bar.ax.set_yticklabels(["0", "5", "20", "50", "100 %"])
    bar.outline.set_visible(False)
    axes.grid(False)
    if total <= MAX_NAMED:
        names = [shorten(name, 14) for name in classes.names[order]]
        axes.set_xticks(np.arange(total), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(np.arange(total), names)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    if total <= _MAX_CELL_NUMBERS:
        for row, column in zip(*np.nonzero(matrix > 0.005)):
            value = matrix[row, column]
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=11,
                      color="white" if value > 0.3 else INK)  # fmt: skip
    _draw_borders(axes, classes)
    axes.set_ylabel("true class, from frequent to rare", labelpad=14 if total > MAX_NAMED else 4)
    axes.set_xlabel("predicted class", labelpad=14 if total > MAX_NAMED else 4)


def _draw_borders(axes: Axes, classes: Classes) -> None:
    """Draw lines between the groups, and their colours along the left and lower edges."""
    groups = classes.groups[classes.order]
    starts = [0, *(np.flatnonzero(groups[1:] != groups[:-1]) + 1).tolist(), len(groups)]
    width = 0.016 * len(groups)
    for low, high in pairwise(starts):
        style: dict[str, Any] = {"color": colour_of(groups[low]), "clip_on": False, "linewidth": 0}
        axes.bar(-0.5 - width, high - low, bottom=low - 0.5, width=width, align="edge", **style)
        axes.bar(low - 0.5, width, bottom=len(groups) - 0.5, width=high - low, align="edge", **style)
        if low:
            axes.axhline(low - 0.5, color=PALE, linewidth=0.8)
            axes.axvline(low - 0.5, color=PALE, linewidth=0.8)
    axes.set(xlim=(-0.5, len(groups) - 0.5), ylim=(len(groups) - 0.5, -0.5))
    axes.spines[:].set_visible(False)


def _draw_frequent_confusions(
    axes: Axes, classes: Classes, true: np.ndarray, predicted: np.ndarray, counts: np.ndarray
) -> None:
    """Draw the confusions with the most images, in the colour of the true class; ties go to the rarer class."""
    images = np.bincount(true, counts, minlength=len(classes))
    wrong = np.flatnonzero(true != predicted)
    # shares only break ties: in a class of three images, one error is a large share but no evidence
    order = np.lexsort((classes.counts[true[wrong]], -counts[wrong] / images[true[wrong]], -counts[wrong]))
    top = wrong[order[:MAX_LISTED]]
    names = [f"{shorten(classes.names[true[cell]])} → {shorten(classes.names[predicted[cell]])}" for cell in top]
    texts = [f"{counts[cell]} of {images[true[cell]]:.0f}" for cell in top]
    _draw_bars(axes, names, counts[top], texts, [colour_of(classes.groups[true[cell]]) for cell in top])
    axes.set_title("true class → its most frequent wrong prediction", loc="left")


def _draw_false_positives(
    axes: Axes, classes: Classes, true: np.ndarray, predicted: np.ndarray, counts: np.ndarray
) -> None:
    """Draw the classes with the most false positives, in the colours of their groups."""
    wrong = true != predicted
    false_positives = np.bincount(predicted[wrong], counts[wrong], minlength=len(classes)).astype(int)
    top = np.argsort(-false_positives, kind="stable")[:MAX_LISTED]
    top = top[false_positives[top] > 0]
    names = [shorten(classes.names[label], 40) for label in top]
    texts = [f"{false_positives[label]} ({classes.counts[label]:,} training images)" for label in top]
    _draw_bars(axes, names, false_positives[top], texts, [colour_of(classes.groups[label]) for label in top])
    axes.set_title("classes with the most false positives", loc="left")
    axes.set_xlabel("wrongly classified images")


def _draw_bars(axes: Axes, names: list[str], values: np.ndarray, labels: list[str], colours: list[str]) -> None:
    axes.barh(np.arange(len(names)), values, color=colours, height=0.74)
    for row, annotation in enumerate(labels):
        axes.annotate(annotation, (values[row], row), xytext=(4, 0), textcoords="offset points", va="center",
                      fontsize=11, color=INK)  # fmt: skip
    axes.set_yticks(np.arange(len(names)), names, fontsize=11)
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axes.set_xlim(0, 1.45 * max(values, default=1))
    use_integer_ticks(axes.xaxis)
    axes.grid(False, axis="y")


def _draw_groups(axes: Axes, classes: Classes, true: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> None:
    """Draw a bar per true group: correct images, then errors by predicted group."""
    shown = [name for name in classes.shown_groups() if counts[classes.groups[true] == name].sum()]
    is_correct = true == predicted
    for row, name in enumerate(shown):
        in_group = classes.groups[true] == name
        total, left = counts[in_group].sum(), 0.0
        for kind in ("right", *classes.shown_groups()):
            cells = in_group & (is_correct if kind == "right" else ~is_correct & (classes.groups[predicted] == kind))
            width = 100 * counts[cells].sum() / total
            colour = _CORRECT_COLOUR if kind == "right" else colour_of(kind)
            axes.barh(row, width, left=left, height=0.5, color=colour, edgecolor="white", linewidth=1)
            if width >= 7:
                is_light = kind in ("right", "medium")
                axes.text(left + width / 2, row, f"{width:.0f}", ha="center", va="center", fontsize=12,
                          color=INK if is_light else "white")  # fmt: skip
            left += width
        rate, chance_rate = absorption(classes, true, predicted, counts, name), absorption_by_chance(classes, name)
        if rate == rate and 0 < chance_rate < 1:
            text = f"{percent(rate)} of its errors go to many (evenly: {percent(chance_rate)})"
            axes.text(0.6, row + 0.36, text, va="center", fontsize=12, color=INK)
    axes.set_yticks(np.arange(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.3, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the group's test images (%)")
    axes.grid(False, axis="y")
    axes.set_title("predictions of each group's images", loc="left")
    from matplotlib.patches import Patch

    kinds = [Patch(color=_CORRECT_COLOUR, label="right")]
    kinds += [Patch(color=colour_of(name), label=f"wrong: {name}") for name in classes.shown_groups()]
    axes.legend(handles=kinds, loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=4, columnspacing=1.0,
                handlelength=1.2)  # fmt: skip
