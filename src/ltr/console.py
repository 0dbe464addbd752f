"""Output of the commands: warnings as plain lines, and the progress of long work."""

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
    """Print a line, or several, that may hold names from files: a terminal obeys nothing in them."""
    print(lines(text), file=file or sys.stdout)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print this project's warnings as one line each, without a source line; others stay as they are."""
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
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Show the progress of long work on standard error: a bar in a terminal, a line at each tenth elsewhere.

    Yields a function to call with the number of images that were done since.

    Args:
        done: already, where work is taken up again.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        words = TextColumn("{task.description}", markup=False)
        columns = (words, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(one_line(what), total=total, completed=done)
            yield lambda number: bar.advance(task, number)
        return
    so_far = done

    def advance(number: int) -> None:
        nonlocal so_far
        before, so_far = so_far, so_far + number
        if total and so_far * 10 // total > before * 10 // total:
            print(one_line(f"{what} {so_far:,} of {total:,}"), file=sys.stderr, flush=True)

    yield advance
