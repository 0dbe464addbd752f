"""User errors: one message without a traceback, and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LtrError(Exception):
    """Base class for errors that the user can fix; messages name the value, the allowed values and the next step."""

    exit_code = 1


class ConfigError(LtrError):
    """Invalid key, value or combination in a configuration or command, detected before data are read."""

    exit_code = 2


class DataError(LtrError):
    """Missing or damaged data set, or one that does not support the configuration."""


class CheckpointError(LtrError):
    """Missing or damaged weights, or weights of another architecture."""


class TrainingError(LtrError):
    """Failure of training: a non-finite loss, or no memory or disk space left."""


class Interrupted(LtrError):
    """Stop by a signal, with the state saved; the exit code is 128 + the signal's number."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters; its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def refuse(mistakes: Iterable[str], headline: str) -> None:
    """Raise a ConfigError that names each mistake once; do nothing without mistakes."""
    lines = list(dict.fromkeys(mistakes))
    if lines:
        raise ConfigError("\n".join([f"{headline}:", *(f"  {line}" for line in lines)]))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``. Did you mean 'beta'?``, or an empty string if no known name is close."""
    close = nearest_name(str(name), [str(option) for option in known])
    return "" if close is None else f". Did you mean '{close}'?"


def nearest_name(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is closest to a mistyped one; None if none is close.

    Args:
        cutoff: least similarity, in [0, 1] (difflib's ratio).
    """
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)
