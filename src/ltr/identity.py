"""Stable names of ltr's classes and functions, which do not change when code is moved or renamed.

Whatever a config, a checkpoint or the key of a stage refers to carries a short name beside its definition:

    @named("loss/ldam")
    class LDAM(ClassificationLoss): ...

Checkpoints store these names, and keys are computed from them, so a class may move to another module without orphaning
anything that is stored. There is no list of names to keep: they are read from the source text, without importing it.
Earlier versions wrote import paths instead of names. `ltr.former_paths` translates them, and the former spellings of
configuration keys. Code outside ltr has no names and is known by its import path.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ltr.former_paths import CONFIGURATION, FORMER_KEYS, FORMER_PATHS, LATER_PATHS

T = TypeVar("T")

_ROOT = Path(__file__).parent
_DECLARED = re.compile(r'^@named\("([a-z0-9_/]+)"\)\n(?:@.*\n)*(?:class|def) (\w+)', re.MULTILINE)
_TARGET = "_target_"


def named(name: str) -> Callable[[T], T]:
    """Give a class or function the name that stored files know it by, e.g. ``loss/ldam``."""

    def mark(declared: T) -> T:
        declared.__ltr_name__ = name  # type: ignore[attr-defined]
        return declared

    return mark


@functools.cache
def names() -> dict[str, str]:
    """Return the import path of every name.

    Raises:
        ValueError: two declarations share a name.
    """
    paths: dict[str, str] = {}
    for file in sorted(_ROOT.rglob("*.py")):
        module = ".".join(("ltr", *file.relative_to(_ROOT).with_suffix("").parts))
        for name, declared in _DECLARED.findall(file.read_text(encoding="utf-8")):
            if name in paths:
                raise ValueError(f"'{name}' names both {paths[name]} and {module}.{declared}")
            paths[name] = f"{module}.{declared}"
    return paths


@functools.cache
def _names_by_path() -> dict[str, str]:
    return {**FORMER_PATHS, **LATER_PATHS, **{path: name for name, path in names().items()}}


@functools.cache
def _first_paths() -> dict[str, str]:
    first: dict[str, str] = {}
    for path, name in FORMER_PATHS.items():
        first.setdefault(name, path)
    return first


def name_of(target: str) -> str:
    """Return the name of an import path, today's or a former one; any other text is returned unchanged."""
    return _names_by_path().get(target, target)


def path_of(target: str) -> str:
    """Return today's import path of a name or of a former import path; any other text is returned unchanged."""
    return names().get(name_of(target), target)


def with_names(node: Any) -> Any:
    """Return a copy of a configuration whose ``_target_`` entries are names where there are any."""
    return _translated(node, name_of)


def with_paths(node: Any) -> Any:
    """Return a copy of a configuration with today's import paths as ``_target_`` and today's options beside them."""
    return _translated(node, path_of, options_of_today)


def as_first_written(node: Any) -> Any:
    """Return a copy of a configuration with each ``_target_`` and option as the version that introduced it wrote it.

    Digests are computed from this form, so that stages stored before names were introduced keep their keys.
    """
    return _translated(node, first_path_of, options_as_first_written)


def first_path_of(target: str) -> str:
    """Return what the version that introduced a class wrote for it: a former import path, or else its name."""
    name = name_of(target)
    return _first_paths().get(name, name)


def options_of_today(target: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a class with each former key replaced by today's."""
    return _with_keys(options, FORMER_KEYS.get(name_of(target), {}))


def options_as_first_written(target: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a class with the keys of the version that introduced them."""
    return _with_keys(options, _first_keys(name_of(target)))


def config_of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's whole configuration, nested, with today's keys; targets stay as they are."""
    config = _translated(config, lambda target: target, options_of_today)
    return _with_dotted_keys(config, FORMER_KEYS[CONFIGURATION])


def config_as_first_written(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's whole configuration, nested, with the targets and keys that digests hold."""
    return _with_dotted_keys(as_first_written(config), _first_keys(CONFIGURATION))


def flat_config_of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's configuration, flat with dotted keys, with today's keys and import paths."""
    targets = {key.removesuffix(_TARGET).rstrip("."): value for key, value in config.items() if key.endswith(_TARGET)}
    former = former_keys(targets)
    return {today_of(key, former): path_of(value) if key.endswith(_TARGET) else value for key, value in config.items()}


def former_keys(targets: Mapping[str, str]) -> dict[str, str]:
    """Return the former dotted keys of a configuration and what each is called today.

    Args:
        targets: dotted path of a node -> its ``_target_``.
    """
    former = dict(FORMER_KEYS[CONFIGURATION])
    for node, target in targets.items():
        former |= {f"{node}.{old}": f"{node}.{new}" for old, new in FORMER_KEYS.get(name_of(target), {}).items()}
    return former


def has_former_options(target: str) -> bool:
    """Return whether a class has options that were once called otherwise."""
    return name_of(target) in FORMER_KEYS


def today_of(key: str, former: Mapping[str, str]) -> str:
    """Return today's spelling of a dotted key, or of a key below it; any other key is returned unchanged."""
    for old, new in former.items():
        if key == old or key.startswith(f"{old}."):
            return new + key[len(old) :]
    return key


def _first_keys(owner: str) -> dict[str, str]:
    return {new: old for old, new in FORMER_KEYS.get(owner, {}).items()}


def _with_keys(node: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    return {keys.get(key, key): value for key, value in node.items()}


def _with_dotted_keys(config: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """Return a nested configuration with some keys renamed; a key and its replacement lie in the same node."""
    renamed = dict(config)
    for old, new in keys.items():
        node, _, last = old.rpartition(".")
        if not node:
            renamed = _with_keys(renamed, {old: new})
        elif isinstance(renamed.get(node), Mapping):
            renamed[node] = _with_keys(renamed[node], {last: new.rpartition(".")[2]})
    return renamed


def _translated(
    node: Any,
    target_of: Callable[[str], str],
    options_of: Callable[[str, Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Any:
    if isinstance(node, Mapping):
        target = node.get(_TARGET)
        if options_of is not None and isinstance(target, str):
            node = options_of(target, node)
        return {
            key: target_of(value)
            if key == _TARGET and isinstance(value, str)
            else _translated(value, target_of, options_of)
            for key, value in node.items()
        }
    if isinstance(node, (list, tuple)):
        return type(node)(_translated(value, target_of, options_of) for value in node)
    return node
