"""Panels of a dashboard of runs, as plain data: sections, titles and logged keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ltr.evaluation.metrics import METRICS, View

Kind = Literal["line", "bar", "scatter", "figure"]


@dataclass(frozen=True)
class Panel:
    """Panel of a dashboard.

    Attributes:
        title: title of the panel.
        kind: ``line`` over epochs, ``bar`` of final values, ``scatter`` of two final values, ``figure`` of a run.
        keys: the shown keys, as ``ltr-train`` logs them; for a scatter plot x, then y. A line panel of a metric names
            the keys of both splits, validation and test; a run logs those of the split that it monitors.
    """

    title: str
    kind: Kind
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Panels under one heading.

    Attributes:
        name: heading.
        panels: the panels, in order.
        protocols: protocols whose runs log these keys.
        is_open: True if the section is unfolded at first.
    """

    name: str
    panels: tuple[Panel, ...]
    protocols: tuple[str, ...] = ("closed_set",)
    is_open: bool = True


def _monitored(protocol: str) -> tuple[Panel, ...]:
    """Return a line panel for each metric that is monitored during training."""
    metrics = METRICS.declared("monitored", protocol)
    return tuple(
        Panel(metric.title, "line", tuple(f"{split}/{metric.name}" for split in ("val", "test"))) for metric in metrics
    )


def _final(protocol: str, view: View = "dashboard") -> tuple[Panel, ...]:
    """Return a bar panel of the final values for each metric that a view shows for a protocol."""
    return tuple(Panel(metric.title, "bar", (f"final/{metric.name}",)) for metric in METRICS.declared(view, protocol))


def _figure_panels(*names: str) -> tuple[Panel, ...]:
    return tuple(Panel(name.replace("_", " "), "figure", (f"figures/{name}",)) for name in names)


# runs with figures=two log only the first two
_FIGURES = (
    "accuracy_by_frequency", "training_curves", "confusion", "predicted_prior", "weight_norms", "reliability", "draws",
)  # fmt: skip
_ALL_PROTOCOLS = ("closed_set", "background", "open_set", "retrieval")

SECTIONS: tuple[Section, ...] = (
    Section("Result", (*_final("closed_set"), Panel("few against many", "scatter", ("final/many", "final/few")))),
    Section(
        "While training",
        (
            Panel("training loss", "line", ("train/loss",)),
            Panel("training accuracy", "line", ("train/accuracy",)),
            Panel("learning rate", "line", ("lr",)),
            Panel("training images a second", "line", ("images_per_second",)),
        ),
        _ALL_PROTOCOLS,
    ),
    Section("Monitored split", _monitored("closed_set")),
    Section("Calibration", _final("closed_set", "calibration"), is_open=False),
    Section("Background", _final("background"), ("background",), is_open=False),
    Section("Open set", _final("open_set"), ("open_set",), is_open=False),
    Section("Retrieval", _final("retrieval"), ("retrieval",), is_open=False),
    Section("Figures", _figure_panels(*_FIGURES)),
)
