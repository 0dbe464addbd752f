"""Sweeps over configs, such as ``-m method=crt,lws``.

Hydra composes the primary config before it looks at a sweep's values, and there refuses every key that only the swept
configs have, e.g. ``method.classifier.optimizer.lr=0.01`` with ``method=crt,lws``. A value that is written as a sweep
of one value, ``choice(0.01)``, is applied later, in each job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob

from ltr.configuration.configs import conf_directory
from ltr.configuration.parsing import Parsed, parse
from ltr.errors import ConfigError

_NULL = "${oc.decode:null}"  # Hydra's grammar has no choice(null)
_NULL_OF_JOB = r"$\{oc.decode\:null\}"  # as a sweeper passes it


def defer_values(overrides: list[str], config_dir: str | None) -> list[str]:
    """Return the overrides with values of keys of swept configs written as sweeps of one value.

    For a swept group these are all other keys, for a nested choice the keys below it.

    Args:
        overrides: overrides of a command with ``-m``.
        config_dir: the user's own folder of configs (``--config-dir``), or None.

    Raises:
        ConfigError: a pattern fits no config; Hydra would run nothing and exit with 0.
    """
    parsed, mistakes = parse(overrides)
    folders = [conf_directory(), *([Path(config_dir)] if config_dir else [])]
    swept = [(one, [folder / one.key for folder in folders]) for one in parsed if one.is_sweep]
    swept = [(one, groups) for one, groups in swept if any(group.is_dir() for group in groups)]
    nested = [f"{one.key}." for one in parsed if one.is_sweep]
    nested = [node for node in nested if any(one.key.startswith(node) for one in parsed)]
    if mistakes or not (swept or nested):
        return overrides
    for one, groups in swept:
        configs = sorted(config.stem for group in groups for config in group.glob("*.yaml"))
        if isinstance(one.values[0], Glob) and not one.values[0].filter(configs):
            raise ConfigError(f"{one.text}: no config fits this pattern; there are: {', '.join(configs) or 'none'}")
    return [_as_choice(one) if swept or one.key.startswith(tuple(nested)) else one.text for one in parsed]


def _as_choice(one: Parsed) -> str:
    plain = not (one.is_sweep or one.adds or one.override.is_delete() or one.override.is_hydra_override())
    if not plain or "." not in one.key:
        return one.text
    if one.values == [None]:
        return f"{one.before}choice({_NULL})"
    text = f"{one.before}choice({one.text[len(one.before) :]})"
    again, mistakes = parse([text])
    return text if not mistakes and again[0].values == one.values else one.text


def as_written(override: str) -> str:
    """Return a job's override as it stood on the command line; Hydra's sweeper writes ``True`` for ``true``."""
    text = override.replace(_NULL_OF_JOB, "null")
    before, equals, value = text.partition("=")
    return f"{before}{equals}{value.lower()}" if value in ("True", "False") else text


def jobs_of(swept: list[Parsed]) -> list[list[str]]:
    """Return choices of configs that show every config of a sweep once, with the first ones of the other groups."""
    # sampler= and sampler@method.sampler= are two choices
    texts = {one.before: [f"{one.before}{_written(value)}" for value in one.values] for one in swept}
    first = {group: choices[0] for group, choices in texts.items()}
    further = [{**first, group: text} for group, choices in texts.items() for text in choices[1:]]
    return [list(configs.values()) for configs in [first, *further]]


def _written(value: Any) -> str:
    """Return the name of a config, or of several, as in ``experiment=[a,b]``."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value)
