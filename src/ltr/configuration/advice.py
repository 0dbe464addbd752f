"""Advice for error messages: overrides that exist in the configuration and are allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltr.configuration.allowed import find_problem
from ltr.configuration.configs import node_at
from ltr.configuration.parsing import parse
from ltr.configuration.rules import read_rules


def filter_overrides(config: Mapping[str, Any], *overrides: str) -> list[str]:
    """Filter the overrides that this configuration accepts.

    Args:
        config: the resolved configuration, or the part of it that the keys refer to.
        overrides: each ``key=value``, e.g. ``dataset.val=train_fraction``.
    """
    return [text for text in overrides if _can_be_given(config, text)]


def _can_be_given(config: Mapping[str, Any], text: str) -> bool:
    (one,), _ = parse([text])
    path, _, last = one.key.rpartition(".")
    node = node_at(config, path)
    if not isinstance(node, Mapping) or last not in node:
        return False
    rules = read_rules(path, node, config)
    return last not in rules or find_problem(one.values[0], rules[last]) is None


def advise(config: Mapping[str, Any], *overrides: str, otherwise: str) -> str:
    """Return ``Set A or B, or OTHERWISE``, with those overrides that the configuration accepts.

    Args:
        otherwise: advice for every configuration, in the imperative.
    """
    possible = filter_overrides(config, *overrides)
    if not possible:
        return otherwise[:1].upper() + otherwise[1:]
    return f"Set {' or '.join(possible)}, or {otherwise}"


def hold_out(config: Mapping[str, Any], otherwise: str) -> str:
    """Return advice for options that need validation images, see `advise`."""
    return advise(config, "dataset.val=train_fraction", otherwise=otherwise)
