"""Resolution and checks of a composed configuration."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ltr.configuration.allowed import check_values
from ltr.configuration.configs import leaves, node_at, without_defaults
from ltr.configuration.hydra_nodes import hydra_node
from ltr.configuration.placement import unread_keys
from ltr.configuration.resolvers import register
from ltr.configuration.run_lengths import resolve_run_lengths
from ltr.configuration.structure import check_structure
from ltr.configuration.targets import check_targets
from ltr.errors import refuse

register()


def check_config(
    config: DictConfig, known_mistakes: Iterable[str] = (), overrides: Iterable[str] = ()
) -> dict[str, Any]:
    """Check structure, values and targets of a configuration and return it as plain data.

    Args:
        config: the composed configuration, not yet resolved.
        known_mistakes: mistakes from other checks, for the same message.
        overrides: overrides of the composition, which messages quote.

    Raises:
        ConfigError: the configuration has mistakes; one message names all.
    """
    plain, mistakes = find_mistakes(config, overrides)
    refuse([*known_mistakes, *mistakes], "the configuration is not allowed")
    return plain


checked = check_config  # former name, for one more release


def find_mistakes(config: DictConfig, overrides: Iterable[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Return the configuration as plain data, and a sentence for every mistake in it.

    The data omit values that cannot be resolved. Code that the configs name is not imported.
    """
    raw: Any = OmegaConf.to_container(config, resolve=False)
    plain, unresolved = _resolved(config)
    resolve_run_lengths(plain)
    structural = [line for line in check_structure(plain) if line.split(":")[0] not in unresolved]
    named = {line.split("=")[0] for line in structural}
    values = [line for line in check_values(plain) if line.split("=")[0] not in named]
    wrong_values = [*structural, *values]
    if wrong_values:
        wrong_values = _without_passed_on(wrong_values, dict(leaves(raw)))
    unread = unread_keys(raw, overrides, hydra_node())
    mistakes = [*filter(None, unresolved.values()), *wrong_values, *check_targets(plain), *unread]
    return without_defaults(plain), mistakes


def _without_passed_on(mistakes: list[str], raw: Mapping[str, Any]) -> list[str]:
    """Drop mistakes about interpolations of other wrong values, such as ``scale: ${head.scale}``."""
    wrong = {line.split("=")[0] for line in mistakes}
    return [line for line in mistakes if not _refers_to(raw.get(line.split("=")[0]), wrong)]


def _refers_to(value: Any, keys: Iterable[str]) -> bool:
    """Return whether an unresolved value interpolates one of these keys."""
    return any(re.search(rf"\$\{{[^}}]*(?<![\w.]){re.escape(key)}(?![\w.])", str(value)) for key in keys)


def _resolved(config: DictConfig) -> tuple[dict[str, Any], dict[str, str]]:
    """Return plain data, and a message for each unresolvable key ('' if another key's message covers it)."""
    with contextlib.suppress(OmegaConfBaseException):
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        return plain, {}
    raw: Any = OmegaConf.to_container(config, resolve=False)
    failed: dict[str, tuple[Any, str]] = {}
    for key, value in leaves(raw):
        try:
            node_of_key = OmegaConf.select(config, key, throw_on_resolution_failure=True)
            if OmegaConf.is_config(node_of_key):
                OmegaConf.to_container(node_of_key, resolve=True, throw_on_missing=True)
            if value == "???":
                failed[key] = (value, "its config leaves it open; give it a value")
        except OmegaConfBaseException as error:
            failed[key] = (value, f"cannot be resolved: {str(error).strip().splitlines()[0]}")
    for key in failed:
        above, _, last = key.rpartition(".")
        del node_at(raw, above)[last]
    sentences = {}
    for key, (value, why) in failed.items():
        passed_on = _refers_to(value, failed)
        sentences[key] = "" if passed_on else f"{key}={value}: {why}"
    plain = OmegaConf.to_container(OmegaConf.create(raw), resolve=True)
    return plain, sentences
