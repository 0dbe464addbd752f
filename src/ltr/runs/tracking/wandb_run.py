"""Run of Weights & Biases: its identity, curves, tables and figures, without data about the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from pytorch_lightning.loggers.logger import Logger

from ltr.errors import ConfigError, first_line
from ltr.evaluation.metrics import METRICS
from ltr.runs.evaluation.network import ProtocolResult
from ltr.runs.keys import group_hash, run_hash
from ltr.runs.tracking.counted_epochs import CountsEpochs, final

_SPLITS = ("train", "val", "test")
_TAG, _NAME = 64, 128  # largest number of characters that W&B accepts
_ROW = ("protocol", "split", "checkpoint", "selection", "variant", "scorer", "headline")


class _Plain(Logger):
    """Lightning logger for a W&B run with ``epoch`` as x-axis; Lightning's WandbLogger restarts steps in each stage."""

    def __init__(self, config: Mapping[str, Any], directory: Path) -> None:
        super().__init__()
        self.config = config
        self.directory = directory
        self.run = _started(config, directory)
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("*", step_metric="epoch")
        self._defined: set[str] = set()

    @property
    def name(self) -> str:
        return self.config["logger"]["project"]

    @property
    def version(self) -> str:
        return self.run.id

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.run.config.update(dict(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        for key in metrics:
            split, _, metric = key.partition("/")
            if split in _SPLITS and key not in self._defined:
                # the summary of a metric is its best value, not its last
                better = "min" if METRICS.find(metric).is_lower_better else "max"
                self.run.define_metric(key, step_metric="epoch", summary=better)
                self._defined.add(key)
        self.run.log(dict(metrics))

    def close(self, failed: bool) -> None:
        """End the run. (Lightning calls `finalize` after every stage, which does nothing here.)"""
        self.run.finish(exit_code=int(failed))


class WandbRun(CountsEpochs, _Plain):
    """W&B run of a configuration; a resumed run of the same configuration continues it.

    Args:
        config: configuration of the run, with the config ``logger/wandb``.
        directory: directory of the run, in which ``wandb/`` is created.

    Raises:
        ConfigError: W&B cannot start, for example without a key or a network.
    """

    def log_result(
        self,
        headline: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        evaluated: Sequence[ProtocolResult],
        figures: Sequence[Path],
    ) -> None:
        """Log the headline to the summary, the tables, the figures, and with ``logger.model`` the model.

        Tables: ``results`` has the rows of ``result.json``; ``per_class`` has the classes of the headline protocol, and
        ``per_class_<protocol>`` those of further protocols.
        """
        self.run.summary.update(final(headline))
        logged: dict[str, Any] = {"results": _results(rows)}
        for one in evaluated:
            first = one.protocol == headline["protocol"]
            name = "per_class" if first else f"per_class_{one.protocol}"
            if one.variant == headline["variant"] and name not in logged and one.result.per_class:
                logged[name] = _columns(one.result.per_class)
        for path in figures:
            logged[f"figures/{path.stem}"] = wandb.Image(str(path))
        self.run.log(logged)
        if self.config["logger"]["model"]:
            self._log_model()

    def _log_model(self) -> None:
        artifact = wandb.Artifact(f"model-{self.run.id}", type="model")
        artifact.add_file(str(self.directory / "checkpoints" / "final.ckpt"))
        self.run.log_artifact(artifact)


def _started(config: Mapping[str, Any], directory: Path) -> Any:
    node = config["logger"]
    dataset, method, name = config["dataset"]["name"], config["method"]["name"], config["name"]
    label = f"{name}-{dataset}"
    try:
        return wandb.init(
            project=node["project"],
            entity=node["entity"],
            name=shortened(label, f"-s{config['seed']}"),
            # runs that differ only in their seed are one group, which W&B averages
            group=node["group"] or shortened(label, f"-{group_hash(config)[:8]}"),
            job_type=node["job_type"],
            tags=tags([dataset, method, name, *node["tags"]]),
            id=run_hash(config)[:16],  # the same run continues its W&B run
            resume="allow",
            mode="offline" if node["mode"] == "offline" else None,
            dir=str(directory),
            reinit="create_new",  # each job of a sweep is a separate run
            settings=_settings(node),
        )
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "wandb":
            raise  # see `ltr.runs.tracking.loggers`
        raise ConfigError(
            f"logger=wandb: it cannot start: {first_line(error)}. Use `wandb login`, or logger.mode=offline and `wandb "
            "sync` later"
        ) from error


def tags(texts: Sequence[str]) -> list[str]:
    """Cut tags to the 64 characters that W&B accepts, and remove empty tags and duplicates."""
    cut = (str(text).strip()[:_TAG].rstrip() for text in texts)
    return list(dict.fromkeys(text for text in cut if text))


def shortened(label: str, end: str) -> str:
    """Return a label with a distinguishing ending, cut to the 128 characters that W&B accepts."""
    return label[: _NAME - len(end)] + end


def _settings(config: Mapping[str, Any]) -> Any:
    """Return W&B's settings that keep machine, user, command line, code and packages private."""
    return wandb.Settings(
        console="off",
        host="",
        program="ltr-train",
        save_code=False,
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=not config["system_metrics"],
        x_save_requirements=False,
        silent=True,
    )


def _results(rows: Sequence[Mapping[str, Any]]) -> Any:
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    data = [[*(row.get(key) for key in _ROW), *(row["metrics"].get(name) for name in metrics)] for row in rows]
    return wandb.Table(columns=[*_ROW, *metrics], data=data, allow_mixed_types=True)


def _columns(columns: Mapping[str, np.ndarray]) -> Any:
    values = [np.asarray(column).tolist() for column in columns.values()]
    return wandb.Table(columns=list(columns), data=[list(row) for row in zip(*values)], allow_mixed_types=True)
