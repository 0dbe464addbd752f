"""Output of the commands: lines, warnings and progress."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from ltr.escaping import lines, one_line

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def print_line(text: object, file: TextIO | None = None) -> None:
    """Print a line, or several; control characters, as in names from files, are escaped."""
    print(lines(text), file=file or sys.stdout)


def open_closed_streams() -> None:
    """Open the null device for each closed standard stream (``>&-``).

    Python has no object for such a stream, and the next file to be opened would get its number, and the output of
    libraries and other processes.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def ignore_unusable_width() -> None:
    """Remove ``COLUMNS`` from the environment unless it is a positive number: a width of 0 would print nothing."""
    text = os.environ.get("COLUMNS", "1")
    if not text.isdecimal() or int(text) == 0:
        del os.environ["COLUMNS"]


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print this project's warnings as one line each, without a source line; other warnings are unchanged."""
    original = warnings.showwarning

    def showwarning(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        if category is UserWarning and filename.startswith(_OURS):
            print_line(f"warning: {message}", sys.stderr)
        else:
            original(message, category, filename, lineno, file, line)

    warnings.showwarning = showwarning
    try:
        yield
    finally:
        warnings.showwarning = original


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Show progress on standard error: a bar in a terminal, elsewhere a line for each tenth.

    Yields a function to call with the number of newly processed images.

    Args:
        done: number of images that are done at the start, if work is resumed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        description = TextColumn("{task.description}", markup=False)
        columns = (description, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(one_line(title), total=total, completed=done)
            yield lambda number: bar.advance(task, number)
        return

    def advance(number: int) -> None:
        nonlocal done
        before, done = done, done + number
        if total and done * 10 // total > before * 10 // total:
            print(one_line(f"{title} {done:,} of {total:,}"), file=sys.stderr, flush=True)

    yield advance
