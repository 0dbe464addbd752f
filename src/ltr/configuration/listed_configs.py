"""Configs listed by name: scorers in ``evaluation.scorers``, protocols in ``evaluation.extra_protocols``.

An entry of such a list is the name of a config in the group's folder, or a mapping with a ``_target_``. Names of
shipped configs stay names; those of a user's own folder are replaced by the config's content when a configuration is
composed, so that the ``config.yaml`` of a run is self-contained.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.configuration.configs import config_names, read_config
from ltr.configuration.provided_names import provided_choices
from ltr.configuration.unknown_configs import unknown_config
from ltr.errors import ConfigError, nearest

LISTS = {
    "evaluation.scorers": "scorer",
    "evaluation.usual_scorers": "scorer",
    "evaluation.extra_protocols": "protocol",
    "method.scorers": "scorer",
}
# nodes that take one config of a group with no place at the top level, and what they choose
NODES = {"features.pool": ("pool", "how a stored map or tokens become one vector")}
# a family of configs: pytorch_ood.* is pytorch_ood.KNN and so on
_FAMILY = ".*"
_MEMBER = re.compile(r"\w+")
_NAME = re.compile(r"\w[\w+-]*")


@functools.cache
def listed_names(group: str) -> tuple[str, ...]:
    """Return the names that the shipped configs of a group have in a list."""
    return tuple(str(read_config(f"{group}/{config}").get("name", config)) for config in config_names(group))


def is_shipped(group: str, name: str) -> bool:
    """Return whether a name is a shipped config's, or a member's of a family such as ``pytorch_ood``."""
    family, _, member = name.partition(".")
    known = listed_names(group)
    return (name in known and not name.endswith(_FAMILY)) or (
        family + _FAMILY in known and _MEMBER.fullmatch(member) is not None
    )


def config_of(group: str, entry: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config that an entry of a list stands for, with its name.

    Raises:
        ConfigError: there is no shipped config of this name.
    """
    if isinstance(entry, Mapping):
        return entry
    if not isinstance(entry, str) or not is_shipped(group, entry):
        names = listed_names(group)
        raise ConfigError(
            f"{unknown_config(group, entry, names)}. For one of your own give a mapping with its _target_, or its "
            "config's name and --config-dir"
        )
    return {**read_config(f"{group}/{entry.partition('.')[0]}"), "name": entry}


def problem_of_entry(group: str, entry: Any) -> str | None:
    """Return the reason why an entry of a list is refused, as the end of a sentence; None if it is allowed."""
    names = listed_names(group)
    if isinstance(entry, Mapping):
        return None if isinstance(entry.get("_target_"), str) else f"a {group}'s mapping needs a _target_, its class"
    if isinstance(entry, str) and is_shipped(group, entry):
        return None
    provided = provided_choices(group, str(entry))
    hint = f". Did you mean '{provided[0]}'?" if provided else nearest(str(entry), names)
    return f"allowed is one of: {', '.join(names)}, or a mapping with a _target_{hint}"


def with_own(group: str, entries: Any, read: Callable[[str], Mapping[str, Any] | None]) -> Any:
    """Return the entries of a list with a user's own configs in place of their names.

    Args:
        read: the name of a config of the group -> its content, or None where there is none.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return entries
    resolved = []
    for entry in entries:
        config = read(entry) if isinstance(entry, str) and _NAME.fullmatch(entry) else None
        is_own = config is not None and not (is_shipped(group, entry) and config == read_config(f"{group}/{entry}"))
        resolved.append({"name": entry, **config} if config is not None and is_own else entry)
    return resolved


def reader(group: str, folder: str | None) -> Callable[[str], Mapping[str, Any] | None]:
    """Return a function that reads a config of a group from a user's folder of configs."""
    import yaml

    def read(name: str) -> Mapping[str, Any] | None:
        path = Path(folder or "") / group / f"{name}.yaml"
        if folder is None or not path.is_file():
            return None
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(content, Mapping):
            raise ConfigError(f"{path} holds no keys: a config with a _target_ is needed")
        return content

    return read
