"""Location of the shipped configs, reading them without Hydra, and helpers for composed configurations."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ltr.errors import ConfigError

# names of the options that were filled in for a config whose class had fewer of them at first, see `without_defaults`
FILLED_IN = "_filled_in_"
# private keys of a config: rules for its values, and the tables and published number of a user's experiment. None of
# them reaches the code that a config names, a result file or the identity of a stage or a run
PRIVATE_KEYS = ("_allowed_", FILLED_IN, "_table_", "_published_")
OPTIONAL = ("sharpness",)  # groups of which no config needs to be chosen
# the group of recipes that several data sets share, as a config of a data set chooses one
_SHARED_RECIPE = re.compile(r"override\s+/?recipe/shared(@.*)?")


def conf_directory() -> Path:
    """Return the folder of configs: inside an installed package, or next to ``src`` in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "conf", package.parent.parent / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError(
        f"the configs are missing: looked in {package / 'conf'} and in the checkout's conf/. Install ltr anew"
    )


def read_config(config: str) -> dict[str, Any]:
    """Read a shipped config over its bases, without Hydra, e.g. ``read_config("trainer/cpu")``.

    Options that the files leave out have their declared defaults, see `ltr.configuration.declared_defaults`. A base is
    a plain name in the defaults list. Of the list itself only the choices of other groups are kept, those of the bases
    first.
    """
    return _merged(config, frozenset())


def _merged(config: str, above: frozenset[str]) -> dict[str, Any]:
    import yaml

    from ltr.configuration.declared_defaults import with_defaults

    if config in above:
        raise ConfigError(f"{config} is a base of itself. Remove it from its own defaults list")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load((conf_directory() / f"{config}.yaml").read_text(encoding="utf-8"), loader)
    content = dict(content) if isinstance(content, dict) else {}
    entries = content.pop("defaults", None) or []
    choices: list[Any] = []
    merged: dict[str, Any] = {}
    for entry in entries:
        if isinstance(entry, str) and entry != "_self_":
            base = _merged(entry[1:] if entry.startswith("/") else f"{Path(config).parent}/{entry}", above | {config})
            choices += base.pop("defaults", [])
            merged = updated(merged, base)
    choices += [entry for entry in entries if not isinstance(entry, str)]
    content = with_defaults(config, content, merged)
    return {**({"defaults": choices} if choices else {}), **updated(merged, content)}


def updated(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of both, with nested mappings merged and the values of ``above`` where both have one."""
    result = dict(below)
    for key, value in above.items():
        held = result.get(key)
        result[key] = updated(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
    return result


def config_names(group: str) -> list[str]:
    """Return the names of the shipped configs of a group, without bases."""
    return sorted(path.stem for path in (conf_directory() / group).glob("*.yaml"))


@functools.cache
def recipes_of(dataset: str, method: str) -> tuple[str, ...]:
    """Return the shipped recipes that a data set and a method take, in the order in which they apply.

    Returns:
        Configs as `read_config` takes them, e.g. ``("recipe/shared/digits", "recipe/digits_lt_herbs")``.
    """
    choices = read_config(f"dataset/{dataset}").get("defaults", []) if dataset in config_names("dataset") else []
    shared = [name for entry in choices for key, name in entry.items() if _SHARED_RECIPE.fullmatch(str(key))]
    names = [dataset, f"{dataset}_{method}"]
    if shared:
        names = [f"shared/{shared[-1]}", dataset, f"shared/{shared[-1]}_{method}", names[-1]]
    # the names may come from an untrusted file, so they are never used as paths
    shipped = {*config_names("recipe"), *(f"shared/{name}" for name in config_names("recipe/shared"))}
    return tuple(f"recipe/{name}" for name in names if name in shipped)


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, value) below ``node``, without private entries."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key not in PRIVATE_KEYS:
                yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def node_at(node: Any, path: str) -> Any:
    """Return the value at a dotted path below ``node``; ``node`` for '', None if there is no value."""
    for part in filter(None, path.split(".")):
        if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            node = node.get(part) if isinstance(node, Mapping) else None
    return node


def mappings(node: Any, path: str = "") -> Iterator[tuple[str, Mapping]]:
    """Yield every mapping at or below ``node`` with its dotted path."""
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            if key not in PRIVATE_KEYS:
                yield from mappings(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from mappings(value, f"{path}.{number}")


def without_private(node: Any) -> Any:
    """Return a copy without private keys and options of `without_defaults`, for result files and hashes."""
    return _filtered(node, PRIVATE_KEYS)


def without_defaults(node: Any) -> Any:
    """Return a copy without the filled-in options that have their declared defaults.

    Such options can be overridden and are shown like others. They enter the identity of stages and runs only with
    another value, as when a config had to list them.
    """
    return _filtered(node, (FILLED_IN,))


def _filtered(node: Any, private: Collection[str]) -> Any:
    if isinstance(node, Mapping):
        left_out = {*private, *(_at_default(node) if FILLED_IN in node else ())}
        return {key: _filtered(value, private) for key, value in node.items() if key not in left_out}
    if isinstance(node, (list, tuple)):
        return [_filtered(value, private) for value in node]
    return node


def _at_default(node: Mapping[str, Any]) -> list[str]:
    """Return the filled-in options of a config that have their declared defaults."""
    from ltr.configuration.declarations import options_of

    options = options_of(node["_target_"])
    return [name for name in node[FILLED_IN].split() if name in options and node.get(name) == options[name].value]


def canonical_json(value: Any) -> str:
    """Return canonical JSON: sorted keys, no spaces, floats as Python prints them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
