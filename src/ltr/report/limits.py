"""Limits of runs with fewer batches or fewer epochs than their recipe; their numbers are not those of their method.

Tables mark such runs, give the reason, and never mark them as best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ltr.configuration.configs import leaves, recipes_of
from ltr.configuration.removed import current_name
from ltr.configuration.tables import table_rows
from ltr.names import counted
from ltr.report.conditions import Conditions, read_config

_MARKS = "†‡§¶"
_LONGER = "longer schedule"
OTHER_CONDITIONS = "published under other conditions"  # first words of such a note


def limits(config: Mapping[str, Any]) -> str:
    """Return the reason why a run of this flat configuration is limited; empty if it is not."""
    return ", ".join(filter(None, (few_batches(config), short_schedule(config))))


def few_batches(config: Mapping[str, Any]) -> str:
    """Return a note about a run whose epochs are not whole; empty for others."""
    batches = config.get("trainer.limit_train_batches")
    if batches is None:
        return ""
    return f"{batches:,g} {'batch' if batches == 1 else 'batches'} an epoch (trainer.limit_train_batches)"


def short_schedule(config: Mapping[str, Any]) -> str:
    """Return a note about a run of fewer epochs than its recipe; empty for others."""
    return ", ".join(
        f"{epochs:,g} of the recipe's {counted(recipe_epochs, 'epoch')} ({key})"
        for key, epochs, recipe_epochs in _epochs_beside_recipe(config)
        if epochs < recipe_epochs
    )


def longer_schedule(config: Mapping[str, Any]) -> str:
    """Return a note about a run of more epochs than its recipe; empty for others.

    Such a run is whole, but it is ranked only among runs of the same schedule.
    """
    longer = [
        f"{counted(epochs, 'epoch')}, the recipe's are {recipe_epochs:,g} ({key})"
        for key, epochs, recipe_epochs in _epochs_beside_recipe(config)
        if epochs > recipe_epochs
    ]
    return f"{_LONGER}: {', '.join(longer)}" if longer else ""


def _epochs_beside_recipe(config: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Return key, epochs of the run and epochs of its recipe or experiment, for each key that both have."""
    dataset, method = str(config.get("dataset.name", "")), str(config.get("method.name", ""))
    pairs = []
    for key, published in _recipe_epochs_of(config, dataset, method):
        recipe_epochs = _experiment_epochs(config) or published if key == "trainer.max_epochs" else published
        epochs = config.get(key)
        if isinstance(epochs, (int, float)) and not isinstance(epochs, bool):
            pairs.append((key, epochs, recipe_epochs))
    return pairs


def _recipe_epochs_of(config: Mapping[str, Any], dataset: str, method: str) -> tuple[tuple[str, float], ...]:
    """Return the epoch settings that a run's recipes give; a classifier on stored features has its own recipe."""
    epochs = _recipe_epochs(dataset, method)
    if config.get("features.name", "images") == "images":
        return epochs
    has_epochs = config.get("features.solver") != "lbfgs"
    return tuple(
        (key, _probe_epochs() if key == "trainer.max_epochs" else value)
        for key, value in epochs
        if key != "trainer.max_epochs" or has_epochs
    )


@cache
def _probe_epochs() -> float:
    return float(read_config("recipe/shared/linear_probe")["trainer"]["max_epochs"])


def marks_of(reasons: Sequence[str]) -> dict[str, str]:
    """Return a footnote mark (a dagger and so on) for each distinct reason, in order; empty reasons get none."""
    different = [reason for reason in dict.fromkeys(reasons) if reason]
    return {
        reason: _MARKS[index] if index < len(_MARKS) else f"{_MARKS[0]}{index + 1}"
        for index, reason in enumerate(different)
    }


def footnotes(marks: Mapping[str, str]) -> list[str]:
    """Return a note for each mark, for below a table."""
    return [f"{mark} {_sentence(reason)}." for reason, mark in marks.items()]


def _sentence(reason: str) -> str:
    if reason.startswith(OTHER_CONDITIONS):
        return reason
    if reason.startswith(_LONGER):
        return f"{reason}; ranked among equal schedules only, and not comparable with a published number"
    return f"limited: {reason}; never the best, and not comparable with a published number"


@cache
def _recipe_epochs(dataset: str, method: str) -> tuple[tuple[str, float], ...]:
    """Return the epoch settings (key, epochs) in the recipes of a data set and of its pair with a method."""
    epochs: dict[str, float] = {}
    for recipe in recipes_of(current_name("dataset", dataset), method):
        epochs |= {key: value for key, value in leaves(read_config(recipe)) if key.endswith((".max_epochs", ".epochs"))}
    return tuple(epochs.items())


def _experiment_epochs(config: Mapping[str, Any]) -> float | None:
    """Return the epochs that the run's experiment config sets; None if it sets none."""
    matching_epochs = [epochs for conditions, epochs in _experiments() if conditions.match(dict(config))]
    return min(matching_epochs, default=None)


@cache
def _experiments() -> tuple[tuple[Conditions, float], ...]:
    conditions = []
    for row in table_rows():
        epochs = read_config(f"experiment/{row.config}").get("trainer", {}).get("max_epochs")
        if epochs is not None:
            conditions.append((Conditions.of(row), float(epochs)))
    return tuple(conditions)
