"""Decisions: class thresholds and conformal sets, chosen on validation images, stored with a run and applied."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltr.apply.decision_rules import Levels
from ltr.errors import CheckpointError, DataError
from ltr.evaluation.deciding import (
    NEVER,
    class_decisions,
    conformal_thresholds,
    decide,
    decision_metrics,
    images_needed,
    precision_thresholds,
    recall_thresholds,
    set_metrics,
)
from ltr.evaluation.decision_file import FILE, FORMAT, VERSION, read_entries
from ltr.files import file_digest, write_json
from ltr.names import counted

_SEPARATOR = "|"  # between the classes of a set
_SHOWN = 10


@dataclass(frozen=True)
class Decider:
    """Thresholds of a network.

    Attributes:
        class_names: class names in the order of the thresholds.
        thresholds: float64 [C], thresholds of decisions; None without decisions.
        set_thresholds: float64 [C], thresholds of conformal sets; None without sets.
    """

    class_names: tuple[str, ...]
    thresholds: np.ndarray | None
    set_thresholds: np.ndarray | None

    def decisions(self, predicted: np.ndarray, highest: np.ndarray) -> list[str]:
        """Return the decided class of each image by name; '' for abstention."""
        assert self.thresholds is not None
        return [
            self.class_names[label] if label >= 0 else ""
            for label in class_decisions(predicted, highest, self.thresholds).tolist()
        ]

    def sets(self, probabilities: np.ndarray) -> list[str]:
        """Return the class names of each image's set, separated by ``|``; '' for an empty set."""
        assert self.set_thresholds is not None
        members = probabilities >= self.set_thresholds
        return [_SEPARATOR.join(self.class_names[label] for label in np.flatnonzero(row).tolist()) for row in members]


