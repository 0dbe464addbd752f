"""Options that a config leaves out, filled in with the defaults that its class declares.

A config names its class and sets the options that differ from the declaration:

    _target_: ltr.methods.m2m.method.M2m
    name: m2m
    steps: 20

Wherever configs are read, composed or shown, the file stands for all options of the class, as if it held them. They are
filled in file by file, before configs are merged and overrides applied: ``method.beta=0.9`` changes a key that exists.

Configs of ``augment`` did not list all options when the identity of stages was fixed. They name the options that were
filled in, and `ltr.configuration.configs.without_defaults` leaves these out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltr.configuration.configs import FILLED_IN, updated
from ltr.configuration.dataset_options import PARTS, options_referred_to
from ltr.configuration.declarations import Option, Required, options_of
from ltr.identity import options_of_today

# the groups whose configs name a class with all its options
GROUPS = ("method", "loss", "sampler", "head", "backbone", "pool", "tune", "optimizer", "sharpness", "scheduler")
_DATASET, _AUGMENT = "dataset", "augment"
# the default of an option that only an import would tell
_UNKNOWN = Any


def takes_defaults(config: str) -> bool:
    """Return whether options are filled in for a config file, e.g. ``loss/ldam``."""
    return config.partition("/")[0] in (*GROUPS, _DATASET, _AUGMENT)


def with_defaults(config: str, content: Mapping[str, Any], bases: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a config file with the options that neither it nor its bases hold.

    Args:
        config: the file, e.g. ``loss/ldam``.
        content: content of the file, without its defaults list; interpolations are not resolved.
        bases: merged content of its bases, their options filled in.
    """
    group = config.partition("/")[0]
    if group == _DATASET:
        return _of_dataset(content, bases)
    if group == _AUGMENT:
        return _noted(content, _of_class(content, bases))
    return _of_class(content, bases) if group in GROUPS else dict(content)


def _noted(written: Mapping[str, Any], filled: Mapping[str, Any]) -> dict[str, Any]:
    """Return a filled-in node that names the options which were not written."""
    node = {
        key: _noted(written[key], value) if isinstance(value, Mapping) and key in written else value
        for key, value in filled.items()
    }
    added = " ".join(key for key in filled if key not in written)
    return {**node, FILLED_IN: added} if added else node


def _of_class(node: Mapping[str, Any], below: Any) -> dict[str, Any]:
    """Return a node with the options of its ``_target_``."""
    target = node.get("_target_")
    if not isinstance(target, str):
        return dict(node)
    below = below if isinstance(below, Mapping) else {}
    # an option that is written under its former name is not left out
    held = {name: value for written in (below, node) for name, value in options_of_today(target, written).items()}
    return _filled(node, {**held, **below}, options_of(target))


def _filled(node: Mapping[str, Any], below: Any, options: Mapping[str, Option]) -> dict[str, Any]:
    """Return a node with the options that neither it nor ``below`` holds, in the order of their declaration."""
    below = below if isinstance(below, Mapping) else {}
    values: dict[str, Any] = {}
    for name, option in options.items():
        if name in node:
            values[name] = _inner(node[name], below.get(name), option)
        elif option.nested is not None:
            values |= {name: inner} if (inner := _filled({}, below.get(name), option.nested)) else {}
        elif name not in below and _has_default(option):
            values[name] = option.value
    further = {key: value for key, value in node.items() if key not in values}
    leading: dict[str, Any] = {key: further.pop(key) for key in ("_target_", "name") if key in further}
    return {**leading, **values, **further}


def _inner(value: Any, below: Any, option: Option) -> Any:
    """Return the value of an option as it is written, with the options of what is nested in it."""
    if not isinstance(value, Mapping):
        return value
    return _of_class(value, below) if option.nested is None else _filled(value, below, option.nested)


def _has_default(option: Option) -> bool:
    """Return whether an absent option has a value; one that takes a config is a choice of the defaults list."""
    return option.default is not Required and option.default is not _UNKNOWN and not option.takes_config


def _of_dataset(content: Mapping[str, Any], bases: Mapping[str, Any]) -> dict[str, Any]:
    """Return a data set's content with the keys that its source and its split refer to, in their order."""
    referred = options_referred_to(updated(bases, content))
    keys: dict[str, Any] = {}
    for key, option in referred.items():
        if key in content:
            keys[key] = content[key]
        elif key not in bases and _has_default(option):
            keys[key] = option.value
    further = {key: value for key, value in content.items() if key not in keys}
    parts = {part: further.pop(part) for part in PARTS if part in further}
    return {**further, **keys, **parts}
