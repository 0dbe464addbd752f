"""Top-level settings that no stage of a method reads: reported by a training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ltr.configuration.own_choices import changes, own_choice
from ltr.errors import LtrError
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, Stage

_GROUPS = ("sampler", "loss")  # other groups are chosen by data sets, recipes and these two


def warn_of_unread_settings(
    config: Mapping[str, Any], method: Method, stages: Sequence[Stage], main: Settings, dataset_info: DatasetInfo
) -> None:
    """Warn of a sampler and a loss of the top level that differ from the method's own choice and change no training.

    Whether a training reads them is a matter of the method and its options, such as ``start_from``. The stages are
    planned with the method's own choice to find out.

    Args:
        main: the settings of the top level, from which ``stages`` were planned.
    """
    for group in _GROUPS:
        chosen = own_choice(group, config["method"]["name"], config["dataset"]["name"])
        changed = changes(group, getattr(main, group), chosen, config)
        is_true = any(getattr(settings, group) == getattr(main, group) for _, settings, _ in _trainings(stages))
        if (
            not changed
            or is_true
            or _trainings(stages) != _replanned(method, main.replaced(**{group: chosen}), dataset_info)
        ):
            continue
        nodes = [key for key, node in config["method"].items() if isinstance(node, Mapping) and group in node]
        where = " or ".join(f"method.{node}.{group}" for node in nodes)
        warnings.warn(
            f"{' '.join(changed)} has no effect: no stage that method={config['method']['name']} trains reads the "
            f"top-level {group}. {f'Set {where}, or leave it out' if where else 'Leave it out'}",
            stacklevel=2,
        )


def _trainings(stages: Sequence[Stage]) -> list[tuple[Any, ...]]:
    return [
        (stage.name, stage.settings, dict(stage.options))
        for stage in stages
        if stage.module is not None and stage.checkpoint is None
    ]


def _replanned(method: Method, settings: Settings, dataset_info: DatasetInfo) -> list[tuple[Any, ...]] | None:
    """Return the trainings of other settings; None if the method refuses them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the run's own settings have been shown
        try:
            return _trainings(method.stages(settings, dataset_info))
        except (LtrError, LookupError, TypeError, ValueError):  # as for interpolations that are not resolved
            return None
