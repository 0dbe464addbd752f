"""Incremental reading of the arrays of a large JSON file, in a few megabytes of memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ltr.errors import DataError
from ltr.files import is_regular

CHUNK = 1 << 22  # characters per read
LONGEST = 1 << 26  # characters of one element; a longer one indicates a damaged file

_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_space = re.compile(r"[ \t\n\r]*").match
_may_go_on = re.compile(r"[-+.eE0-9]|\Z").match  # a number may continue, or the window ends


def read_arrays(
    name: str,
    file: Path,
    handlers: Mapping[str, Callable[[dict[str, Any]], None]],
    *,
    values: dict[str, Any] | None = None,
    wanted: str = "The official annotation file of the training or validation images is needed",
    remedy: str = "Fetch it again",
) -> None:
    """Call ``handlers[key]`` with every element of the array ``key`` of the JSON object in ``file``, in order.

    Arrays without a handler are skipped.

    Args:
        name: name of the data set, for messages.
        file: the JSON file.
        handlers: function that receives the elements of an array, by key.
        values: receives the values of all keys that are not arrays.
        wanted: sentence that describes the expected file, for the message of a missing array.
        remedy: advice for a damaged file.

    Raises:
        DataError: the file is missing, truncated, or not such an object; text follows the object, or a key that is read
            appears twice; an array is missing or has elements that are not objects; or a handler misses a key
            (KeyError) or refuses a value (TypeError, ValueError).
    """
    if file.exists() and not is_regular(file):
        raise DataError(f"{name}: {file} is not a regular file")
    try:
        with file.open(encoding="utf-8-sig") as stream:
            keys = _read(_Window(stream), handlers, values)
    except OSError as error:
        raise DataError(f"{name}: {file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: {file} is not JSON in UTF-8: {error}. {remedy}") from error
    except _Damaged as error:
        raise DataError(f"{name}: {file} ({file.stat().st_size:,} bytes) {error}. {remedy}") from error
    missing = [key for key in handlers if key not in keys]
    if missing:
        raise DataError(f"{name}: {file} has no {', '.join(missing)}; it has {', '.join(keys) or 'nothing'}. {wanted}")


class _Damaged(Exception):
    """Fault in the text; its message follows the file's name."""


def _read(
    window: _Window,
    handlers: Mapping[str, Callable[[dict[str, Any]], None]],
    values: dict[str, Any] | None = None,
) -> list[str]:
    """Handle all elements and return the keys of the object."""
    keys: list[str] = []
    window.expect("{")
    while window.peek() != "}":
        if keys:
            window.expect(",")
            window.peek()
        key = window.value()
        window.expect(":")
        is_array = window.peek() == "["
        if key in keys and (key in handlers or (values is not None and not is_array)):
            raise _Damaged(f"has the key {key} twice, of which one would be lost, or both be joined")
        keys.append(str(key))
        if not is_array:
            value = window.value()
            if values is not None:
                values[str(key)] = value
            continue
        handler = handlers.get(key)
        for number, element in enumerate(window.elements()):
            if handler is None:
                continue
            try:
                handler(element)
            except KeyError as error:
                raise _Damaged(f"has no {error} in {key}[{number}]") from error
            except (TypeError, ValueError, OverflowError, AttributeError) as error:
                detail = error if isinstance(element, dict) else f"{json.dumps(element)[:40]} must be an object {{...}}"
                raise _Damaged(f"has something unexpected in {key}[{number}]: {detail}") from error
    window.expect("}")
    if more := window.rest():
        raise _Damaged(
            f"has more after the end of its JSON object, {more}, which would not be read (two files in one, or "
            "a file that was written over a longer one)"
        )
    return keys


class _Window:
    """Sliding window over the text."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.text = ""
        self.position = 0
        self.before = 0  # characters dropped so far
        self.ended = False

    def peek(self) -> str:
        """Return the next character that is not white space, without consuming it."""
        while True:
            match = _space(self.text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.text):
                return self.text[self.position]
            self._more()

    def expect(self, character: str) -> None:
        if self.peek() != character:
            raise _Damaged(
                f"is not the JSON that it should be at character {self._where():,}: '{character}' is missing"
            )
        self.position += 1

    def rest(self) -> str:
        """Return the beginning of what follows, with its position; '' if it is white space."""
        while not self.ended:
            match = _space(self.text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.text):
                return f"{self.text[self.position : self.position + 20]!a} at character {self._where():,}"
            self._more(within=True)
        return ""

    def value(self) -> Any:
        """Read the value at the current position, after its white space."""
        while True:
            try:
                value, end = _scan(self.text, self.position)
                if self.ended or not _may_go_on(self.text[end : end + 1]):
                    self.position = end
                    return value
            except (StopIteration, json.JSONDecodeError, RecursionError) as error:
                if self.ended:
                    raise _Damaged(f"is cut off or damaged at character {self._where():,}") from error
                if len(self.text) - self.position > LONGEST:
                    raise _Damaged(f"is damaged at character {self._where():,}") from error
            self._more(within=True)

    def elements(self) -> Iterator[Any]:
        """Yield the elements of the next array."""
        self.expect("[")
        if self.peek() != "]":
            yield self.value()
            while True:
                if self.text.startswith(", {", self.position):  # fast path for the output of Python's json
                    self.position += 2
                elif self.peek() == ",":
                    self.position += 1
                    self.peek()
                else:
                    break
                yield self.value()
        self.expect("]")

    def _more(self, within: bool = False) -> None:
        chunk = self.stream.read(CHUNK)
        if not chunk:
            if not within:
                raise _Damaged(f"is cut off after {self.before + len(self.text):,} characters")
            self.ended = True
        self.before += self.position
        self.text = self.text[self.position :] + chunk
        self.position = 0

    def _where(self) -> int:
        return self.before + self.position
