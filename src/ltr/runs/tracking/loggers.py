"""Loggers in addition to ``metrics.csv``: Weights & Biases or TensorBoard, imported only if configured."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.configuration.configs import leaves, without_private
from ltr.errors import ConfigError, Interrupted, first_line
from ltr.runs.evaluation.network import ProtocolResult
from ltr.runs.tracking.counted_epochs import CountsEpochs


class RunLoggers:
    """Loggers of one run, which are created when first needed and closed when the run ends or fails.

    Args:
        epochs: number of epochs of each stage, in order. Loggers and figures count epochs over all stages, so that a
            second stage does not overwrite the first.
    """

    def __init__(self, config: Mapping[str, Any], directory: Path, epochs: Mapping[str, int]) -> None:
        self.config = config
        self.directory = directory
        self.epochs = epochs
        self._made: list[Any] | None = None

    def __call__(self, stage: str) -> list[Any]:
        """Return the loggers, for the epochs of a stage."""
        if self._made is None:
            name = self.config["logger"]["name"]
            self._made = [] if name == "csv" else [self._started(name)]
        earlier_stages = list(self.epochs)[: list(self.epochs).index(stage)]
        for logger in self._made:
            logger.epochs_before = sum(self.epochs[name] for name in earlier_stages)
        return self._made

    def _started(self, name: str) -> Any:
        """Start a logger and log the configuration; later failures of the logger do not stop the run.

        Raises:
            ConfigError: the logger cannot start, which is detected before training.
        """
        try:
            logger = getattr(self, f"_{name}")()
            logger.log_hyperparams(described(self.config))
        except (ConfigError, Interrupted):
            raise
        except Exception as error:  # from the network, the disk, or the package
            raise ConfigError(
                f"logger={name}: it cannot start: {type(error).__name__}: {_reason(error)}. Correct that, or use "
                "logger=csv; the logger is not part of the run's identity"
            ) from error
        return forgiving(logger, name)

    def _wandb(self) -> Any:
        try:
            from ltr.runs.tracking.wandb_run import WandbRun
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
        self, rows: Sequence[Mapping[str, Any]], evaluated: Sequence[ProtocolResult], figures: Sequence[Path] = ()
    ) -> None:
        """Log the result of a finished run, even if all its stages were cached.

        The result is already written, so a logger that cannot start only causes a warning.
        """
        headline = next((row for row in rows if row["headline"]), None)
        if headline is None:
            return
        try:
            loggers = self(next(iter(self.epochs)))
        except ConfigError as error:
            warnings.warn(f"the result is not logged, {self.directory} has it: {error}", stacklevel=1)
            return
        for logger in loggers:
            logger.log_result(headline, rows, evaluated, figures)

    def close(self, failed: bool) -> None:
        """Close the loggers, also after a failure."""
        for logger in self._made or []:
            logger.close(failed)
        self._made = None


# methods of a logger that Lightning and runs call
_CALLED = ("log_metrics", "log_hyperparams", "log_graph", "log_result", "after_save_checkpoint", "save", "finalize",
           "close")  # fmt: skip


def forgiving(logger: Any, name: str) -> Any:
    """Convert the first failure of a logger to a warning, after which the run continues without the logger.

    Args:
        logger: the logger, which is modified and returned.
        name: name of its config, for the warning.
    """
    broken: list[Exception] = []

    def guarded(method: Callable[..., Any], closes: bool) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            if broken and not closes:
                return None
            try:
                return method(*arguments, **named)
            except Interrupted:
                raise
            except Exception as error:
                if not broken:
                    warnings.warn(
                        f"logger={name} failed and is disabled: {type(error).__name__}: "
                        f"{first_line(error)}. metrics.csv and result.json have all numbers",
                        stacklevel=1,
                    )
                broken.append(error)
                return None

        return call

    for method in _CALLED:
        if hasattr(logger, method):
            setattr(logger, method, guarded(getattr(logger, method), closes=method == "close"))
    return logger


def _reason(error: Exception) -> str:
    """Return an error's first line; W&B's settings are checked by pydantic, whose first line only counts mistakes."""
    entries = getattr(error, "errors", None)
    if not callable(entries):
        return first_line(error)
    return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in entries())


def described(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat configuration without paths, which would name a person or a machine.

    A path to a file, such as that of initial weights, is reduced to its last part.
    """
    flat = leaves(without_private({key: value for key, value in config.items() if key not in ("paths", "hydra")}))
    return {key: _without_folders(value) for key, value in flat if not key.endswith((".root", ".roots"))}


def _without_folders(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_without_folders(entry) for entry in value]
    if isinstance(value, str) and (value.startswith(("/", "~")) or value[1:3] in (":\\", ":/")):
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return value
