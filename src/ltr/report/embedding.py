"""Figure: two-dimensional features during training, points and radii of the classes, and unknown images at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltr.report.arrays import read_arrays
from ltr.report.read_run import Run
from ltr.report.style import INK, PALE, figure_file, headline_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Arrays = Mapping[str, np.ndarray]

# safe for all common kinds of colour blindness (Paul Tol's muted scheme); more classes repeat the colours
_COLOURS = (
    "#332288", "#DDCC77", "#CC6677", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#661100",
)  # fmt: skip
_NAMED_CLASSES = len(_COLOURS)
_SNAPSHOTS = 2  # before the last epoch


def feature_plane(run: Run, path: Path) -> bool:
    """Draw the features of training images after some epochs, then those of known and unknown test images.

    Each class has a colour; its points are crosses. Methods with a radius have a circle around each point: the
    open-space term pulls the features of the class onto it. Unknown images are black dots.

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
        headline_title(figure, run)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        for panel, snapshot in zip(axes, [*early_snapshots, len(epochs) - 1]):
            features, labels = trained["history_features"][snapshot], trained["history_labels"][snapshot]
            _draw_images(panel, features[labels >= 0], labels[labels >= 0])
            _draw_class_points(
                panel, trained["history_points"][snapshot], _lengths(trained, trained["history_radius"][snapshot])
            )
            panel.set_title(f"training images, epoch {epochs[snapshot]}", loc="left", fontsize=12)
        last = axes[-1]
        _draw_images(last, evaluated["test_features"], evaluated["test_labels"])
        if "unknown_features" in evaluated:
            unknown_features = evaluated["unknown_features"]
            last.scatter(
                unknown_features[:, 0], unknown_features[:, 1], s=7, color=INK, alpha=0.6, linewidths=0, zorder=2.5
            )
        _draw_class_points(last, trained["points"], _lengths(trained, trained.get("radius")))
        last.set_title("test images, known and unknown", loc="left", fontsize=12)
        for panel in axes:
            panel.set_aspect("equal", adjustable="datalim")
        handles = _legend_handles(run, trained["points"].shape[0], trained.get("radius") is not None, evaluated)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3 * panels))
    return True


def _lengths(trained: Arrays, radius: np.ndarray | None) -> np.ndarray:
    """Return radii as lengths in the plane, [C]; NaN without a radius. R bounds squared distances over the divisor."""
    classes = trained["points"].shape[0]
    if radius is None:
        return np.full(classes, np.nan)
    squares = np.broadcast_to(radius, classes) * float(trained.get("radius_divisor", 1))
    return np.sqrt(np.where(squares > 0, squares, np.nan))


def colour(label: int) -> str:
    """Return the colour of a class."""
    return _COLOURS[label % len(_COLOURS)]


def _draw_images(axes: Axes, features: np.ndarray, labels: np.ndarray) -> None:
    colours = np.array(_COLOURS)[labels % len(_COLOURS)]
    axes.scatter(features[:, 0], features[:, 1], s=7, c=colours, alpha=0.55, linewidths=0, zorder=2)


def _draw_class_points(axes: Axes, points: np.ndarray, lengths: np.ndarray) -> None:
    """Draw points [C, M, 2] as crosses and radii [C] as circles around them; circles do not extend the axes."""
    from matplotlib.patches import Circle

    for label, class_points in enumerate(points):
        style: dict[str, Any] = {"marker": "X", "s": 90, "edgecolors": "white", "linewidths": 0.9, "zorder": 4}
        axes.scatter(class_points[:, 0], class_points[:, 1], color=colour(label), **style)
        if np.isfinite(lengths[label]):
            for x, y in class_points:
                axes.add_artist(
                    Circle((x, y), lengths[label], fill=False, color=colour(label), alpha=0.45, linewidth=1.2)
                )


def _legend_handles(run: Run, classes: int, radius: bool, evaluated: Arrays) -> list[Any]:
    from matplotlib.lines import Line2D

    def mark(label: str, **look: Any) -> Any:
        return Line2D([], [], linestyle="none", label=label, **look)

    handles = []
    if classes <= _NAMED_CLASSES:
        names = run.per_class["class_name"]
        handles = [mark(str(names[c]), marker="o", markersize=7, color=colour(c)) for c in range(classes)]
    if "unknown_features" in evaluated:
        handles.append(mark("unknown", marker="o", markersize=5, color=INK))
    handles.append(mark("points of the classes", marker="X", markersize=9, color=PALE))
    if radius:
        handles.append(Line2D([], [], color=PALE, alpha=0.6, linewidth=1.2, label="radius"))
    return handles
