"""Figure: two-dimensional features with the points and radii of the classes, during training and on test images."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltr.report.read_run import Run, read_arrays
from ltr.report.style import INK, PALE, figure_file, set_run_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Arrays = Mapping[str, np.ndarray]

# Paul Tol's muted scheme, safe for colour-blind readers; more classes repeat the colours
_COLOURS = (
    "#332288", "#DDCC77", "#CC6677", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#661100",
)  # fmt: skip
_SNAPSHOTS = 2  # before the last epoch


def feature_plane(run: Run, path: Path) -> bool:
    """Draw the features of training images after some epochs, then those of known and unknown test images.

    Each class has a colour; its points are crosses. Methods with a radius have a circle around each point, onto which
    the open-space term pulls the features of the class. Unknown images are black dots.

    Returns:
        False if the run stored no two-dimensional features.
    """
    arrays = {name: read_arrays(run.path / "artifacts" / f"{name}.npz") for name in ("representation", "embedding")}
    if "history_features" not in arrays["representation"] or "test_features" not in arrays["embedding"]:
        return False
    trained, evaluated = arrays["representation"], arrays["embedding"]
    epochs = trained["history_epochs"]
    early_snapshots = list(range(len(epochs) - 1))[:_SNAPSHOTS]
    panels = len(early_snapshots) + 2
    with figure_file(path, 4.3 * panels, 5.0) as figure:
        set_run_title(figure, run)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        for panel, snapshot in zip(axes, [*early_snapshots, len(epochs) - 1]):
            features, labels = trained["history_features"][snapshot], trained["history_labels"][snapshot]
            _draw_images(panel, features[labels >= 0], labels[labels >= 0])
            lengths = _lengths(trained, trained["history_radius"][snapshot])
            _draw_class_points(panel, trained["history_points"][snapshot], lengths)
            panel.set_title(f"training images, epoch {epochs[snapshot]}", loc="left", fontsize=12)
        last = axes[-1]
        _draw_images(last, evaluated["test_features"], evaluated["test_labels"])
        if "unknown_features" in evaluated:
            x, y = evaluated["unknown_features"].T
            last.scatter(x, y, s=7, color=INK, alpha=0.6, linewidths=0, zorder=2.5)
        _draw_class_points(last, trained["points"], _lengths(trained, trained.get("radius")))
        last.set_title("test images, known and unknown", loc="left", fontsize=12)
        for panel in axes:
            panel.set_aspect("equal", adjustable="datalim")
        handles = _legend_handles(run, trained["points"].shape[0], trained.get("radius") is not None, evaluated)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3 * panels))
    return True


def _lengths(trained: Arrays, radius: np.ndarray | None) -> np.ndarray:
    """Return radii as lengths in the plane, [C]; NaN without a radius.

    A radius bounds squared distances that the method has divided by ``radius_divisor``.
    """
    classes = trained["points"].shape[0]
    if radius is None:
        return np.full(classes, np.nan)
    squares = np.broadcast_to(radius, classes) * float(trained.get("radius_divisor", 1))
    return np.sqrt(np.where(squares > 0, squares, np.nan))


def _draw_images(axes: Axes, features: np.ndarray, labels: np.ndarray) -> None:
    colours = np.array(_COLOURS)[labels % len(_COLOURS)]
    axes.scatter(features[:, 0], features[:, 1], s=7, c=colours, alpha=0.55, linewidths=0, zorder=2)


def _draw_class_points(axes: Axes, points: np.ndarray, lengths: np.ndarray) -> None:
    """Draw points [C, M, 2] as crosses and radii [C] as circles around them; circles do not extend the axes."""
    from matplotlib.patches import Circle

    for class_points, length, colour in zip(points, lengths, cycle(_COLOURS)):
        axes.scatter(class_points[:, 0], class_points[:, 1], color=colour, marker="X", s=90, edgecolors="white",
                     linewidths=0.9, zorder=4)  # fmt: skip
        if np.isfinite(length):
            for x, y in class_points:
                axes.add_artist(Circle((x, y), length, fill=False, color=colour, alpha=0.45, linewidth=1.2))


def _legend_handles(run: Run, classes: int, has_radius: bool, evaluated: Arrays) -> list[Any]:
    from matplotlib.lines import Line2D

    def mark(label: str, **style: Any) -> Any:
        return Line2D([], [], linestyle="none", label=label, **style)

    handles = []
    if classes <= len(_COLOURS):
        names = run.per_class["class_name"][:classes]
        handles = [mark(str(name), marker="o", markersize=7, color=colour) for name, colour in zip(names, _COLOURS)]
    if "unknown_features" in evaluated:
        handles.append(mark("unknown", marker="o", markersize=5, color=INK))
    handles.append(mark("points of the classes", marker="X", markersize=9, color=PALE))
    if has_radius:
        handles.append(Line2D([], [], color=PALE, alpha=0.6, linewidth=1.2, label="radius"))
    return handles
