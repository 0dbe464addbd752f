"""Progress of opening image files and of computing features: a bar in a terminal, otherwise one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ltr.escaping import rich_text


@contextmanager
def opening_progress(console: Console, total: int) -> Iterator[Callable[[int], object]]:
    """Yield a function to call with the number of files opened since its last call."""
    if not console.is_terminal:
        console.print(rich_text(f"opening {total:,} image files before training"), soft_wrap=True)
        yield lambda number: None
        return
    with _bar(console, "opening image files", total) as advance:
        yield advance


@contextmanager
def feature_progress(console: Console, total: int) -> Iterator[Callable[[int], object]]:
    """Yield a function to call with the number of images whose features were computed since its last call."""
    if not console.is_terminal:
        yield lambda number: None
        return
    with _bar(console, "features", total) as advance:
        yield advance


@contextmanager
def _bar(console: Console, what: str, total: int) -> Iterator[Callable[[int], object]]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda number: bar.advance(task, number)
