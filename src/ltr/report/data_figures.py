"""Figures of a data set before training: class frequencies and sample images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ltr.evaluation.groups import GROUPS, group_of_class, shot_groups
from ltr.report.classes import MAX_NAMED, shorten
from ltr.report.style import GROUP_COLOURS, INK, PALE, figure_file, set_title

_TILE = 1.0  # inches


def class_frequency(
    title: str, class_names: Sequence[str], class_counts: np.ndarray, many_above: int, few_below: int, path: Path
) -> None:
    """Draw training counts of all classes from frequent to rare, on a log scale, coloured by many / medium / few."""
    groups = shot_groups(class_counts, many_above, few_below)
    order = np.argsort(-class_counts, kind="stable")
    counts = class_counts[order]
    names = group_of_class(groups)[order]
    with figure_file(path, 8.6, 5.2) as figure:
        set_title(figure, title)
        axes = figure.subplots()
        ranks = np.arange(len(counts))
        has_names = len(counts) <= MAX_NAMED
        for name in GROUPS:
            ranks_of_group = np.flatnonzero(names == name)
            if len(ranks_of_group):
                colour, label = GROUP_COLOURS[name], f"{name}: {len(ranks_of_group):,} of the classes"
                if has_names:
                    axes.bar(ranks_of_group, counts[ranks_of_group], width=0.8, color=colour, label=label)
                else:  # one shape instead of thousands of bars; the classes of a group are neighbours
                    edges = np.arange(ranks_of_group[0], ranks_of_group[-1] + 2) - 0.5
                    axes.stairs(counts[ranks_of_group], edges, fill=True, baseline=0.1, color=colour, label=label)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7, top=float(counts.max(initial=1)) * (1.6 if has_names else 1.15))
        axes.set_ylabel("training images (log scale)")
        if has_names:
            axes.set_xticks(ranks, [shorten(class_names[label]) for label in order], rotation=40, ha="right")
            for rank, count in enumerate(counts.tolist()):
                axes.annotate(f"{count}", (rank, max(count, 0.7)), xytext=(0, 3), textcoords="offset points",
                              ha="center", color=INK, fontsize=11)  # fmt: skip
        else:
            axes.set_xlabel("classes, from frequent to rare")
            axes.set_xlim(-0.5, len(counts) - 0.5)
        axes.grid(False, axis="x")
        figure.legend(loc="outside lower center", ncols=3)


def contact_sheet(
    title: str, rows: Mapping[str, Sequence[tuple[str, int, Sequence[np.ndarray | None]]]], path: Path
) -> None:
    """Draw the first images of some classes, one row per class.

    Args:
        rows: for ``head``, ``middle`` and ``tail``, the (class name, training images, images uint8 [H, W, 3]) of some
            classes; None marks an unreadable image.
    """
    classes = [(tail_part, *row) for tail_part, classes_of_part in rows.items() for row in classes_of_part]
    columns = max((len(images) for *_, images in classes), default=1)
    width, height = 3.2 + _TILE * columns, 0.7 + _TILE * max(len(classes), 1)
    with figure_file(path, width, height) as figure:
        set_title(figure, title)
        if not classes:
            return
        grid = figure.subplots(len(classes), columns + 1, squeeze=False,
                               gridspec_kw={"width_ratios": [3.0, *[_TILE] * columns]})  # fmt: skip
        for line, (tail_part, name, count, images) in zip(grid, classes):
            for axes in line:
                axes.set_axis_off()
            line[0].text(0, 0.62, shorten(name, 26), va="center", fontsize=12)
            line[0].text(0, 0.28, f"{tail_part}, {count:,} images", va="center", fontsize=10.5, color=PALE)
            for axes, image in zip(line[1:], images):
                if image is None:
                    axes.text(0.5, 0.5, "damaged", ha="center", va="center", fontsize=10, color=PALE)
                else:
                    axes.imshow(image, interpolation="nearest")
