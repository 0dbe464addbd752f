"""Dashboard of runs: sections of panels with the keys that runs log, as data for any service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ltr.evaluation.metrics import METRICS, Place

Kind = Literal["line", "bar", "scatter", "picture"]


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: of it.
        kind: ``line`` over epochs, ``bar`` of final values, ``scatter`` of two final values, ``picture`` of a run.
        keys: what is shown, as `ltr-train` logs it; of a scatter x, then y. Of a line's keys a run has some: it
            monitors the validation split, or the test split where that was asked for, or none.
    """

    title: str
    kind: Kind
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Panels under one heading.

    Attributes:
        name: the heading.
        panels: in order.
        protocols: whose runs log these keys.
        is_open: unfolded at first.
    """

    name: str
    panels: tuple[Panel, ...]
    protocols: tuple[str, ...] = ("closed_set",)
    is_open: bool = True


def _monitored(protocol: str) -> tuple[Panel, ...]:
    """Return a panel over the epochs for each metric of the split that is monitored while training."""
    metrics = METRICS.declared("monitored", protocol)
    return tuple(Panel(one.title, "line", tuple(f"{split}/{one.name}" for split in ("val", "test"))) for one in metrics)


def _final(protocol: str, place: Place = "dashboard") -> tuple[Panel, ...]:
    """Return a panel with the final values of each metric that a place shows of a protocol."""
    return tuple(Panel(one.title, "bar", (f"final/{one.name}",)) for one in METRICS.declared(place, protocol))


def _pictures(*names: str) -> tuple[Panel, ...]:
    return tuple(Panel(name.replace("_", " "), "picture", (f"figures/{name}",)) for name in names)


EVERY_PROTOCOL = ("closed_set", "background", "open_set", "retrieval")

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
        EVERY_PROTOCOL,
    ),
    Section("Monitored split", _monitored("closed_set")),
    Section("Calibration", _final("closed_set", "calibration"), is_open=False),
    Section("Background", _final("background"), ("background",), is_open=False),
    Section("Open set", _final("open_set"), ("open_set",), is_open=False),
    Section("Retrieval", _final("retrieval"), ("retrieval",), is_open=False),
    # with figures=two a run has the first two
    Section(
        "Figures",
        _pictures(
            "accuracy_by_frequency",
            "training_curves",
            "confusion",
            "predicted_prior",
            "weight_norms",
            "reliability",
            "draws",
        ),
    ),
)
