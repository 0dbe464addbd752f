"""Names that people give to classes and files: when two are the same, look the same, or are probably no name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# what programs write where a value is missing
_MISSING = {"", "nan", "none", "null", "n/a", "#n/a", "na", "<na>", "nat", "nil", "undefined", "-", "?"}
_INVISIBLE = ("Cf", "Cc")  # Unicode categories: zero width spaces and joiners, direction marks, control characters


def canonical(name: str) -> str:
    """Return ``name`` in Unicode's composed form (NFC); names are compared in it everywhere.

    macOS and some archives write a letter and its accent as two characters (NFD) where most editors write one.
    """
    return unicodedata.normalize("NFC", name)


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ in case, white space or invisible characters alone, in their order."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(_visible(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def missing_values(names: Iterable[str]) -> list[str]:
    """Return the names that programs write where a value is missing, such as ``nan`` and ``None``."""
    return [name for name in names if _visible(name) in _MISSING]


def _visible(name: str) -> str:
    """Return ``name`` without what a reader does not see: case, repeated white space, invisible characters."""
    spaced = " ".join(canonical(name).casefold().split())
    shown = (letter for letter in spaced if not _is_invisible(letter))
    return canonical("".join(shown)).strip()


def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter) in _INVISIBLE or "\ufe00" <= letter <= "\ufe0f"  # variation selectors
