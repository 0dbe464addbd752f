"""The chosen logger beside ``metrics.csv``: none, Weights & Biases or TensorBoard, imported only when chosen."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.configuration.pages import leaves, without_private
from ltr.errors import ConfigError
from ltr.runs.counted_epochs import CountsEpochs
from ltr.runs.evaluate import Judged


class RunLoggers:
    """The loggers of one run: made when they are first needed, closed at the run's end whatever happened.

    Args:
        config: of the run.
        directory: of the run.
        epochs: of each stage in order. Loggers count epochs through all stages, as the figures do, so that a second
            stage does not write over the first.
    """

    def __init__(self, config: Mapping[str, Any], directory: Path, epochs: Mapping[str, int]) -> None:
        self.config = config
        self.directory = directory
        self.epochs = epochs
        self._made: list[Any] | None = None

    def __call__(self, stage: str) -> list[Any]:
        """The loggers, for the epochs of a stage."""
        if self._made is None:
            name = self.config["logger"]["name"]
            self._made = [] if name == "csv" else [getattr(self, f"_{name}")()]
            for logger in self._made:
                logger.log_hyperparams(described(self.config))
        before = list(self.epochs)[: list(self.epochs).index(stage)]
        for logger in self._made:
            logger.epochs_before = sum(self.epochs[name] for name in before)
        return self._made

    def _wandb(self) -> Any:
        try:
            from ltr.runs.wandb_run import WandbRun
        except ImportError as error:
            raise ConfigError("logger=wandb: the package wandb is not installed. pip install wandb") from error
        return WandbRun(self.config, self.directory)

    def _tensorboard(self) -> Any:
        try:
            from pytorch_lightning.loggers import TensorBoardLogger

            class TensorBoard(CountsEpochs, TensorBoardLogger):
                def close(self, failed: bool) -> None:
                    self.finalize("failed" if failed else "success")

            return TensorBoard(str(self.directory), name="tensorboard", version="", default_hp_metric=False)
        except ImportError as error:
            raise ConfigError(
                "logger=tensorboard: the package tensorboard is not installed. pip install 'ltr[tensorboard]'"
            ) from error

    def log_result(
        self, rows: Sequence[Mapping[str, Any]], judged: Sequence[Judged], figures: Sequence[Path] = ()
    ) -> None:
        """Log what a finished run came to. One whose stages were all stored has trained nothing, and is logged too."""
        headline = next((row for row in rows if row["headline"]), None)
        if headline is not None:
            for logger in self(next(iter(self.epochs))):
                logger.log_result(headline, rows, judged, figures)

    def close(self, failed: bool) -> None:
        """Close what was made; called in every case."""
        for logger in self._made or []:
            with contextlib.suppress(Exception) if failed else contextlib.nullcontext():  # not to hide why it failed
                logger.close(failed)
        self._made = None


def described(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration flat, without where things lie: paths say who works on which machine.

    A path to a file, such as that of initial weights, is its last part.
    """
    flat = leaves(without_private({key: value for key, value in config.items() if key not in ("paths", "hydra")}))
    kept = ((key, value) for key, value in flat if not key.endswith((".root", ".roots")))
    return {key: _without_folders(value) for key, value in kept}


def _without_folders(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_without_folders(one) for one in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or value[1:3] in (":\\", ":/")):
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return value
