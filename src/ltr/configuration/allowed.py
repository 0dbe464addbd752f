"""Ranges and choices: what the ``_allowed_`` entries of the pages say, checked against the values given.

The grammar of an entry is a list of choices, or a string ``[int ]INTERVAL[ or null]`` such as ``[0, 1)``,
``int [1, inf)`` or ``(0, inf) or null``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ltr.configuration.pages import mappings
from ltr.errors import nearest

_RULE = re.compile(
    r"^(?P<int>int )?(?P<left>[\[(])\s*(?P<low>[^,\s]+)\s*,\s*(?P<high>[^,\s\])]+)\s*(?P<right>[\])])"
    r"(?P<null> or null)?$"
)


def problem(value: Any, rule: str | list) -> str | None:
    """Why ``value`` breaks ``rule``, as the end of a sentence; None when it is allowed."""
    if isinstance(rule, list):
        # 1 == True in Python, not on a page
        if any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in rule):
            return None
        names = ["null" if choice is None else str(choice) for choice in rule]
        return f"allowed is one of: {', '.join(names)}{nearest(str(value), names)}"
    match = _RULE.match(rule)
    if match is None:
        return f"its page's own rule cannot be read: {rule!r}"
    if value is None:
        return None if match["null"] else f"allowed is {rule}"
    number_expected = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number_expected or (match["int"] and not isinstance(value, int)) or math.isnan(value):
        return f"allowed is {rule}"
    low, high = float(match["low"]), float(match["high"])
    above = value >= low if match["left"] == "[" else value > low
    below = value <= high if match["right"] == "]" else value < high
    return None if above and below else f"allowed is {rule}"


def check_values(config: Mapping) -> list[str]:
    """One sentence for every value of ``config`` (plain, resolved) that its page does not allow."""
    mistakes = []
    for path, node in mappings(config):
        for key, rule in (node.get("_allowed_") or {}).items():
            name = f"{path}.{key}" if path else key
            if key not in node:
                continue
            # of a list, each entry has to be allowed
            for value in node[key] if isinstance(node[key], list) else [node[key]]:
                reason = problem(value, rule)
                if reason:
                    mistakes.append(f"{name}={'null' if value is None else value}: {reason}")
    return mistakes
