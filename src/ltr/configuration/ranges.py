"""Types of options with a range, for signatures, and the check of values against a type."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from ltr.configuration.allowed import as_text, find_problem
from ltr.configuration.annotations import rule_of
from ltr.errors import ConfigError

T = TypeVar("T")

Positive = Annotated[float, "(0, inf)"]
NonNegative = Annotated[float, "[0, inf)"]
Fraction = Annotated[float, "[0, 1]"]
BelowOne = Annotated[float, "[0, 1)"]
ProperFraction = Annotated[float, "(0, 1)"]
AtLeastOne = Annotated[float, "[1, inf)"]
PositiveInt = Annotated[int, "[1, inf)"]
NonNegativeInt = Annotated[int, "[0, inf)"]


def check_option(key: str, value: T, kind: Any) -> T:
    """Check the value of an option and return it.

    Args:
        key: key in the configuration, for messages, e.g. ``loss.gamma``.
        kind: type in the signature, which has the rule.

    Raises:
        ConfigError: the value breaks the rule.
    """
    rule = rule_of(kind)
    reason = None if rule is None else find_problem(list(value) if isinstance(value, tuple) else value, rule)
    if reason is not None:
        raise ConfigError(f"{key}={as_text(value)}: {reason}")
    return value
