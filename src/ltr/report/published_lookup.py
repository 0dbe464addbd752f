"""Lookup of the published number for a line of a report, by its data, method and loss."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ltr.configuration.configs import leaves
from ltr.configuration.tables import TableRow, table_rows
from ltr.evaluation.metrics import METRICS
from ltr.report.comparison import Line
from ltr.report.conditions import Conditions, config_choices, config_names, read_config
from ltr.report.limits import OTHER_CONDITIONS
from ltr.report.naming import differences

_NOT_BACKBONE = ("weights", "weights_map", "strict_weights", "trainable", "pretrained")

# what a published number depends on, apart from data and network, which are compared by themselves
_COMPARED = re.compile(
    r"(augment|batch_size|evaluation\.views|head|loss|method|optimizer|sampler|scheduler|sharpness|tune)(\.|$)"
)
_OF_SCHEDULE = re.compile(r"epochs?$|_from$")  # shorter schedules have other values


@dataclass(frozen=True)
class Published:
    """Published number.

    Attributes:
        number: the value in percent.
        source: where it was published, and how it was checked.
        metric: name of the metric.
        departures: note on conditions of the run that differ from the published ones; empty without any.
    """

    number: float
    source: str
    metric: str
    departures: str = ""


class PublishedNumbers:
    """Published numbers of the shipped experiments, from ``conf/published.csv``.

    A line matches an experiment if it has the same data set (with imbalance, profile and subset), sampler, loss and
    method, and all other values that the experiment sets, except for the schedule; settings that the experiment leaves
    to its data set and to defaults are compared in a note. Its validation images may come from the test set, because
    tables give the number of test images. Classifiers on stored features match no experiment.
    """

    def __init__(self) -> None:
        self._rows = [(row, Conditions.of(row)) for row in table_rows()]

    def of(self, line: Line, protocol: str = "closed_set") -> Published | None:
        """Return the published number of a line; of several experiments, that of the one named like the line.

        With several scorers, only the line of the headline scorer has a number. A line has none if it is named like a
        matching experiment without a number.
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
        name = f"_{config.get('name')}"
        match = min(
            matches, key=lambda pair: (not pair[0].config.endswith(name), pair[0].published is None), default=None
        )
        if match is None or match[0].published is None:
            return None
        row, conditions = match
        assert row.published is not None
        names_backbone = any(key.startswith("backbone.") for key, _ in conditions.values)
        note = ", ".join(_departures(config, row, names_backbone))
        note = f"{OTHER_CONDITIONS}: {note}" if note else ""
        return Published(row.published, row.citation, row.metric, note)


def _departures(config: dict[str, Any], row: TableRow, names_backbone: bool) -> list[str]:
    """Return how a run's network, initial weights and other settings differ from a published experiment's.

    Epochs are not compared, because tables have a column for them and `ltr.report.limits` marks them.
    """
    notes = []
    if not _has_published_backbone(config, names_backbone):
        notes.append("another backbone")
    if not names_backbone and (config.get("backbone.weights") or config.get("backbone.pretrained")):
        notes.append("pretrained initial weights")
    run_values, published_values = _compared(config), _compared(_experiment(row.config))
    for values, other_values in ((run_values, published_values), (published_values, run_values)):
        if "sharpness._target_" in other_values:
            values.setdefault("sharpness._target_", None)  # the one group that chooses nothing by default
    run, published = differences([run_values, published_values])
    if run:
        notes.append(f"{run} (published: {published})")
    return notes


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a flat configuration that are compared with an experiment's."""
    return {
        key: value
        for key, value in config.items()
        if _COMPARED.match(key) and not _OF_SCHEDULE.search(key) and not (isinstance(value, str) and "${" in value)
    }


@functools.cache
def _experiment(name: str) -> dict[str, Any]:
    """Return the flat configuration of an experiment."""
    from omegaconf import OmegaConf

    from ltr.configuration.overrides import compose_config  # imports Hydra, which most reports do not need

    return dict(leaves(OmegaConf.to_container(compose_config([f"experiment={name}"]))))


def _has_published_backbone(config: dict[str, Any], names_backbone: bool) -> bool:
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
