"""Names of table lines: the values of chosen settings, extended by differing settings where names are equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os.path import commonpath
from pathlib import PurePath
from typing import Any

from ltr.errors import ConfigError, nearest
from ltr.identity import name_of
from ltr.report.read_runs import FinishedRun, settings, shown_value

_MOST_DIFFERENCES = 4
_OWN_COLUMN = ("trainer.max_epochs",)  # settings that tables show in a column


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
    # the table has a column for it, unless nothing else tells the lines apart
    rest = [key for key in differing if key not in _OWN_COLUMN]
    if len(set(zip(*(texts[key] for key in rest)))) == len(configs):
        differing = rest
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
        if node == "tune":  # its choices are not names of papers: shown as typed
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
    """Return paths in the shortest form that tells them apart: file names, or the folders that differ.

    Values are left as they are if none of them is a path, or if one is neither a text nor None.
    """
    texts = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    if not any("/" in text for text in texts) or any(not (value is None or isinstance(value, str)) for value in values):
        return list(values)
    paths = {text: PurePath(text) for text in texts}
    short = next((names for names in _short_forms(paths) if len(set(names.values())) == len(paths)), {})
    return [short.get(value, value) for value in values]


def _short_forms(paths: Mapping[str, PurePath]) -> Iterator[dict[str, str]]:
    """Yield forms of paths, from the shortest; they need not tell the paths apart."""
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
