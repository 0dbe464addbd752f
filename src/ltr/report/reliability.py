"""Figure: accuracy over confidence, for all classes and for few-shot classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltr.evaluation.averages import calibration_error, ratio
from ltr.report.classes import predictions_of
from ltr.report.read_run import Run
from ltr.report.style import GROUP_COLOURS, INK, PALE, figure_file, percent, set_run_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 15
_ALL = "#6B8CAE"


def reliability(run: Run, path: Path) -> bool:
    """Draw accuracy over confidence in bins of equal width, with the number of images in each bin below.

    A second panel shows the images of few-shot classes, if there are any. The mean distance from the diagonal, weighted
    by the number of images, is the calibration error.

    Returns:
        False if the run stored no predictions of its classes.
    """
    evaluated = predictions_of(run)
    if evaluated is None:
        return False
    classes, predictions = evaluated
    bins = int(run.result["config"].get("evaluation.calibration_bins") or _BINS)
    is_correct = predictions["label"] == predictions["prediction"]
    is_few = (classes.groups == "few")[predictions["label"]]
    panels = [("all", np.ones(len(is_correct), dtype=bool), _ALL), ("few", is_few, GROUP_COLOURS["few"])]
    panels = [panel for panel in panels if panel[1].any()]
    with figure_file(path, 1.2 + 4.4 * len(panels), 5.6) as figure:
        set_run_title(figure, run)
        grid = figure.subplots(2, len(panels), squeeze=False, sharex=True, gridspec_kw={"height_ratios": [3.2, 1]})
        for column, (name, chosen, colour) in enumerate(panels):
            sums = binned_sums(predictions["confidence"][chosen], is_correct[chosen], bins)
            _draw_diagram(grid[0][column], *sums, colour)
            grid[0][column].set_title(f"{name}: calibration error {percent(calibration_error(*sums))}", loc="left")
            _draw_counts(grid[1][column], sums[0], colour)
        grid[0][0].set_ylabel("accuracy (%)")
        grid[1][0].set_ylabel("images (%)")
        grid[0][0].legend(loc="upper left")
    return True


def binned_sums(confidence: np.ndarray, is_correct: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the images, correct images and summed confidence of each bin, as in the calibration error.

    Bins are left-open: (0, 1 / bins] is the first.
    """
    bin_of_image = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return tuple(np.bincount(bin_of_image, weights, minlength=bins) for weights in (None, is_correct, confidence))  # type: ignore[return-value]


def _draw_diagram(axes: Axes, n: np.ndarray, correct: np.ndarray, confidence: np.ndarray, colour: str) -> None:
    edges = np.linspace(0, 100, len(n) + 1)
    has_images = n > 0
    accuracy, mean = (100 * ratio(sums, n)[has_images] for sums in (correct, confidence))
    centres, width = (edges[:-1] + edges[1] / 2)[has_images], 0.92 * edges[1]
    axes.bar(centres, accuracy, width=width, color=colour, label="accuracy")
    axes.bar(centres, mean - accuracy, bottom=accuracy, label="to the mean confidence", width=width, facecolor="none",
             edgecolor=INK, hatch="////", linewidth=0.8)  # fmt: skip
    axes.plot([0, 100], [0, 100], color=PALE, linestyle="--", linewidth=1.6)
    axes.set(xlim=(0, 100), ylim=(0, 104))


def _draw_counts(axes: Axes, n: np.ndarray, colour: str) -> None:
    edges = np.linspace(0, 100, len(n) + 1)
    axes.bar(edges[:-1] + edges[1] / 2, 100 * n / n.sum(), width=0.92 * edges[1], color=colour)
    axes.set_xlabel("confidence (%)")
    axes.set_ylim(bottom=0)
