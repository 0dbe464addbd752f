"""Figure: predicted frequency of each class against its frequency in training and test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltr.report.classes import MAX_NAMED, Classes, binned_means, class_axis, colour_of, draw_points, predictions_of
from ltr.report.read_run import Run
from ltr.report.style import INK, PALE, draw_mean_line, figure_file, format_log_axis, set_run_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def predicted_prior(run: Run, path: Path) -> bool:
    """Draw the classes' shares of predictions, training images and test images, from frequent to rare.

    The predictions of a classifier that keeps the training set's prior follow the line of the training images, those of
    a classifier without it the line of the test images. More than 20 classes use a log scale; the legend counts the
    classes that are never predicted.

    Returns:
        False if the run stored no predictions of its classes.
    """
    evaluated = predictions_of(run)
    if evaluated is None:
        return False
    classes, predictions = evaluated
    total = len(classes)
    predicted = np.bincount(predictions["prediction"], minlength=total) / len(predictions["prediction"])
    tested = np.bincount(predictions["label"], minlength=total) / len(predictions["label"])
    trained = classes.counts / max(classes.counts.sum(), 1)
    with figure_file(path, 8.6, 5.4) as figure:
        set_run_title(figure, run)
        axes = figure.subplots()
        draw_shares = _draw_bars if total <= MAX_NAMED else _draw_lines
        draw_shares(axes, classes, 100 * predicted, 100 * trained, 100 * tested)
        class_axis(axes, classes)
        axes.set_ylabel("share of the images (%)" if total <= MAX_NAMED else "share of the images (%, log scale)")
        figure.legend(loc="outside lower center", ncols=3, columnspacing=1.4)
    return True


def _draw_bars(axes: Axes, classes: Classes, predicted: np.ndarray, trained: np.ndarray, tested: np.ndarray) -> None:
    ranks, groups = np.arange(len(classes)), classes.groups[classes.order]
    for name in classes.shown_groups():
        in_group = groups == name
        shares = predicted[classes.order][in_group]
        axes.bar(ranks[in_group], shares, width=0.72, color=colour_of(name), label=f"predicted: {name}")
    axes.plot(ranks, trained[classes.order], color=INK, marker="o", markersize=6, label="training images")
    axes.plot(ranks, tested[classes.order], color=PALE, linestyle="--", marker="D", markersize=5, label="test images")
    axes.set_ylim(bottom=0)


def _draw_lines(axes: Axes, classes: Classes, predicted: np.ndarray, trained: np.ndarray, tested: np.ndarray) -> None:
    never_predicted = predicted == 0
    draw_points(axes, classes, np.where(never_predicted, np.nan, predicted))
    for values, label, colour, style in ((trained, "training images", INK, ":"), (tested, "test images", PALE, "--")):
        values_or_nan = np.where(values > 0, values, np.nan)
        axes.plot(values_or_nan[classes.order], label=label, zorder=3, color=colour, linestyle=style)
    label = "predicted, mean" + (f" ({int(never_predicted.sum()):,} classes never)" if never_predicted.any() else "")
    draw_mean_line(axes, *binned_means(predicted[classes.order]), label, zorder=3.1)
    axes.set_yscale("log")
    format_log_axis(axes.yaxis, *axes.get_ylim())
