"""Names of table lines: the values of chosen settings, extended by differing settings where names are equal."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonpath
from pathlib import PurePath
from typing import Any

from ltr.errors import ConfigError, nearest
from ltr.identity import name_of
from ltr.report.read_runs import FinishedRun, settings, shown_value

_MOST_DIFFERENCES = 4


def setting(config: dict[str, Any], key: str) -> Any:
    """Return a setting by key or short name: ``method`` gives ``method.name``, ``loss`` the name of its class."""
    for candidate in (key, f"{key}.name", f"{key}._target_"):
        if candidate in config:
            return config[candidate]
    return None


def check_keys(runs: Sequence[FinishedRun], by: Sequence[str]) -> None:
    """Raise ConfigError for a setting that no run has."""
    configs = {id(run.config): run.config for run in runs}.values()
    for key in by:
        if all(setting(config, key) is None for config in configs):
            known = sorted({name for config in configs for name in config})
            groups = sorted({name.partition(".")[0] for name in known})
            raise ConfigError(f"--by {key}: no run has this setting{nearest(key, [*groups, *known])}")


def differences(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return for each configuration the settings that differ from the others, as ``loss=LDAM beta=0.99``."""
    settings_of_runs = [settings(config) for config in configs]
    # a key that some configurations lack belongs to another version and does not describe the run
    keys = [key for key in settings_of_runs[0] if all(key in config for config in settings_of_runs)]
    texts = {key: [repr(config.get(key)) for config in settings_of_runs] for key in keys}
    differing = [key for key in keys if len(set(texts[key])) > 1]
    # a different class has different arguments: its name suffices
    nodes = [key.removesuffix("._target_") for key in differing if key.endswith("._target_")]
    kept_keys = [key for key in differing if not any(key.startswith(f"{node}.") for node in nodes)]
    kept_keys = [key for key in kept_keys if not (key == "dataset.beta" and "loss.beta" in kept_keys)]
    shown = [*((node, f"{node}._target_") for node in nodes), *((key, key) for key in kept_keys)]
    shown_names = [
        (
            name.removesuffix(".name")
            if name == "features.name"
            else name
            if name.count(".") < 2
            else name.split(".", 1)[1],
            key,
        )
        for name, key in shown
    ]
    # a library's factory, such as timm's for backbones and optimisers, is shown by the name it builds
    for node in nodes:
        if node == "tune":  # its choices are no names of papers: shown as they are typed
            for config in settings_of_runs:
                config[f"{node}._target_"] = name_of(str(config[f"{node}._target_"])).rpartition("/")[2]
    name_keys = {f"{node}._target_": f"{node}.name" for node in nodes}
    values = {
        key: shortened_paths([config.get(name_keys.get(key, key), config[key]) for config in settings_of_runs])
        for _, key in shown_names
    }
    result = []
    for index in range(len(configs)):
        parts = [f"{name}={shown_value(values[key][index])}" for name, key in shown_names]
        rest = [f"and {len(parts) - _MOST_DIFFERENCES} more"] if len(parts) > _MOST_DIFFERENCES else []
        result.append(" ".join([*parts[:_MOST_DIFFERENCES], *rest]))
    return result


def shortened_paths(values: Sequence[Any]) -> list[Any]:
    """Return values that are paths or None in short form: file names, or paths relative to the common folder."""
    paths = {value: PurePath(value) for value in values if isinstance(value, str) and "/" in value}
    if not paths or any(value is not None and (not isinstance(value, str) or value not in paths) for value in values):
        return list(values)
    names = {path.name for path in paths.values()}
    if len(names) == len(paths):
        return [value if value is None else paths[value].name for value in values]
    if len({path.is_absolute() for path in paths.values()}) > 1:
        return list(values)
    common = commonpath([path.parent for path in paths.values()])
    return [value if value is None else paths[value].relative_to(common).as_posix() for value in values]
