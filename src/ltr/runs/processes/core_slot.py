"""The core of a job that shares a machine with other jobs: lent to them while the job waits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class CoreSlot(Protocol):
    """The share of the machine that a job computes on."""

    def lend(self) -> None:
        """Let another job use the core."""

    def take_back(self) -> None:
        """Wait until a core is free."""


_slots: list[CoreSlot] = []  # of this process: one in a job of a local sweep, else none


def set_core_slot(slot: CoreSlot) -> None:
    """Set the slot of this process."""
    _slots[:] = [slot]


@contextlib.contextmanager
def core_lent() -> Iterator[None]:
    """Lend this process's core during a block that only waits; after an exception it is not taken back."""
    for slot in _slots:
        slot.lend()
    yield
    for slot in _slots:
        slot.take_back()
