"""Conditions under which a method reads an option, declared with it as ``used_if``.

    class RKDOptions(Options, used_if={"temperature": "hkd_weight>0"}):
        ...

A condition compares options of the same declaration: ``key=value``, ``key!=value`` or ``key>number``, joined by ``and``
or by ``or``. A null counts as greater than any number, because it stands for a value that the method chooses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

_COMPARISON = re.compile(r"(\w+)(!=|=|>)(\S+)")


class Comparison(NamedTuple):
    """Comparison of an option with a value."""

    name: str
    relation: str  # = | != | >
    value: Any

    def holds(self, options: Mapping[str, Any]) -> bool:
        """Return whether the comparison holds for the values of the options."""
        actual = options[self.name]
        if self.relation == ">":
            return actual is None or actual > self.value
        return (actual == self.value) == (self.relation == "=")


def comparisons(condition: str) -> list[list[Comparison]]:
    """Return the alternatives of a condition, each a list of comparisons that hold together.

    Raises:
        ValueError: the condition has another form.
    """
    alternatives = []
    for alternative in condition.split(" or "):
        matches = [_COMPARISON.fullmatch(text) for text in alternative.split(" and ")]
        if None in matches:
            raise ValueError(f"'{condition}' is no condition: write key=value, key!=value or key>number")
        alternatives.append([Comparison(one[1], one[2], yaml.safe_load(one[3])) for one in matches if one])
    return alternatives


def holds(condition: str, options: Mapping[str, Any]) -> bool:
    """Return whether a condition holds for the values of the options."""
    return any(all(one.holds(options) for one in alternative) for alternative in comparisons(condition))
