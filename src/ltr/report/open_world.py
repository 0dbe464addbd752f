"""Figures of open-world protocols: precision over recall, known against unknown, and score histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltr.evaluation.metrics import METRICS
from ltr.report.columns import value_text
from ltr.report.read_run import Run, number, read_arrays
from ltr.report.style import GROUP_COLOURS, INK, PALE, figure_file, percent, set_run_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = Mapping[str, np.ndarray]

_FEW_IMAGES = 3000  # histograms of fewer images have wider bins
_NAMED_CLASSES = 10  # at most this many classes have their own line and name
_LINES: tuple[dict[str, Any], ...] = (  # one per scorer, distinguishable without colours
    {"color": "#004488", "linestyle": "-"},
    {"color": "#BB5566", "linestyle": "--"},
    {"color": "#DDAA33", "linestyle": "-."},
    {"color": INK, "linestyle": ":"},
    {"color": "#66AA88", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
)
_MARKERS = ("o", "s", "^", "D", "v")  # of scorers beyond these lines
_DASHES = ("-", "--", ":", "-.")
_SHADES = ((INK, 0.0), (INK, 0.5), ("white", 0.45))  # a colour and its share in the mixture with a group's colour
_KINDS = {
    "correct": ("known, right", "#004488"),
    "wrong": ("known, wrong", "#DDAA33"),
    "unknown": ("unknown", "#BB5566"),
    "foreground": ("foreground", "#BB5566"),
    "background": ("background", PALE),
}


def known_and_unknown(run: Run, path: Path) -> bool:
    """Draw ROC and open-set classification rate, one line per scorer of the headline's variant.

    Returns:
        False if the run was not evaluated by the open-set protocol, or had no unknown images.
    """
    evaluated = [(row, curves) for row, curves in curves_of(run, "open_set") if "roc_fpr" in curves]
    if not evaluated:
        return False
    with figure_file(path, 11.2, 5.2) as figure:
        set_run_title(figure, run)
        roc, oscr = figure.subplots(1, 2)
        for index, (row, curves) in enumerate(evaluated):
            line = _line_of_scorer(index)
            auroc, oscr_area = (f"{row['scorer']}: {percent(row['metrics'].get(name))}" for name in ("auroc", "oscr"))
            roc.plot(curves["roc_fpr"], curves["roc_tpr"], label=auroc, **line)
            oscr.plot(curves["oscr_fpr"], curves["oscr_ccr"], label=oscr_area, **line)
        accuracy = float(evaluated[0][1]["accuracy"])
        oscr.axhline(accuracy, color=PALE, linestyle=":", linewidth=1.4)
        title = METRICS.find("closed_set_accuracy", "open_set").title
        oscr.annotate(title, (0, accuracy), xytext=(4, 4), textcoords="offset points", color=PALE)
        for axes, metric, ylabel in ((roc, "auroc", "known accepted"), (oscr, "oscr", "known accepted and right")):
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.06), xlabel="unknown accepted", ylabel=ylabel)
            axes.legend(loc="lower right", title=METRICS.find(metric, "open_set").heading)
    return True


def _line_of_scorer(index: int) -> dict[str, Any]:
    """Return the style of a scorer's line; after the last style they begin again, thinner and with markers."""
    turn, position = divmod(index, len(_LINES))
    again = {"linewidth": 1.2, "marker": _MARKERS[(turn - 1) % len(_MARKERS)], "markevery": 0.1, "markersize": 5}
    return {**_LINES[position], **(again if turn else {})}


def score_histogram(run: Run, path: Path) -> bool:
    """Draw score histograms of correct known, misclassified known and unknown images, one panel per scorer.

    Heights are shares of all known or of all unknown images. The thresholds of the evaluated decisions are vertical
    lines.

    Returns:
        False if the run was not evaluated by the open-set protocol.
    """
    evaluated = curves_of(run, "open_set")
    if not evaluated:
        return False
    with figure_file(path, 1.2 + 5.2 * len(evaluated), 4.8) as figure:
        set_run_title(figure, run)
        for axes, (row, curves) in zip(figure.subplots(1, len(evaluated), squeeze=False)[0], evaluated):
            _histogram(axes, curves, (("correct", "wrong"), ("unknown",)))
            low, high = curves["histogram_edges"][[0, -1]]
            for source, style in zip(("validation", "fixed", "oracle"), ("-", "--", ":")):
                threshold = float(curves[f"threshold_{source}"])
                if low <= threshold <= high:
                    axes.axvline(threshold, color=INK, linestyle=style, linewidth=1.4, label=f"threshold: {source}")
            axes.set_title(str(row["scorer"]), loc="left")
            axes.set_xlabel(str(curves.get("score_label", f"score of {row['scorer']}")))
            axes.set_ylabel("share of known, of unknown (%)")
        axes.legend(loc="best", fontsize=10.5)
    return True


