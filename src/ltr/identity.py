"""Names of ltr's own classes and functions that outlive a move or a renaming.

Whatever a config, a checkpoint or the key of a stage refers to carries a short name beside its definition:

    @named("loss/ldam")
    class LDAM(ClassificationLoss): ...

Checkpoints store these names, and keys are computed from them, so a class may move to another module without orphaning
anything that is stored. There is no list of names to keep: they are read from the source text, without importing it.
What earlier versions wrote in place of a name, an import path, stands in `ltr.former_paths`. Code outside ltr has no
names; its import path stands for itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ltr.former_paths import FORMER_PATHS

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
    return {**FORMER_PATHS, **{path: name for name, path in names().items()}}


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
    if target in names():
        return names()[target]
    return names().get(FORMER_PATHS.get(target, ""), target)


def with_names(node: Any) -> Any:
    """Return a copy of a configuration whose ``_target_`` entries are names where there are any."""
    return _with_targets(node, name_of)


def with_paths(node: Any) -> Any:
    """Return a copy of a configuration whose ``_target_`` entries are today's import paths."""
    return _with_targets(node, path_of)


def as_first_written(node: Any) -> Any:
    """Return a copy of a configuration with each ``_target_`` as the version that introduced it wrote it.

    Digests are computed from this form: what was stored before there were names is found under its key.
    """
    return _with_targets(node, first_path_of)


def first_path_of(target: str) -> str:
    """Return what the version that introduced a class wrote for it: a former import path, or else its name."""
    name = name_of(target)
    return _first_paths().get(name, name)


def _with_targets(node: Any, change: Callable[[str], str]) -> Any:
    if isinstance(node, Mapping):
        return {
            key: change(value) if key == _TARGET and isinstance(value, str) else _with_targets(value, change)
            for key, value in node.items()
        }
    if isinstance(node, (list, tuple)):
        return type(node)(_with_targets(value, change) for value in node)
    return node
