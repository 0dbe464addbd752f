"""Which metrics are better when they are smaller: errors, losses and false alarms."""

from __future__ import annotations

_SMALLER_IS_BETTER = ("nll", "ece", "fpr", "false_alarm", "error", "loss", "aurc", "brier", "dropped_")


def is_smaller_better(metric: str) -> bool:
    """Whether a metric, by its name without a split before it, is an error or a loss."""
    return metric.startswith(_SMALLER_IS_BETTER)
