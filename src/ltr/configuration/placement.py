"""A check that something reads every key of a composed configuration.

Hydra accepts configs at any node (``+loss@a.b=ldam``) and any added key, and a run would silently ignore those that
nothing reads. Groups check their own keys, by name or against the signature of the code that a config names; this
module checks the top level, and the keys of a data set.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ltr.configuration.allowed import as_text
from ltr.configuration.configs import PRIVATE_KEYS, conf_directory, config_names, leaves, read_config
from ltr.configuration.dataset_options import PARTS, READ_BY_PROGRAM
from ltr.configuration.declarations import fields_of
from ltr.configuration.parsing import Parsed, parse
from ltr.configuration.rules import target
from ltr.errors import nearest

_OF_HYDRA = ("launcher", "sweeper", "sweep", "run", "callbacks")
_REFERENCE = re.compile(r"(?<![\w.])(\.*)([A-Za-z_]\w*(?:\.\w+)*)")


def unread_keys(config: Mapping[str, Any], overrides: Iterable[str] = (), hydra: Any = None) -> list[str]:
    """Return a sentence for every added config or key that nothing reads.

    Args:
        config: the composed configuration, not resolved.
        overrides: overrides of the command, which messages quote.
        hydra: the node ``hydra``, which may refer to keys as well.
    """
    known = {*_top_level(), "hydra", *PRIVATE_KEYS}
    candidates = {key: value for key, value in config.items() if key not in known}
    dataset = config.get("dataset")
    if isinstance(dataset, Mapping):
        read = (*fields_of(READ_BY_PROGRAM), *PARTS, *PRIVATE_KEYS)
        candidates |= {f"dataset.{key}": value for key, value in dataset.items() if key not in read}
    if not candidates:
        return []
    added = [(leaf, value) for key, node in candidates.items() for leaf, value in leaves(node, key)]
    added += [(key, node) for key, node in candidates.items() if node == {}]
    rest = [(key, value) for key, value in leaves(config) if not _inside(key, candidates)]
    if isinstance(hydra, Mapping):
        rest += leaves({"hydra": {key: hydra[key] for key in _OF_HYDRA if key in hydra}})
    unread = _not_referred_to(added, rest)
    shipped = _keys_beside(dataset) if any(key.startswith("dataset.") for key, _ in unread) else ()
    unread = [(key, value) for key, value in unread if ".".join(key.split(".")[:2]) not in shipped]
    return _sentences(unread, config, overrides)


def _top_level() -> list[str]:
    config = read_config("train")
    groups = [name for entry in config["defaults"] if isinstance(entry, dict) for name in entry if " " not in name]
    return [*groups, *(key for key in config if key != "defaults")]


def _inside(key: str, nodes: Collection[str]) -> bool:
    return any(key == node or key.startswith(f"{node}.") for node in nodes)


def _not_referred_to(added: list[tuple[str, Any]], rest: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return the added keys that no interpolation refers to, directly or through other added keys."""
    texts, unread = rest, added
    while texts and unread:
        named = {name for key, value in texts for name in _references(key, value)}
        texts = [(key, value) for key, value in unread if any(_touches(key, name) for name in named)]
        unread = [entry for entry in unread if entry not in texts]
    return unread


def _references(key: str, value: Any) -> list[str]:
    """Return the absolute keys in a value's interpolations; false positives are harmless."""
    if isinstance(value, list):
        return [name for entry in value for name in _references(key, entry)]
    if isinstance(value, Mapping):
        return [name for entry in value.values() for name in _references(key, entry)]
    if not isinstance(value, str) or "${" not in value:
        return []
    above = key.split(".")
    keys = []
    for dots, name in _REFERENCE.findall(value):
        keys.append(".".join([*above[: len(above) - len(dots)], name]) if dots else name)
    return keys


def _touches(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.")


def _keys_beside(dataset: Any) -> tuple[str, ...]:
    """Return the keys of shipped data sets with the same source."""
    code = [target(dataset, part) for part in ("source", "split")]
    configs = [read_config(f"dataset/{name}") for name in config_names("dataset")]
    alike = [config for config in configs if [target(config, part) for part in ("source", "split")] == code]
    return tuple(dict.fromkeys(f"dataset.{key}" for config in alike for key in config))


def _sentences(unread: list[tuple[str, Any]], config: Mapping[str, Any], overrides: Iterable[str]) -> list[str]:
    parsed, _ = parse(overrides)
    sentences: dict[str, str] = {}
    for key, value in unread:
        overriding = [one for one in parsed if _touches(key, _placed_at(one))]
        overriding = overriding or [one for one in parsed if one.adds and _placed_at(one) == "_global_"]
        for one in overriding:
            at = _placed_at(one)
            sentences.setdefault(one.text, f"{one.text}: nothing reads '{at}'{_advice(one, at, config)}")
        if not overriding:
            top = key if key.startswith("dataset.") else key.split(".")[0]
            text = top if top != key and _is_config(config.get(top)) else f"{key}={as_text(value)}"
            sentences.setdefault(text, f"{text}: nothing reads it{_advice(None, key, config)}")
    return list(sentences.values())


def _is_config(node: Any) -> bool:
    return isinstance(node, Mapping) and "_target_" in node


def _placed_at(one: Parsed) -> str:
    """Return the node at which an override puts its values."""
    if not _names_group(one):
        return one.key
    package = one.override.package
    return one.key.replace("/", ".") if package is None else package.partition(":")[2] or package


def _names_group(one: Parsed) -> bool:
    return one.override.package is not None or (conf_directory() / one.key).is_dir()


def _advice(override: Parsed | None, key: str, config: Mapping[str, Any]) -> str:
    if override is not None and _names_group(override):
        places = _places_of(override.key.rpartition("/")[2], config)
        if places:
            return f". A config of this group is read at: {', '.join(places)}. Write {_written(override, places)}"
        return ". Choose it without a package, as GROUP=NAME"
    if not key.startswith("dataset.") and (hint := nearest(key.split(".")[0], _top_level())):
        return hint
    return (
        ". A key can be added where a config hands its keys to code, e.g. +loss.KEY=VALUE, or where another config "
        "refers to it"
    )


def _places_of(group: str, config: Mapping[str, Any]) -> list[str]:
    """Return the nodes of the composed configuration with a config of this group."""
    nodes = [group] if isinstance(config.get(group), Mapping) else []
    prefixes = {key.rsplit(f".{group}.", 1)[0] for key, _ in leaves(config) if f".{group}." in key}
    return nodes + sorted(f"{prefix}.{group}" for prefix in prefixes)


def _written(override: Parsed, places: list[str]) -> str:
    name = override.values[0]
    texts = [f"{override.key}={name}" if node == override.key else f"{override.key}@{node}={name}" for node in places]
    return " or ".join(texts[:2])
