"""The chosen logger beside ``metrics.csv``: none, Weights & Biases or TensorBoard, imported only when chosen."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltr.configuration.pages import leaves, without_private
from ltr.errors import ConfigError
from ltr.runs.keys import run_hash

# the summary of a watched metric is its best value, not its last
_SUMMARIES = {"accuracy": "max", "many": "max", "medium": "max", "few": "max", "balanced_accuracy": "max",
              "geometric_mean": "max", "macro_f1": "max", "nll": "min", "ece": "min"}  # fmt: skip


class RunLoggers:
    """The loggers of one run: made when the first stage trains, closed at the run's end whatever happened."""

    def __init__(self, config: Mapping[str, Any], directory: Path) -> None:
        self.config = config
        self.directory = directory
        self._made: list[Any] | None = None
        self._wandb_mode = os.environ.get("WANDB_MODE")

    def __call__(self) -> list[Any]:
        if self._made is None:
            name = self.config["logger"]["name"]
            self._made = [] if name == "csv" else [getattr(self, f"_{name}")()]
            for logger in self._made:
                logger.log_hyperparams(dict(leaves(without_private(self._described()))))
        return self._made

    def _described(self) -> dict[str, Any]:
        return {key: value for key, value in self.config.items() if key not in ("paths", "hydra")}

    def _wandb(self) -> Any:
        try:
            import wandb
            from pytorch_lightning.loggers import WandbLogger
        except ImportError as error:
            raise ConfigError("logger=wandb: the package wandb is not installed. pip install wandb") from error
        page, config = self.config["logger"], self.config
        logger = WandbLogger(
            project=page["project"],
            name=f"{config['method']['name']}-{config['dataset']['name']}-s{config['seed']}",
            group=page["group"] or config["dataset"]["name"],
            job_type="train",
            tags=[config["dataset"]["name"], config["method"]["name"], *page["tags"]],
            id=run_hash(config)[:16],  # the same run goes on in the same place
            resume="allow",
            offline=page["mode"] == "offline",
            save_dir=str(self.directory),
            log_model=False,
            settings=wandb.Settings(console="off", x_disable_stats=False),
        )
        for split in ("val", "test"):
            for metric, summary in _SUMMARIES.items():
                logger.experiment.define_metric(f"{split}/{metric}", summary=summary)
        return logger

    def _tensorboard(self) -> Any:
        try:
            from pytorch_lightning.loggers import TensorBoardLogger

            return TensorBoardLogger(str(self.directory), name="tensorboard", version="", default_hp_metric=False)
        except ImportError as error:
            raise ConfigError(
                "logger=tensorboard: the package tensorboard is not installed. pip install 'ltr[tensorboard]'"
            ) from error

    def finish(
        self, rows: list[dict[str, Any]], per_class: Mapping[str, Any] | None = None, failed: bool = False
    ) -> None:
        """Log the final rows (as one table, not as a key per class) and close; called in every case."""
        if self._made is None:
            return
        for logger in self._made:
            headline = next((row for row in rows if row["headline"]), None)
            if headline is not None:
                final = {f"final/{key}": value for key, value in headline["metrics"].items()}
                logger.log_metrics(final)
                if self.config["logger"]["name"] == "wandb" and per_class is not None:
                    logger.log_table(
                        "per_class", columns=list(per_class), data=[list(r) for r in zip(*per_class.values())]
                    )
            with contextlib.suppress(Exception):
                logger.finalize("failed" if failed else "success")
        if self.config["logger"]["name"] == "wandb":
            import wandb

            wandb.finish(exit_code=int(failed))
            # Lightning's offline switch is an environment variable that would leak into the next job of a sweep
            if self._wandb_mode is None:
                os.environ.pop("WANDB_MODE", None)
            else:
                os.environ["WANDB_MODE"] = self._wandb_mode
        self._made = None
