"""Conditions under which a run's configuration matches an experiment config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ltr.configuration import configs
from ltr.configuration.configs import leaves
from ltr.configuration.tables import TableRow

# runs of a shorter schedule may differ in these; tables show their number of epochs
_SCHEDULE = ("trainer.max_epochs", "scheduler.", "batch_size", "name", "seed")
_PARTS = ("sampler", "loss", "method")  # groups that define the method of a run
_DATA = ("imbalance_factor", "profile", "subset", "n_max", "num_classes")
_MISSING = object()


# many experiments choose the same configs, and reading YAML takes most of the time
read_config: Callable[[str], Mapping[str, Any]] = cache(configs.read_config)
config_names: Callable[[str], list[str]] = cache(configs.config_names)


@dataclass(frozen=True)
class Conditions:
    """Values that a flat configuration must have to match an experiment config."""

    values: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, row: TableRow) -> Conditions:
        """Return the conditions of an experiment: its data, sampler, loss, method and all other values that it sets."""
        config = read_config(f"experiment/{row.config}")
        of_experiment = config_choices(f"experiment/{row.config}")
        chosen = {**config_choices("train"), **of_experiment}
        for group in ("dataset", "method"):  # a method may choose its sampler and its loss
            if chosen.get(group) in config_names(group):
                chosen |= config_choices(f"{group}/{chosen[group]}")
        chosen |= of_experiment
        values: dict[str, Any] = {}
        dataset = chosen.get("dataset", "")
        if dataset in config_names("dataset"):
            data = read_config(f"dataset/{dataset}")
            values["dataset.name"] = data.get("name", dataset)
            values |= {f"dataset.{key}": data[key] for key in _DATA if key in data}
        for group in _PARTS:
            chosen_config = chosen.get(group)
            if chosen_config in config_names(group):
                part = {**read_config(f"{group}/{chosen_config}")}
                part.pop("defaults", None)
                if group == "method":
                    part = {"name": part.get("name"), "_target_": part.get("_target_")}
                values |= {f"{group}.{key}": value for key, value in leaves(part)}
        experiment_values = {key: value for key, value in config.items() if key != "defaults"}
        values |= {key: value for key, value in leaves(experiment_values) if not key.startswith(_SCHEDULE)}
        literal_values = {key: value for key, value in values.items() if not (isinstance(value, str) and "${" in value)}
        return cls(tuple(literal_values.items()))

    def match(self, config: Mapping[str, Any]) -> bool:
        return all(config.get(key, _MISSING) == value for key, value in self.values)


def config_choices(config: str) -> dict[str, str]:
    """Return the config that a defaults list chooses, by group.

    Interpolations, optional entries and choices for a node of the config itself (a stage's sampler) are left out.
    """
    choices: dict[str, str] = {}
    entries: Sequence[Any] = read_config(config).get("defaults", [])
    for entry in entries:
        if isinstance(entry, dict):
            for key, value in entry.items():
                words = str(key).split()
                group, _, package = words[-1].lstrip("/").partition("@")
                is_global = package.partition(".")[0] in ("", "_global_")
                if is_global and isinstance(value, str) and "${" not in value and "optional" not in words:
                    choices[group] = value
    return choices
