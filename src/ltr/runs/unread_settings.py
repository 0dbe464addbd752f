"""Settings that a training reads nowhere: top-level configs, options of the method, and learning rates of parts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltr.configuration.allowed import as_text
from ltr.configuration.own_choices import changes, own_choice, own_options
from ltr.errors import LtrError
from ltr.methods.core.options import Options
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, Stage

_GROUPS = ("sampler", "loss")  # other groups are chosen by data sets, recipes and these two
_RATES = {"head_lr": "head", "last_block_lr": "last_block"}  # of an optimiser -> name of its parameter group
_PARTS = {"head_lr": "a trained head", "last_block_lr": "a trained last block of the backbone",
          "extra_lr": "a trained module besides backbone and head"}  # fmt: skip


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


def warn_of_unread_options(config: Mapping[str, Any], method: Method) -> None:
    """Warn of options of the method that its other options leave without effect, such as a weight of 0.

    It is a warning, because the other value may belong to an ablation, or to a job of a sweep.
    """
    options = getattr(method, "options", None)
    if not isinstance(options, Options):
        return
    name = config["method"]["name"]
    shipped, changed = own_options(name, config["dataset"]["name"]), options.changed(options)
    for key, condition in options.unread().items():
        if key in changed and (typed := changes("method", {key: options[key]}, shipped, config)):
            needed = re.sub(r"(\w+)(?=!=|=|>)", r"method.\1", condition)
            warnings.warn(
                f"{' '.join(typed)} has no effect: method={name} reads it only with {needed}. Leave it out",
                stacklevel=2,
            )


def warn_of_unread_rates(config: Mapping[str, Any], trainings: Sequence[tuple[Settings, Iterable[str]]]) -> None:
    """Warn of learning rates of parts that no training has.

    Args:
        trainings: settings of each training, and the names of its optimiser's parameter groups.
    """
    nodes = {f"method.{name}.": node for name, node in config["method"].items() if isinstance(node, Mapping)}
    for key, part in _PARTS.items():
        with_rate = [one for one in trainings if one[0].optimizer.get(key) is not None]
        if not with_rate or any(_has_part(key, names) for _, names in with_rate):
            continue
        rates = {where: (node.get("optimizer") or {}).get(key) for where, node in {"": config, **nodes}.items()}
        typed = [f"{where}optimizer.{key}={as_text(rate)}" for where, rate in rates.items() if rate is not None]
        warnings.warn(f"{' '.join(typed)} has no effect: no stage that reads it has {part}. Leave it out", stacklevel=2)


def _has_part(rate: str, groups: Iterable[str]) -> bool:
    names = {name.removesuffix(".no_decay") for name in groups}
    return _RATES[rate] in names if rate in _RATES else bool(names - {"backbone", *_RATES.values()})


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
