"""Checks of a sweep as a whole, before its first job: the keys that it sets, its values, and what a search needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.override_parser.types import IntervalSweep
from omegaconf import DictConfig, OmegaConf

from ltr.configuration.advice import hold_out
from ltr.configuration.parsing import Parsed, parse
from ltr.configuration.suggestions import keys_of_other_configs
from ltr.names import list_first

_GRID = "BasicSweeper"
_OPTUNA = "hydra_plugins.hydra_optuna_sweeper."
_SPACES = ("search_space", "custom_search_space")  # other ways to give Optuna values


def check_whole_sweep(config: DictConfig, overrides: Iterable[str]) -> list[str]:
    """Return a message for each reason why no job of a sweep could run, or a search could choose nothing.

    Args:
        config: the composed configuration with its node ``hydra``; swept keys have the values of a single run.
        overrides: those of the command.
    """
    node: Any = OmegaConf.to_container(config.hydra, resolve=False)
    sweeper, choices = node["sweeper"], node["runtime"]["choices"]
    values = sweeper.get("params") or {}
    of_config = [one for key, value in values.items() for one in parse([f"{key}={value}"])[0]]
    of_command = parse(overrides)[0]
    swept = [one for one in (*of_config, *of_command) if one.is_sweep]
    swept_keys = {one.key for one in swept}
    mistakes = [
        _missing_key(config, one.key, choices)
        for one in of_config
        if not _has(config, one.key) and not _may_come(one.key, swept_keys)
    ]
    target = str(sweeper.get("_target_"))
    if target.rpartition(".")[2] == _GRID:
        return mistakes + [interval_in_grid(one) for one in swept if is_interval(one)]
    is_searched = any(is_interval(one) or len(one.values) > 1 for one in swept)
    if target.startswith(_OPTUNA) and not is_searched and not any(sweeper.get(key) for key in _SPACES):
        mistakes.append(
            f"{chosen_search(choices)}: no key has values to search. Give some, such as "
            "'optimizer.lr=interval(0.01,0.3)' or 'loss=cross_entropy,ldam'"
        )
    if config.get("stages") == "plan":
        mistakes.append(
            f"stages=plan: a plan trains nothing, so {chosen_search(choices)} has no metric to choose by. Leave one out"
        )
    if not swept_keys & {"dataset", "dataset.val", "experiment"}:
        dataset = config.get("dataset")
        plain = {str(key): value for key, value in dataset.items_ex(resolve=False)} if dataset is not None else {}
        val = OmegaConf.select(config, "dataset.val", throw_on_resolution_failure=False)
        mistakes += without_validation({"dataset": {**plain, "val": val}}, choices)
    return mistakes


def without_validation(config: Mapping[str, Any], choices: Mapping[str, Any]) -> list[str]:
    """Return the message for a search on a data set without validation images; [] if it has some.

    Args:
        config: the node ``dataset`` is enough.
        choices: the chosen config of each group, ``hydra.runtime.choices``.
    """
    if config["dataset"].get("val") not in (None, "none"):
        return []
    search = chosen_search(choices)
    advice = hold_out(config, f"leave {search} out for a grid of all values (-m)")
    return [
        f"{search} chooses by the metric on validation images, and this data set has no validation images. {advice}"
    ]


def chosen_search(choices: Mapping[str, Any]) -> str:
    """Return the override that chose the search: a config of the group sweep, otherwise the sweeper itself."""
    name, sweeper = choices.get("sweep"), choices.get("hydra/sweeper")
    return f"+sweep={name}" if name and name == sweeper else f"hydra/sweeper={sweeper}"


def is_interval(one: Parsed) -> bool:
    """Return whether an override gives an interval instead of values."""
    return isinstance(one.override.value(), IntervalSweep)


def interval_in_grid(one: Parsed) -> str:
    """Return the message for an interval in a sweep that runs every value."""
    low, high = one.values
    return (
        f"{one.text}: an interval has no values to run one by one and needs a search. Add +sweep=optuna, or give "
        f"values: -m {one.key}={low:g},{high:g}"
    )


def _has(config: DictConfig, key: str) -> bool:
    if "." not in key or "@" in key or "/" in key or key.startswith("hydra."):
        return True  # a group or a setting of Hydra's, which other checks know
    node, _, last = key.rpartition(".")
    parent = OmegaConf.select(config, node, throw_on_resolution_failure=False)
    return OmegaConf.is_dict(parent) and last in parent


def _may_come(key: str, swept: Iterable[str]) -> bool:
    """Return whether a swept choice may bring a key to some jobs."""
    return any(key.startswith(f"{other}.") for other in swept) or "experiment" in swept


def _missing_key(config: DictConfig, key: str, choices: Mapping[str, Any]) -> str:
    group = key.partition(".")[0]
    origin = f"+sweep={choices['sweep']}" if choices.get("sweep") else "hydra.sweeper.params"
    chosen = f"{group}={choices[group]}" if group in choices else "the configuration"
    having = keys_of_other_configs(key, config, {}).get(key, [])
    if not having:
        return f"{origin} sets {key}, which {chosen} does not have. Correct the key, or leave {origin} out"
    names = [text.partition("=")[2] for text in having]
    return (
        f"{origin} sets {key}, which {chosen} does not have. Choose a {group} that has it, {group}=NAME: "
        f"{list_first(names)}"
    )
