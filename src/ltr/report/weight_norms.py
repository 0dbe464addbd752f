"""Figure: norms of the classifier's weights from frequent to rare classes, before and after a decoupled method."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ltr.report.classes import MAX_NAMED, binned_means, class_axis, classes_of, draw_points
from ltr.report.read_run import Run, read_arrays
from ltr.report.style import INK, PALE, draw_mean_line, figure_file, set_run_title


def weight_norms(run: Run, path: Path) -> bool:
    """Draw weight norms of the classes over their mean, from frequent to rare (Kang et al., ICLR 2020, figure 2).

    The evaluated classifier has the groups' colours; the classifier that it replaces (in cRT, LWS and
    tau-normalisation) is grey. Norms are divided by their mean, because classifiers differ in scale.

    Returns:
        False if the classifier has no weight norms (cosines, class means), or if the protocol does not report classes.
    """
    classes = classes_of(run)
    norms = read_arrays(run.path / "artifacts" / "class_weights.npz")
    if classes is None or "after" not in norms or len(norms["after"]) != len(classes):
        return False
    with figure_file(path, 8.6, 5.2) as figure:
        set_run_title(figure, run)
        axes = figure.subplots()
        axes.axhline(1, color=PALE, linewidth=1, linestyle=":")
        after = _divided_by_mean(norms["after"])
        is_replaced = "before" in norms
        if is_replaced:
            before = _divided_by_mean(norms["before"])[classes.order]
            if len(classes) <= MAX_NAMED:
                axes.plot(before, color=PALE, linestyle="--", marker="o", markersize=7, markerfacecolor="white",
                          label="before: the representation's")  # fmt: skip
            else:
                axes.plot(before, color=PALE, linestyle="none", marker="o", markersize=3, alpha=0.4)
                axes.plot(*binned_means(before), color=PALE, linestyle="--", linewidth=2.6, marker="o", markersize=6,
                          markerfacecolor="white", label="before: the representation's")  # fmt: skip
        if len(classes) <= MAX_NAMED:
            axes.plot(after[classes.order], color=INK, linewidth=1.6, zorder=2.2)
        else:
            label = f"{'after: ' if is_replaced else ''}mean of neighbouring classes"
            draw_mean_line(axes, *binned_means(after[classes.order]), label, zorder=2.6)
        draw_points(axes, classes, after)
        class_axis(axes, classes)
        axes.set_ylim(0, 1.06 * max(1, *(np.nanmax(_divided_by_mean(values)) for values in norms.values())))
        axes.set_ylabel("norm of the class's weights / mean")
        figure.legend(loc="outside lower center", ncols=3, columnspacing=1.4)
    return True


def _divided_by_mean(norms: np.ndarray) -> np.ndarray:
    mean = np.nanmean(norms)
    return norms / mean if mean > 0 else norms
