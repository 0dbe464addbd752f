"""Base class of the loggers, which counts epochs over all stages of a run and logs the metrics of its result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.runs.evaluation.network import ProtocolResult


class CountsEpochs:
    """Logger mixin whose step is the epoch, counted over all stages."""

    epochs_before = 0

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if "epoch" in metrics:
            step = self.epochs_before + int(metrics["epoch"])
            metrics = {**metrics, "epoch": step}
        super().log_metrics(metrics, step)  # type: ignore[misc]

    def log_result(
        self,
        headline: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        evaluated: Sequence[ProtocolResult],
        figures: Sequence[Path],
    ) -> None:
        """Log the headline's metrics as ``final/<metric>``."""
        super().log_metrics(final(headline))  # type: ignore[misc]


def final(headline: Mapping[str, Any]) -> dict[str, float]:
    """Return ``final/<metric>`` for each finite metric of a row of the result."""
    metrics = headline["metrics"].items()
    return {f"final/{key}": float(value) for key, value in metrics if value is not None and math.isfinite(value)}
