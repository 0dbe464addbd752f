"""Limited runs, of fewer batches or epochs than their recipe or with test images in training.

Their numbers are not those of their method. Tables give them a footnote with the reason and never mark them as best.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


def limits(config: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Return the reason why a run is limited; empty if it is not.

    Args:
        config: its flat configuration.
        data: the entry ``data`` of its ``result.json``.
    """
    return ", ".join(filter(None, (trained_test_images(data), few_batches(config), short_schedule(config))))


def limits_of(runs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    """Return the reason of the first limited run among configurations and data, see `limits`; empty without one."""
    return next(filter(None, (limits(config, data) for config, data in runs)), "")


def trained_test_images(data: Mapping[str, Any]) -> str:
    """Return a note about a run whose weights were trained on images that it evaluates; empty for others."""
    images, of = data.get("trained_on_images"), data.get("evaluated_images") or data.get("test_images") or 0
    return f"trained on {images:,} of the {counted(of, 'evaluated image')}" if images else ""


def incidents_note(stages: Iterable[Mapping[str, Any]]) -> str:
    """Return a note about unreadable images that others replaced, and skipped steps; empty if there were none."""
    incidents = [stage.get("incidents") or {} for stage in stages]
    images, steps = (sum(int(one.get(key, 0)) for one in incidents) for key in ("replaced_images", "skipped_steps"))
    share = max((float(one.get("replaced_share", 0)) for one in incidents), default=0.0)
    replaced = (
        f"unreadable images replaced {counted(images, 'time')} in training, up to {share:.2%} of an epoch's images"
    )
    skipped = f"{counted(steps, 'optimiser step')} skipped because of a loss that was not finite"
    return ", ".join(note for note, number in ((replaced, images), (skipped, steps)) if number)


def few_batches(config: Mapping[str, Any]) -> str:
    """Return a note about a run whose epochs are incomplete; empty for others."""
    batches = config.get("trainer.limit_train_batches")
    if batches is None:
        return ""
    return f"{counted(batches, 'batch', 'batches')} an epoch (trainer.limit_train_batches)"


def short_schedule(config: Mapping[str, Any]) -> str:
    """Return a note about a run with fewer epochs than its recipe; empty for others."""
    return ", ".join(
        f"{epochs:,g} of the recipe's {counted(recipe_epochs, 'epoch')} ({key})"
        for key, epochs, recipe_epochs in _epochs_beside_recipe(config)
        if epochs < recipe_epochs
    )


def longer_schedule(config: Mapping[str, Any]) -> str:
    """Return a note about a run with more epochs than its recipe, which is ranked among equal schedules; else empty."""
    longer = [
        f"{counted(epochs, 'epoch')} instead of the recipe's {recipe_epochs:,g} ({key})"
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
    """Return the epoch settings of a run's recipes; a classifier on stored features has the linear probe's."""
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
    """Return a footnote mark, such as a dagger, for each distinct reason; empty reasons get none."""
    marks = [*_MARKS, *(f"{_MARKS[0]}{number}" for number in range(len(_MARKS) + 1, len(reasons) + 1))]
    return dict(zip(dict.fromkeys(filter(None, reasons)), marks))


def footnotes(marks: Mapping[str, str], *, are_ranked: bool = False) -> list[str]:
    """Return the notes below a table, one for each mark.

    Args:
        are_ranked: the table marks the best of equally limited rows.
    """
    return [f"{mark} {_sentence(reason, are_ranked)}." for reason, mark in marks.items()]


def _sentence(reason: str, are_ranked: bool) -> str:
    if reason.startswith(OTHER_CONDITIONS):
        return reason
    if reason.startswith(_LONGER):
        return f"{reason}; ranked among equal schedules only, not comparable with a published number"
    if are_ranked:
        return f"limited: {reason}; ranked among equal schedules only, not comparable with a published number"
    return f"limited: {reason}; never marked as best, not comparable with a published number"


@cache
def _recipe_epochs(dataset: str, method: str) -> tuple[tuple[str, float], ...]:
    """Return the epoch settings (key, epochs) in the recipes of a data set and of its pair with a method."""
    epochs: dict[str, float] = {}
    for recipe in recipes_of(current_name("dataset", dataset), method):
        epochs |= {key: value for key, value in leaves(read_config(recipe)) if key.endswith((".max_epochs", ".epochs"))}
    return tuple(epochs.items())


def _experiment_epochs(config: Mapping[str, Any]) -> float | None:
    """Return the fewest epochs that a matching experiment config sets; None if none sets any."""
    return min((epochs for conditions, epochs in _experiments() if conditions.match(config)), default=None)


@cache
def _experiments() -> tuple[tuple[Conditions, float], ...]:
    conditions = []
    for row in table_rows():
        epochs = read_config(f"experiment/{row.config}").get("trainer", {}).get("max_epochs")
        if epochs is not None:
            conditions.append((Conditions.of(row), float(epochs)))
    return tuple(conditions)
