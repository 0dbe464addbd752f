"""Conditions under which a method reads an option, declared with it as ``used_if``.

    class RKDOptions(Options, used_if={"temperature": "hkd_weight>0"}):
        ...

A condition compares options of the same declaration: ``key=value``, ``key!=value`` or ``key>number``, joined by ``and``
or by ``or``. Null and words count as greater than any number, because they stand for values that the method chooses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import yaml

from ltr.errors import ConfigError, nearest

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
            return not isinstance(actual, (int, float)) or actual > self.value
        return (actual == self.value) == (self.relation == "=")


def comparisons(condition: str) -> list[list[Comparison]]:
    """Return the alternatives of a condition, each a list of comparisons that hold together.

    Raises:
        ConfigError: the condition has another form.
    """
    alternatives = []
    for alternative in condition.split(" or "):
        matches = [_COMPARISON.fullmatch(text) for text in alternative.split(" and ")]
        parts = [Comparison(one[1], one[2], yaml.safe_load(one[3])) for one in matches if one]
        if None in matches or any(one.relation == ">" and not isinstance(one.value, (int, float)) for one in parts):
            raise ConfigError(
                f"used_if: '{condition}' is no condition. Write key=value, key!=value or key>number without spaces, "
                "joined by and, or by or"
            )
        alternatives.append(parts)
    return alternatives


def check_conditions(name: str, used_if: Mapping[str, str], options: Collection[str]) -> None:
    """Refuse wrong conditions and names.

    Args:
        name: name of the declaration.
        used_if: conditions by option.
        options: names of the declaration's options.

    Raises:
        ConfigError: a condition has a wrong form, or an option does not exist.
    """
    compared = [one.name for text in used_if.values() for alternative in comparisons(text) for one in alternative]
    for option in (*used_if, *compared):
        if option not in options:
            raise ConfigError(
                f"used_if of {name}: there is no option '{option}'; there are {', '.join(options)}"
                f"{nearest(option, options)}"
            )


def holds(condition: str, options: Mapping[str, Any]) -> bool:
    """Return whether a condition holds for the values of the options."""
    return any(all(one.holds(options) for one in alternative) for alternative in comparisons(condition))
