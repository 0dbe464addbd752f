"""Ranges and choices of values (``_allowed_`` in configs), and the check of values against them.

The grammar of an entry is a list of choices, or a string ``[list of ][int ]INTERVAL[ or WORD]`` such as ``[0, 1)``,
``int [1, inf)``, ``(0, inf) or null``, ``[0, inf) or auto`` or ``list of (0, 1)``. ``[[a, b]]`` stands for a list of
any of these choices. A string that ends in `` or list of INTERVAL`` takes a list as well. ``configs of GROUP`` stands
for a list of names of the group's configs and of mappings with a ``_target_``, see `ltr.configuration.listed_configs`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ltr.configuration.configs import PRIVATE_KEYS, mappings
from ltr.configuration.listed_configs import problem_of_entry
from ltr.configuration.rules import read_rules
from ltr.errors import nearest

_CONSTANTS: dict[str | None, Any] = {"null": None, "true": True, "false": False}  # words that are no texts
_UNQUOTED = ". The value is a text; write it without quotes"
_LIST = "list of "
_CONFIGS = "configs of "
_RULE = re.compile(
    r"^(?P<int>int )?(?P<left>[\[(])\s*(?P<low>[^,\s]+)\s*,\s*(?P<high>[^,\s\])]+)\s*(?P<right>[\])])"
    r"(?: or (?P<word>[a-z_]+))?$"
)


def find_problem(value: Any, rule: str | list) -> str | None:
    """Return the reason why ``value`` breaks ``rule``, as the end of a sentence; None if it is allowed."""
    if isinstance(rule, str) and rule.startswith(_CONFIGS):
        return _problem_of_configs(value, rule.removeprefix(_CONFIGS))
    if isinstance(rule, str) and f" or {_LIST}" in rule:
        single, _, of_each = rule.partition(f" or {_LIST}")
        reason = find_problem(value, f"{_LIST}{of_each}" if isinstance(value, list) else single)
        return None if reason is None else f"allowed is {rule}"
    choices_of_list = isinstance(rule, list) and len(rule) == 1 and isinstance(rule[0], list)
    if choices_of_list or (isinstance(rule, str) and rule.startswith(_LIST)):
        of_each = rule[0] if isinstance(rule, list) else rule.removeprefix(_LIST)
        if not isinstance(value, list):
            return f"a list is needed, such as [{value}]"
        return next((reason for reason in (find_problem(entry, of_each) for entry in value) if reason), None)
    if isinstance(rule, list):
        # 1 == True in Python, but not in a config
        if any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in rule):
            return None
        names = [as_text(choice) for choice in rule]
        hint = _UNQUOTED if value in names else nearest(str(value), names)
        return f"allowed is one of: {', '.join(names)}{hint}"
    match = _RULE.match(rule)
    if match is None:
        return f"its config's own rule cannot be read: {rule!r}"
    word = _CONSTANTS.get(match["word"], match["word"])
    if match["word"] is not None and value == word and type(value) is type(word):
        return None
    number_expected = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number_expected or (match["int"] and not isinstance(value, int)) or math.isnan(value):
        is_quoted = isinstance(value, str) and (value == match["word"] or _is_number(value))
        return f"allowed is {rule}{_UNQUOTED if is_quoted else ''}"
    low, high = float(match["low"]), float(match["high"])
    above = value >= low if match["left"] == "[" else value > low
    below = value <= high if match["right"] == "]" else value < high
    return None if above and below else f"allowed is {rule}"


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def _problem_of_configs(value: Any, rest: str) -> str | None:
    group, _, word = rest.partition(" or ")
    if word == "null" and value is None:
        return None
    if not isinstance(value, list):
        return f"a list is needed, such as [{as_text(value)}]"
    return next((reason for reason in (problem_of_entry(group, entry) for entry in value) if reason), None)


def check_values(config: Mapping) -> list[str]:
    """Return a sentence for every value of ``config`` (plain, resolved) that its config does not allow."""
    mistakes = []
    for path, node in mappings(config):
        rules = read_rules(path, node, config)
        if not isinstance(node.get("_allowed_") or {}, Mapping):
            mistakes.append(
                f"{path}._allowed_={as_text(node['_allowed_'])}: rules by key are needed, e.g. {{lr: [1, 2]}}"
            )
        for key, value in node.items():
            if key in PRIVATE_KEYS:
                continue
            reason = find_problem(value, rules[key]) if key in rules else None
            if reason is None and not _representable(value):
                reason = "a finite number of at most 64 bits is needed"
            if reason:
                dotted = f"{path}.{key}".removeprefix(".")
                is_sweep = isinstance(value, list) and value and find_problem(value[0], rules.get(key, "")) is None
                stop = "" if reason.endswith("?") else "."
                values = ",".join(map(as_text, value)) if is_sweep else ""
                one_each = f"{stop} One run for each is a sweep: -m {dotted}={values}" if is_sweep else ""
                mistakes.append(f"{dotted}={as_text(value)}: {reason}{one_each}")
    return mistakes


def as_text(value: Any) -> str:
    """Format a value as on a command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(as_text(entry) for entry in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{as_text(entry)}' for key, entry in value.items() if key not in PRIVATE_KEYS)}}}"
    return str(value)


def _representable(value: Any) -> bool:
    """Return whether a value has no NaN, no infinity and no integer beyond 64 bits."""
    if isinstance(value, list):
        return all(_representable(entry) for entry in value)
    if isinstance(value, int):
        return abs(value) < 2**63
    return not isinstance(value, float) or math.isfinite(value)
