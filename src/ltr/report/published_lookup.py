"""Lookup of the published number for a line of a report, by its data, method and loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ltr.configuration.configs import leaves, recipes_of
from ltr.configuration.removed import current_name
from ltr.configuration.tables import TableRow, table_rows
from ltr.evaluation.metrics import METRICS
from ltr.report.comparison import Line
from ltr.report.conditions import Conditions, config_choices, config_names, read_config
from ltr.report.limits import OTHER_CONDITIONS

_NOT_BACKBONE = ("weights", "weights_map", "strict_weights", "trainable", "pretrained")


@dataclass(frozen=True)
class Published:
    """Published number.

    Attributes:
        number: the value in percent.
        source: where it was published, and how it was checked.
        metric: name of the metric.
        names_backbone: True if the experiment sets a backbone; a matching run has it.
        departures: note on conditions of the run that differ from the published ones; empty without any.
    """

    number: float
    source: str
    metric: str
    names_backbone: bool = False
    departures: str = ""


class PublishedNumbers:
    """Published numbers of the shipped experiments, from ``conf/published.csv``.

    A line matches an experiment if it has the same data set (with imbalance, profile and subset), sampler, loss and
    method, and all other values that the experiment sets, except for the schedule. Its validation images may come from
    the test set, because tables give the number of test images. Classifiers on stored features match no experiment.
    """

    def __init__(self) -> None:
        rows = [row for row in table_rows() if row.published is not None]
        self._rows = [(row, Conditions.of(row)) for row in rows]

    def of(self, line: Line, protocol: str = "closed_set") -> Published | None:
        """Return the published number of a line; of several experiments, the one named like the line.

        With several scorers, only the line of the headline scorer has a number.
        """
        config = line.config
        is_other_scorer = line.scorer is not None and not line.rows[0]["headline"]
        if is_other_scorer or config.get("features.name", "images") != "images":
            return None
        matches = (
            (row, conditions)
            for row, conditions in self._rows
            if METRICS.find(row.metric).protocol == protocol and conditions.match(config)
        )
        match = min(matches, key=lambda pair: not pair[0].config.endswith(f"_{config.get('name')}"), default=None)
        if match is None:
            return None
        row, conditions = match
        assert row.published is not None
        names_backbone = any(key.startswith("backbone.") for key, _ in conditions.values)
        note = ", ".join(_departures(config, row, names_backbone))
        note = f"{OTHER_CONDITIONS}: {note}" if note else ""
        return Published(row.published, row.citation, row.metric, names_backbone, note)


def _departures(config: dict[str, Any], row: TableRow, names_backbone: bool) -> list[str]:
    """Return how a run's network, initial weights, batch size and schedule differ from a published experiment's.

    Epochs are not compared, because tables have a column for them and `ltr.report.limits` marks them.
    """
    notes = []
    if not has_published_backbone(config, names_backbone):
        notes.append("another backbone")
    if not names_backbone and (config.get("backbone.weights") or config.get("backbone.pretrained")):
        notes.append("pretrained initial weights")
    batch_size, published_size = config.get("batch_size"), _published_batch_size(row, config)
    if batch_size is not None and published_size is not None and batch_size != published_size:
        notes.append(f"batch size {batch_size} (published: {published_size})")
    schedule, published_schedule = config.get("scheduler._target_"), _published_schedule(row)
    if schedule is not None and published_schedule is not None and schedule != published_schedule:
        names = [str(target).rpartition(".")[2] for target in (schedule, published_schedule)]
        notes.append(f"schedule {names[0]} (published: {names[1]})")
    return notes


def _published_batch_size(row: TableRow, config: dict[str, Any]) -> int | None:
    """Return the batch size of an experiment, else of the recipes of its data set and method; None if none sets it."""
    sizes = [read_config(f"experiment/{row.config}").get("batch_size")]
    dataset, method = str(config.get("dataset.name", "")), str(config.get("method.name", ""))
    recipes = recipes_of(current_name("dataset", dataset), method)
    sizes += [read_config(recipe).get("batch_size") for recipe in reversed(recipes)]
    return next((size for size in sizes if isinstance(size, int)), None)


def _published_schedule(row: TableRow) -> str | None:
    """Return the scheduler's class of an experiment, else of its data set's config; None if neither chooses one."""
    experiment = config_choices(f"experiment/{row.config}")
    dataset = experiment.get("dataset", "")
    of_dataset = config_choices(f"dataset/{dataset}") if dataset in config_names("dataset") else {}
    chosen = experiment.get("scheduler", of_dataset.get("scheduler"))
    return read_config(f"scheduler/{chosen}").get("_target_") if chosen in config_names("scheduler") else None


def has_published_backbone(config: dict[str, Any], names_backbone: bool) -> bool:
    """Return whether a run has the backbone of its data set's config, unless its experiment names another one."""
    if names_backbone:
        return True
    dataset = str(config.get("dataset.name", ""))
    chosen = config_choices(f"dataset/{dataset}").get("backbone") if dataset in config_names("dataset") else None
    if chosen is None or chosen not in config_names("backbone"):
        return True
    expected = {f"backbone.{key}": value for key, value in leaves(dict(read_config(f"backbone/{chosen}")))}
    return all(
        config.get(key, value) == value
        for key, value in expected.items()
        if key.split(".")[1] not in (*_NOT_BACKBONE, "defaults") and not (isinstance(value, str) and "${" in value)
    )
