"""The errors that a person is meant to read: one message, no traceback, an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LtrError(Exception):
    """Something the user can mend. The message says what was given, what is allowed and what to do next."""

    exit_code = 1


class ConfigError(LtrError):
    """A wrong key, value or combination, found before any data is read."""

    exit_code = 2


class DataError(LtrError):
    """A data set that is missing, damaged, or does not fit what was asked of it."""


class CheckpointError(LtrError):
    """Weights that are damaged, or belong to another architecture."""


class TrainingError(LtrError):
    """Training cannot go on: a loss that is not finite, memory or disk that ran out."""


class Interrupted(LtrError):
    """A signal asked the run to stop; its state is saved. The exit code is 128 + the signal's number."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``. Did you mean 'beta'?``, or an empty string where nothing is close."""
    close = difflib.get_close_matches(str(name), [str(option) for option in known], n=1)
    return f". Did you mean '{close[0]}'?" if close else ""
