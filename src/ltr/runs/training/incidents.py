"""Incidents that a training went past: unreadable images that others replaced, and skipped optimiser steps.

``trainer.on_error``, ``max_skipped`` and ``max_nonfinite`` say when such incidents end a training. They are not part of
a stage's key, because a training without incidents is the same under all of them. So each stage records its incidents,
and a command takes a stored stage or result only if its own limits allow them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ltr.names import counted

REPLACED = "train/replaced_images"  # column of metrics.csv under trainer.on_error=skip
INCIDENTS = "incidents"  # key of stage.json (by stage) and of a stage in result.json


@dataclass(frozen=True)
class Incidents:
    """Incidents of the training of one stage.

    Attributes:
        replaced_images: replacements of unreadable images, summed over the epochs.
        replaced_share: largest share of an epoch's images that were replaced, in [0, 1].
        skipped_steps: optimiser steps that were skipped because their gradients were not finite.
    """

    replaced_images: int = 0
    replaced_share: float = 0.0
    skipped_steps: int = 0

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], images_per_epoch: int, skipped_steps: int) -> Incidents:
        """Return the incidents of a training from its rows of ``metrics.csv``, with all epochs."""
        numbers = [int(float(row.get(REPLACED) or 0)) for row in rows]
        return cls(sum(numbers), max(numbers, default=0) / max(images_per_epoch, 1), skipped_steps)

    @classmethod
    def read(cls, stored: Any) -> Incidents:
        """Return stored incidents; entries that are missing or not numbers count as none."""
        entries = stored if isinstance(stored, Mapping) else {}
        numbers: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            if isinstance(entries.get(name), (int, float)):
                numbers[name] = entries[name]
        return cls(**numbers)

    def to_dict(self) -> dict[str, Any]:
        """Return the incidents as plain data; empty if there were none."""
        return asdict(self) if self != Incidents() else {}

    def excess(self, trainer: Mapping[str, Any]) -> str | None:
        """Return what a command's limits do not allow; None if they allow all of it.

        Args:
            trainer: the config ``trainer``.
        """
        if self.replaced_images:
            if trainer["on_error"] == "raise":
                times = counted(self.replaced_images, "time")
                return f"unreadable images replaced {times}, which trainer.on_error=raise does not allow"
            if self.replaced_share > trainer["max_skipped"]:
                return (
                    f"up to {self.replaced_share:.2%} of an epoch's images replaced, more than "
                    f"trainer.max_skipped={trainer['max_skipped']:g} allows"
                )
        if self.skipped_steps > trainer["max_nonfinite"]:  # on_nonfinite=raise has other keys
            return (
                f"{counted(self.skipped_steps, 'optimiser step')} skipped, more than "
                f"trainer.max_nonfinite={trainer['max_nonfinite']} allows"
            )
        return None


def excess_of(incidents_by_stage: Any, trainer: Mapping[str, Any]) -> str | None:
    """Return what a command's limits do not allow in the trainings of a stage and of those that it builds on."""
    stages = incidents_by_stage if isinstance(incidents_by_stage, Mapping) else {}
    for name, stored in stages.items():
        if excess := Incidents.read(stored).excess(trainer):
            return f"stage '{name}' was trained with {excess}"
    return None