def precision_recall(run: Run, path: Path) -> bool:
    """Draw precision over recall of every foreground class in its group's colour, and the mean over classes.

    The lines are step functions: the area under a class's line is its average precision, and that under the mean line
    the mAP, up to the points that were left out to save space.

    Returns:
        False if the run was not evaluated by the background protocol, or no foreground class had images.
    """
    evaluated = curves_of(run, "background")
    if not evaluated or not evaluated[0][1]["pr_recall"].size or np.isnan(evaluated[0][1]["pr_recall"]).all():
        return False
    row, curves = evaluated[0]
    names, groups = _class_names(run, curves)
    with figure_file(path, 8.2, 6.0) as figure:
        set_run_title(figure, run)
        axes = figure.subplots()
        has_names = len(names) <= _NAMED_CLASSES
        styles = _line_styles(groups) if has_names else [{"color": GROUP_COLOURS[group]} for group in groups]
        grid, means = np.linspace(0, 1, 501)[1:], []
        for index, (recall, precision) in enumerate(zip(curves["pr_recall"], curves["pr_precision"])):
            is_present = ~np.isnan(recall)
            if not is_present.any():
                continue
            recall, precision = recall[is_present], precision[is_present]
            means.append(precision[np.minimum(np.searchsorted(recall, grid), len(recall) - 1)])
            label = f"{names[index]} {percent(float(curves['average_precision'][index]))}" if has_names else None
            axes.plot(np.concatenate([[0], recall]), np.concatenate([precision[:1], precision]), drawstyle="steps-pre",
                      label=label, alpha=0.9 if has_names else 0.3, linewidth=2 if has_names else 1,
                      **styles[index])  # fmt: skip
        label = f"mean, {METRICS.find('map', 'background').heading} {_map(row)}"
        axes.plot(grid, np.mean(means, axis=0), color=INK, linewidth=2.8, label=label)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03), xlabel="recall", ylabel="precision")
        if not has_names:
            for group in dict.fromkeys(groups):
                axes.plot([], [], color=GROUP_COLOURS[group], label=f"{group} {_map(row, group)}")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=10.5)
    return True


def background_histogram(run: Run, path: Path) -> bool:
    """Draw histograms of the best foreground score of background and foreground images, counts on a log scale.

    Returns:
        False if the run was not evaluated by the background protocol.
    """
    evaluated = curves_of(run, "background")
    if not evaluated:
        return False
    with figure_file(path, 1.2 + 5.2 * len(evaluated), 4.8) as figure:
        set_run_title(figure, run)
        for axes, (row, curves) in zip(figure.subplots(1, len(evaluated), squeeze=False)[0], evaluated):
            _histogram(axes, curves, (("background",), ("foreground",)), shares=False)
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.7)
            metric = METRICS.find("false_alarms_per_thousand", "background")
            alarms = value_text(metric, number(row["metrics"].get(metric.name)))
            axes.set_title(f"{row['scorer']}: {alarms} {metric.title}", loc="left", fontsize=12)
            axes.set_xlabel(str(curves.get("score_label", f"score of {row['scorer']}")))
            axes.set_ylabel("images (log scale)")
        axes.legend(loc="upper right")
    return True


OPEN_WORLD_FIGURES = {
    "known_and_unknown": known_and_unknown,
    "score_histogram": score_histogram,
    "precision_recall": precision_recall,
    "background_histogram": background_histogram,
}


def curves_of(run: Run, protocol: str) -> list[tuple[dict[str, Any], Curves]]:
    """Return a protocol's test rows with their curves, one per scorer, of the run's headline variant.

    Raises:
        DataError: a file of curves is damaged.
    """
    rows: list[tuple[dict[str, Any], Curves]] = []
    seen = set()
    variant = run.headline.get("variant")
    for row in run.result["rows"]:
        scorer = row.get("scorer")
        is_selected = row["protocol"] == protocol and row["split"] == "test" and row.get("variant") == variant
        if not is_selected or scorer in seen:
            continue
        seen.add(scorer)
        name = "_".join(filter(None, (protocol, variant, scorer)))
        if curves := read_arrays(run.path / "artifacts" / f"{name}.npz"):
            rows.append((row, curves))
    return rows


def _line_styles(groups: Sequence[str]) -> list[dict[str, Any]]:
    """Return colour and dashes of each class's line: shades of its group's colour, for up to 12 classes a group."""
    from matplotlib.colors import to_rgb

    styles: list[dict[str, Any]] = []
    for index, group in enumerate(groups):
        shade, dashes = divmod(groups[:index].count(group), len(_DASHES))
        added, share = _SHADES[shade]
        colour = (1 - share) * np.array(to_rgb(GROUP_COLOURS[group])) + share * np.array(to_rgb(added))
        styles.append({"color": tuple(colour), "linestyle": _DASHES[dashes]})
    return styles


def _histogram(axes: Axes, curves: Curves, parts: tuple[tuple[str, ...], ...], shares: bool = True) -> None:
    """Draw histograms of several kinds of images: their counts, or with ``shares`` percentages of each part."""
    edges = curves["histogram_edges"]
    width = 3 if sum(curves[f"histogram_{kind}"].sum() for part in parts for kind in part) < _FEW_IMAGES else 1
    for part in parts:
        total = sum(int(curves[f"histogram_{kind}"].sum()) for kind in part)
        for kind in part:
            counts = curves[f"histogram_{kind}"].reshape(-1, width).sum(axis=1)
            if counts.sum():
                label, colour = _KINDS[kind]
                heights = 100 * counts / total if shares else counts
                text = f"{label} ({counts.sum():,})"
                axes.stairs(heights, edges[::width], color=colour, linewidth=2, label=text, fill=False)
                axes.stairs(heights, edges[::width], color=colour, alpha=0.18, fill=True)


def _class_names(run: Run, curves: Curves) -> tuple[list[str], list[str]]:
    """Return names and shot groups of the classes of the curves."""
    table = run.per_class
    row_of_class = {class_id: row for row, class_id in enumerate(table["class_id"].tolist())}
    rows = [row_of_class[class_id] for class_id in curves["pr_class_id"].tolist()]
    return [str(table["class_name"][row]) for row in rows], [str(table["group"][row]) for row in rows]


def _map(row: Mapping[str, Any], group: str = "") -> str:
    return percent(row["metrics"].get("_".join(filter(None, ("map", group)))))