def choose(
    rules: Mapping[str, Levels], probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Decider:
    """Choose thresholds on validation images.

    Args:
        probabilities: [N, C] of validation images.
        labels: int64 [N].

    Raises:
        ConfigError: levels of an unknown class, or a class without one.
        DataError: a class has too few images for its level.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    levels = {rule: of_rule.array(rule, class_names) for rule, of_rule in rules.items()}
    for rule, wanted in levels.items():
        _refuse_few_images(rule, wanted, counts, class_names)
    choices = {"precision": precision_thresholds, "recall": recall_thresholds}
    chosen = [choices[rule](probabilities, labels, wanted) for rule, wanted in levels.items() if rule in choices]
    sets = conformal_thresholds(probabilities, labels, levels["coverage"]) if "coverage" in levels else None
    return Decider(tuple(class_names), chosen[0] if chosen else None, sets)


def _refuse_few_images(rule: str, levels: np.ndarray, counts: np.ndarray, class_names: Sequence[str]) -> None:
    """Raise DataError if classes have too few validation images for their levels."""
    needed = np.array([images_needed(level) for level in levels.tolist()])
    small = np.flatnonzero(counts < needed)
    if not small.size:
        return
    names = ", ".join(f"{class_names[label]} ({counts[label]:,})" for label in small[:_SHOWN].tolist())
    least = int(counts[small].min())
    highest = f"{math.floor(1000 * least / (least + 1)) / 1000:g}"
    advice = f"Give a level of at most {highest}, or train" if least else "Train"
    if len(set(levels.tolist())) == 1:
        demand = f"--decide {rule}={levels[0]:g} needs {counted(int(needed[0]), 'validation image')} of each class"
    else:
        first = int(small[0])
        demand = (
            f"--decide {rule}: the level {levels[first]:g} of {class_names[first]} needs "
            f"{counted(int(needed[first]), 'validation image')}"
        )
    raise DataError(
        f"{demand}, and {counted(small.size, 'class has', 'classes have')} fewer: {names}"
        f"{', ...' if small.size > _SHOWN else ''}. {advice} with more validation images of each class "
        "(dataset.val=train_fraction and a larger dataset.val_fraction)"
    )


def measure(
    decider: Decider, probabilities: np.ndarray, labels: np.ndarray, background: int | None
) -> dict[str, dict[str, Any]]:
    """Return the metrics of ``decisions`` and ``sets`` on labelled images, as plain data; NaN becomes None."""
    measured: dict[str, dict[str, Any]] = {}
    if decider.thresholds is not None:
        decision = decide(probabilities, decider.thresholds)
        measured["decisions"] = decision_metrics(decision, labels, len(decider.class_names), background)
    if decider.set_thresholds is not None:
        measured["sets"] = set_metrics(probabilities, labels, decider.set_thresholds)
    return {name: _plain(metrics) for name, metrics in measured.items()}


def write_decisions(
    run: Path, checkpoint: Path, decider: Decider, rules: Mapping[str, Levels], measured: Mapping[str, Any]
) -> Path:
    """Store the decisions of a checkpoint in its run's file, and keep those of other checkpoints; return the path.

    Args:
        measured: metrics of each part of the split, see `measure`.
    """
    path = run / FILE
    stored = read_entries(path) if path.is_file() else {}
    # an entry of the same checkpoint with another digest is of overwritten weights
    entries = {digest: entry for digest, entry in stored.items() if entry.get("checkpoint") != checkpoint.name}
    entries[file_digest(checkpoint)] = {
        "checkpoint": checkpoint.name,
        "rules": {rule: levels.common for rule, levels in rules.items()},
        "class_levels": {rule: levels.by_class for rule, levels in rules.items() if levels.by_class},
        "class_names": list(decider.class_names),
        "thresholds": _plain(decider.thresholds),  # null: never decided
        "set_thresholds": _plain(decider.set_thresholds),
        "measured": dict(measured),
    }
    write_json(path, {"format": FORMAT, "version": VERSION, "weights": entries})
    return path


def decisions_file(checkpoint: Path) -> Path | None:
    """Return the file with the decisions of a run's checkpoints; None without one."""
    folder = checkpoint.absolute().parent
    path = folder.parent / FILE
    return path if folder.name == "checkpoints" and path.is_file() else None


def read_decisions(path: Path, checkpoint: Path, class_names: Sequence[str]) -> Decider | None:
    """Return the decisions for a checkpoint's weights; None if the file has none for them.

    Raises:
        CheckpointError: the file is damaged.
    """
    entry = read_entries(path).get(file_digest(checkpoint))
    if entry is None:
        return None
    try:
        arrays = [
            None if entry[key] is None else np.array([NEVER if x is None else float(x) for x in entry[key]])
            for key in ("thresholds", "set_thresholds")
        ]
        fits = tuple(entry["class_names"]) == tuple(class_names) and all(
            array is None or array.shape == (len(class_names),) for array in arrays
        )
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise CheckpointError(
            f"{path} is damaged, or of other classes. Choose thresholds again: ltr-eval RUN --decide precision=0.9"
        )
    return Decider(tuple(class_names), *arrays)


def decisions_of(path: Path, checkpoint: Path) -> dict[str, Any]:
    """Return the entry of a checkpoint, with format and version; the file must have it."""
    return {"format": FORMAT, "version": VERSION, **read_entries(path)[file_digest(checkpoint)]}


def table_lines(decider: Decider, rules: Collection[str], measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a report: metrics on each part of the split, and the thresholds of all classes."""
    lines = []
    for part, results in measured.items():
        if "decisions" in results:
            metrics = results["decisions"]
            numbers = [f"{_percent(metrics[key])} {key}" for key in ("coverage", "precision", "recall", "accuracy")]
            if (alarms := metrics["false_alarms_per_thousand"]) is not None:
                numbers.append(f"{alarms:.1f} false alarms per thousand background images")
            lines.append(f"{part}: decisions: {', '.join(numbers)}")
        if "sets" in results:
            metrics = results["sets"]
            coverage, size = _percent(metrics["coverage"]), metrics["size"]
            lines.append(f"{part}: sets: {coverage} coverage, {size:.2f} classes on average")
    if decider.thresholds is None:
        return lines
    part = list(measured)[-1]
    per_class = measured[part]["decisions"]["per_class"]
    width = max(map(len, (*decider.class_names, "class")))
    lines.append(f"{'class':{width}}  threshold       n  decided  precision  recall  ({part})")
    for row, name in enumerate(decider.class_names):
        threshold = decider.thresholds[row]
        lines.append(
            f"{name:{width}}  {'never' if threshold == NEVER else format(threshold, '.4f'):>9}  "
            f"{per_class['n'][row]:>6,}  {per_class['decided'][row]:>7,}  {_percent(per_class['precision'][row]):>9}  "
            f"{_percent(per_class['recall'][row]):>6}"
        )
    rule, threshold, outcome = ("precision", NEVER, "never") if "precision" in rules else ("recall", 0, "always")
    if unreached := int((decider.thresholds == threshold).sum()):
        classes = counted(unreached, "class", "classes")
        lines.append(f"No threshold gives {classes} the wanted {rule}: {outcome} decided")
    return lines


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _plain(value: Any) -> Any:
    """Return numbers and arrays as plain data for JSON; None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value.tolist()]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
