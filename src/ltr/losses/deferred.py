"""Deferral: a loss ignores the imbalance at first and re-weights or adjusts from a later epoch.

Deferred re-weighting (DRW) is algorithm 1 of Cao et al., NeurIPS 2019. Their code switches at epoch 160; here the
switch is a fraction of the stage, and 0.8 of 200 epochs gives the same 160.
"""

from __future__ import annotations

from ltr.configuration.ranges import Fraction, check_option


def first_epoch(defer_from: float | None, epochs: int) -> int:
    """Return the first epoch (from 0) with weights on: defer_from * epochs, rounded; 0 for None."""
    return 0 if defer_from is None else round(defer_from * epochs)


class Deferral:
    """Switch of a deferred loss.

    `active` is a Python bool that changes between epochs only, so that a training step reads it without synchronising
    with the device.

    Args:
        defer_from: fraction of the stage in [0, 1] after which `active` is True; None: from the start.

    Raises:
        ConfigError: defer_from is outside [0, 1].
    """

    def __init__(self, defer_from: float | None) -> None:
        self.defer_from = check_option("loss.defer_from", defer_from, Fraction | None)
        self.active = not defer_from

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set `active` for `epoch` (counted from 0) of a stage of `epochs`."""
        self.active = epoch >= first_epoch(self.defer_from, epochs)
