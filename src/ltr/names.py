"""Names of classes and files: canonical form, look-alikes, and values that are probably no names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

# written by programs where a value is missing
_MISSING = {"", "nan", "none", "null", "n/a", "#n/a", "na", "<na>", "nat", "nil", "undefined", "-", "?"}
_INVISIBLE = ("Cf", "Cc")  # Unicode categories: zero width spaces and joiners, direction marks, control characters


def canonical(name: str) -> str:
    """Return ``name`` in Unicode's composed form (NFC); names are compared in it everywhere.

    macOS and some archives write a letter and its accent as two characters (NFD) where most editors write one.
    """
    return unicodedata.normalize("NFC", name)


def group_name(value: object) -> str:
    """Return the name of a group of images, such as a location: in Unicode's composed form, without space beside it."""
    return "" if value is None else canonical(str(value).strip())


def unique_names(names: Sequence[str], ids: Iterable[object]) -> tuple[str, ...]:
    """Return the names of classes; those that several classes have get their ids, as in ``Iris (id 0)``.

    Args:
        ids: id of each class in the data set's files, such as a number or a WordNet id.
    """
    composed = [canonical(name) for name in names]
    count = Counter(composed)
    return tuple(name if count[name] == 1 else f"{name} (id {number})" for name, number in zip(composed, ids))


def is_text(name: str) -> bool:
    """Return whether a name from a file is UTF-8; bytes that are not are kept as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def normal_path(path: str) -> str:
    """Return a path without ``./`` and repeated ``/``, so that spellings of one file compare equal."""
    if "//" not in path and "./" not in path:
        return path
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def counted(number: float, noun: str, plural: str = "") -> str:
    """Return a count with its noun, ``1 epoch`` or ``20 epochs``.

    Args:
        plural: plural of the noun, where it is not the noun with an s.
    """
    shown = f"{number:,}" if isinstance(number, int) else f"{number:,g}"  # g rounds to six digits
    return f"{shown} {noun if number == 1 else plural or f'{noun}s'}"


def list_first(entries: Iterable[object], limit: int = 10) -> str:
    """Join the first entries for a message, with the total number if there are more than ``limit``."""
    texts = [str(entry) for entry in entries]
    text = ", ".join(texts[:limit])
    return text if len(texts) <= limit else f"{text}, ... ({len(texts):,} in all)"


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ in case, width, white space or invisible characters only, in order."""
    return _groups(names, _visible)


def equal_numbers(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that write one number in several ways, such as ``1``, ``01`` and ``1.0``."""
    return _groups((name for name in names if _number(name) is not None), _number)


def whole_number(name: str) -> int | None:
    """Return the whole number that ``name`` writes in decimal digits, or None; names beyond 4,000 digits are texts."""
    return int(name) if re.fullmatch(r"-?\d{1,4000}", name) else None


def missing_values(names: Iterable[str]) -> list[str]:
    """Return the names that programs write where a value is missing, such as ``nan`` and ``None``.

    ``-1`` is one of them if it is the only negative number beside ``0``.
    """
    listed = list(names)
    missing = [name for name in listed if _visible(name) in _MISSING]
    numbers = {name: number for name in listed if (number := _number(name)) is not None}
    negative = [name for name, number in numbers.items() if number < 0]
    if len(negative) == 1 and numbers[negative[0]] == -1 and 0 in numbers.values():
        missing += negative
    return missing


def _groups(names: Iterable[str], key: Callable[[str], object]) -> list[list[str]]:
    """Return the groups of at least two names with the same ``key``, in order of their first."""
    groups: dict[object, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(key(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _number(name: str) -> Decimal | None:
    """Return the number that ``name`` writes with digits and at most one point, or None."""
    text = name.strip()
    return Decimal(text) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)", text) else None


def _visible(name: str) -> str:
    """Return ``name`` without what a reader does not see: case, width, repeated white space, invisible characters."""
    if name.isascii() and name.isprintable():  # the same, and fast for millions of names
        return " ".join(name.casefold().split())
    spaced = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    shown = (letter for letter in spaced if not _is_invisible(letter))
    return canonical("".join(shown)).strip()


def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter) in _INVISIBLE or "\ufe00" <= letter <= "\ufe0f"  # variation selectors
