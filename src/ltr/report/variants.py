"""Figure: accuracy over a parameter that one run evaluated at several values, such as tau of tau-normalisation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltr.evaluation.groups import GROUPS
from ltr.evaluation.metrics import METRICS
from ltr.report.read_run import Run, number
from ltr.report.style import GROUP_COLOURS, GROUP_MARKERS, INK, PALE, figure_file, set_run_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SPLITS = ("test", "val")
_BALANCED_ACCURACY = METRICS.find("balanced_accuracy", "closed_set")


def variant_curve(run: Run, path: Path) -> bool:
    """Draw balanced, many-, medium- and few-shot accuracy over the values, in a panel for test and one for validation.

    A vertical line marks the value of the headline row.

    Returns:
        False if the variants are not two or more values of one parameter.
    """
    name, curves = curves_of(run.result)
    if not curves or len(next(iter(curves.values()))["value"]) < 2:
        return False
    splits = [split for split in _SPLITS if split in curves]
    headline_value = number_of(run.headline["variant"])
    with figure_file(path, 5.6 * len(splits), 4.8) as figure:
        set_run_title(figure, run)
        panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
        for axes, split in zip(panels, splits):
            _draw_lines(axes, curves[split])
            axes.axvline(headline_value, color=PALE, linestyle=":", linewidth=1.6)
            is_right = headline_value > np.mean(axes.get_xlim())  # annotate on the side with more room
            axes.annotate(f"{name} = {headline_value:g}", (headline_value, 0.02), xycoords=("data", "axes fraction"),
                          xytext=(-4 if is_right else 4, 0), textcoords="offset points",
                          ha="right" if is_right else "left", color=PALE, fontsize=11)  # fmt: skip
            axes.set_title(split, loc="left")
            axes.set_xlabel(name)
        panels[0].set_ylabel("accuracy (%)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return True


def number_of(variant: str) -> float:
    """Return 0.35 for ``tau=0.35``; NaN for a variant without a value."""
    try:
        return float(variant.partition("=")[2])
    except ValueError:
        return math.nan


def curves_of(result: dict[str, Any]) -> tuple[str, dict[str, dict[str, np.ndarray]]]:
    """Return the name of the parameter that the variants set, and the metrics over its values.

    Returns:
        (name, for each split the arrays ``value``, ascending, and one per metric, fractions; all float64 [values]);
        ``("", {})`` if the variants are not values of one parameter.
    """
    rows = [row for row in result["rows"] if "=" in row["variant"]]
    names = {row["variant"].partition("=")[0] for row in rows}
    if len(names) != 1 or any(np.isnan(number_of(row["variant"])) for row in rows):
        return "", {}
    rows.sort(key=lambda row: number_of(row["variant"]))
    curves: dict[str, dict[str, np.ndarray]] = {}
    for split in dict.fromkeys(row["split"] for row in rows):
        rows_of_split = [row for row in rows if row["split"] == split]
        curves[split] = {"value": np.array([number_of(row["variant"]) for row in rows_of_split])}
        for metric in (_BALANCED_ACCURACY.name, *GROUPS):
            curves[split][metric] = np.array([number(row["metrics"].get(metric)) for row in rows_of_split])
    return names.pop(), curves


def _draw_lines(axes: Axes, curve: dict[str, np.ndarray]) -> None:
    values, balanced = curve["value"], 100 * curve[_BALANCED_ACCURACY.name]
    axes.plot(values, balanced, color=INK, linewidth=2.8, label=_BALANCED_ACCURACY.title)
    for group in GROUPS:
        if not np.isnan(curve[group]).all():
            axes.plot(values, 100 * curve[group], label=group, color=GROUP_COLOURS[group], marker=GROUP_MARKERS[group],
                      markersize=5)  # fmt: skip
