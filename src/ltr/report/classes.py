"""Classes, shot groups and predictions of a run, for its figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ltr.escaping import one_line
from ltr.evaluation.groups import GROUPS
from ltr.evaluation.metrics import METRICS
from ltr.report.read_run import Run
from ltr.report.style import GROUP_COLOURS, GROUP_MARKERS, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BACKGROUND = "background"
_WITHOUT_CLASSES = ("retrieval", "few_shot")  # protocols with test classes that are not trained
MAX_NAMED = 20  # at most this many classes have their names on an axis
_MAX_LETTERS = 22  # letters of a name
_BINS = 12


@dataclass(frozen=True)
class Classes:
    """Classes of a run, by label.

    Attributes:
        names: str [C].
        counts: int64 [C], training images.
        groups: str [C], many, medium or few; ``background`` for the label 0 of a background split.
    """

    names: np.ndarray
    counts: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def order(self) -> np.ndarray:
        """Labels int64 [C] from frequent to rare."""
        return np.argsort(-self.counts, kind="stable")

    def shown_groups(self) -> list[str]:
        """Return the groups that have classes, the background first."""
        return [name for name in (BACKGROUND, *GROUPS) if (self.groups == name).any()]


def has_classes(run: Run) -> bool:
    """Return whether the headline protocol reports each class.

    Retrieval and few-shot recognition test classes without training images; a user's protocol may omit
    ``per_class.parquet``.
    """
    protocol = run.headline["protocol"]
    is_ours = METRICS.has_protocol(protocol)
    return protocol not in _WITHOUT_CLASSES and (is_ours or (run.path / "per_class.parquet").is_file())


def classes_of(run: Run) -> Classes | None:
    """Return the classes of the headline row, with the background; None if its protocol does not report classes.

    Raises:
        DataError: ``per_class.parquet`` is missing or damaged.
    """
    if not has_classes(run):
        return None
    table = run.per_class
    labels, first_rows = np.unique(table["class_id"], return_index=True)
    names = np.array([str(name) for name in table["class_name"][first_rows]], dtype=object)
    counts = table["train_count"][first_rows].astype(np.int64)
    groups = np.array([str(group) for group in table["group"][first_rows]], dtype=object)
    if run.headline["protocol"] == "background" and labels[0] == 1:
        # the table excludes the background, which has the remaining training images
        rest = run.result.get("data", {}).get("train_images", 0) - int(counts.sum())
        names, groups = np.insert(names, 0, BACKGROUND), np.insert(groups, 0, BACKGROUND)
        counts = np.insert(counts, 0, max(rest, 0))
    return Classes(names, counts, groups)


def predictions_of(run: Run) -> tuple[Classes, dict[str, np.ndarray]] | None:
    """Return a run's classes and its predictions for images of known classes.

    Returns:
        (classes, arrays ``label`` and ``prediction`` int64 [N], ``confidence`` float64 [N] in [0, 1]); None if the
        protocol does not report classes, or if the run stored no predictions.

    Raises:
        DataError: a file is missing or damaged.
    """
    classes = classes_of(run)
    if classes is None or not (run.path / "predictions.parquet").is_file():
        return None
    table = run.predictions
    label, prediction = table["label"].astype(np.int64), table["prediction"].astype(np.int64)
    known = (label >= 0) & (label < len(classes)) & (prediction >= 0) & (prediction < len(classes))
    if not known.any():
        return None
    confidence = np.fromiter((scores[0] for scores in table["scores"]), dtype=np.float64, count=len(label))
    return classes, {"label": label[known], "prediction": prediction[known], "confidence": confidence[known]}


def colour_of(group: str) -> str:
    """Return the colour of a shot group or of the background."""
    return GROUP_COLOURS.get(group, PALE)


def marker_of(group: str) -> str:
    """Return the marker of a shot group or of the background."""
    return GROUP_MARKERS.get(group, "D")


def shorten(name: object, letters: int = _MAX_LETTERS) -> str:
    """Return a class's name; the middle of a long one is left out, because both ends may tell classes apart."""
    text = one_line(name)
    end = letters // 3
    return text if len(text) <= letters else f"{text[: letters - 1 - end]}…{text[-end:]}"


def class_axis(axes: Axes, classes: Classes) -> None:
    """Format an x axis of classes from frequent to rare, numbered from 0; few classes get their names."""
    total = len(classes)
    if total <= MAX_NAMED:
        names = [shorten(name) for name in classes.names[classes.order]]
        axes.set_xticks(np.arange(total), names, rotation=40, ha="right", rotation_mode="anchor")
        margin = max(0, 6 - total) / 2  # keeps the bars of few classes narrow
        axes.set_xlim(-0.6 - margin, total - 0.4 + margin)
        axes.grid(False, axis="x")
    else:
        axes.set_xlim(-0.5 - 0.01 * total, total - 0.5 + 0.01 * total)
        axes.set_xlabel("classes, from frequent to rare")


def binned_means(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centres and means of bins of neighbouring values [C]; NaN are left out."""
    edges = np.linspace(0, len(values), min(_BINS, len(values)) + 1).astype(int)
    centres, means = [], []
    for low, high in pairwise(edges.tolist()):
        part = values[low:high]
        if (part == part).any():
            centres.append((low + high - 1) / 2)
            means.append(float(np.nanmean(part)))
    return np.array(centres), np.array(means)


def draw_points(axes: Axes, classes: Classes, values: np.ndarray) -> None:
    """Draw values [C], by label, as markers in the groups' colours from frequent to rare."""
    is_crowded = len(classes) > 500
    size = float(np.clip(9000 / max(len(classes), 1), 9, 70))
    groups, ordered = classes.groups[classes.order], values[classes.order]
    for name in classes.shown_groups():
        ranks = np.flatnonzero((groups == name) & (ordered == ordered))
        axes.scatter(ranks, ordered[ranks], s=size, color=colour_of(name), marker=marker_of(name),
                     alpha=0.5 if is_crowded else 0.85, linewidths=0, zorder=2.5)  # fmt: skip
        axes.scatter([], [], s=70, marker=marker_of(name), color=colour_of(name), label=name)  # large in the legend
