"""Settings of runs as text, for labels and columns of tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from os.path import commonpath
from pathlib import PurePath
from typing import Any

from ltr.configuration.configs import OPTIONAL
from ltr.errors import ConfigError, nearest
from ltr.former_paths import LATER_OPTIONS
from ltr.report.read_runs import FinishedRun, settings, shown_value
from ltr.report.style import NOTHING
from ltr.report.typed_settings import config_name

_MAX_DIFFERENCES = 4
_COLUMNS = ("trainer.max_epochs",)  # settings that have a column in tables

_STAGE_EPOCHS = re.compile(r"method\.\w+\.epochs")


def setting(config: dict[str, Any], key: str) -> Any:
    """Return a setting by key or short name: ``method`` gives ``method.name``, ``loss`` the name of its class."""
    for candidate in (key, f"{key}.name", f"{key}._target_"):
        if candidate in config:
            return config[candidate]
    return None


def check_keys(runs: Sequence[FinishedRun], keys: Sequence[str], flag: str) -> None:
    """Raise ConfigError for a setting of a flag that no run has."""
    configs = {id(run.config): run.config for run in runs}.values()
    for key in keys:
        if all(setting(config, key) is None for config in configs):
            known = sorted({name for config in configs for name in config})
            groups = sorted({name.partition(".")[0] for name in known})
            raise ConfigError(f"{flag} {key}: no run has this setting{nearest(key, [*groups, *known])}")


def differences(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return for each configuration the settings that differ from the others, as overrides: ``loss=ldam``."""
    not_chosen = {f"{group}._target_": None for group in OPTIONAL}
    settings_of_runs = [not_chosen | settings(config) for config in configs]
    # another key that some configurations lack belongs to another version and does not describe the run
    keys = [key for key in settings_of_runs[0] if all(key in config for config in settings_of_runs)]
    texts = {key: [repr(config[key]) for config in settings_of_runs] for key in keys}
    differing = [key for key in keys if len(set(texts[key])) > 1]
    # a setting with a column is named only if nothing else tells the lines apart
    without_columns = [key for key in differing if key not in _COLUMNS]
    if len(set(zip(*(texts[key] for key in without_columns)))) == len(configs):
        differing = without_columns
    # a different class has different arguments: its name suffices
    nodes = [key.removesuffix("._target_") for key in differing if key.endswith("._target_")]
    plain_keys = [key for key in differing if not any(key.startswith(f"{node}.") for node in nodes)]
    plain_keys = [key for key in plain_keys if not (key == "dataset.beta" and "loss.beta" in plain_keys)]
    values = {node: [_class_name(config, node) for config in settings_of_runs] for node in nodes}
    values |= {key: [config[key] for config in settings_of_runs] for key in plain_keys}
    values = {key: shortened_paths(values_of_runs) for key, values_of_runs in values.items()}
    result = []
    for index in range(len(configs)):
        parts = [f"{_typed_key(key)}={shown_value(values_of_runs[index])}" for key, values_of_runs in values.items()]
        more = [f"and {len(parts) - _MAX_DIFFERENCES} more"] if len(parts) > _MAX_DIFFERENCES else []
        result.append(" ".join([*parts[:_MAX_DIFFERENCES], *more]))
    return result


def with_later_options(configs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the settings with the defaults of options that a run of an earlier version had not."""
    defaults: dict[tuple[str, str | None], Any] = {}  # by key, and the class of which it is an option
    for config in configs:
        for key in config:
            node, _, name = key.rpartition(".")
            if name in LATER_OPTIONS:
                defaults[key, config.get(f"{node}._target_")] = LATER_OPTIONS[name][0]
    return [
        {
            key: value
            for (key, target), value in defaults.items()
            if config.get(f"{key.rpartition('.')[0]}._target_") == target
        }
        | config
        for config in configs
    ]


def _typed_key(key: str) -> str:
    """Return a key as a user types it: ``features`` for ``features.name``."""
    return "features" if key == "features.name" else key


def _class_name(config: Mapping[str, Any], node: str) -> Any:
    """Return what chooses the class of a node: the name of its config or in a library; else its import path.

    None where an optional config is not chosen.
    """
    if config[f"{node}._target_"] is None:
        return None
    return config.get(f"{node}.name") or config_name(config, node) or config[f"{node}._target_"]


def schedule_text(config: Mapping[str, Any]) -> str:
    """Return the epochs of all stages as text: ``200 epochs + classifier 10``."""
    stages = [f"{key.split('.')[-2]} {value}" for key, value in config.items() if _STAGE_EPOCHS.fullmatch(key)]
    return " + ".join([f"{config.get('trainer.max_epochs', NOTHING)} epochs", *stages])


def commit_text(code: Mapping[str, Any]) -> str:
    """Return the commit of a run's ``provenance.json``, and whether it had uncommitted changes; empty if unknown."""
    commit = (code.get("commit") or "")[:10]
    return f"{commit} with uncommitted changes" if commit and code.get("dirty") else commit


def shortened_paths(values: Sequence[Any]) -> list[Any]:
    """Return paths in the shortest form that tells them apart: file names, or the folders that differ.

    The values stay unchanged if none of them is a path, or if one is neither a text nor None.
    """
    texts = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    if not any("/" in text for text in texts) or any(not (value is None or isinstance(value, str)) for value in values):
        return list(values)
    paths = {text: PurePath(text) for text in texts}
    short = next((names for names in _short_forms(paths) if len(set(names.values())) == len(paths)), {})
    return [short.get(value, value) for value in values]


def _short_forms(paths: Mapping[str, PurePath]) -> Iterator[dict[str, str]]:
    """Yield forms of paths, the shortest first; in some of them paths may be equal."""
    yield {text: path.name for text, path in paths.items()}
    if len({len(path.parts) for path in paths.values()}) == 1:
        columns = [
            column for column, parts in enumerate(zip(*(p.parts for p in paths.values()))) if len(set(parts)) > 1
        ]
        yield {text: "/".join(path.parts[column] for column in columns) for text, path in paths.items()}
    if len({path.is_absolute() for path in paths.values()}) == 1:
        common = commonpath([path.parent for path in paths.values()])
        yield {text: path.relative_to(common).as_posix() for text, path in paths.items()}
    yield {text: "/".join(path.parts[-2:]) for text, path in paths.items()}
