"""Progress of opening image files: a bar in a terminal, one line elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def opening_progress(console: Console, total: int) -> Iterator[Callable[[int], object]]:
    """Yield what is told how many more files have been opened."""
    if not console.is_terminal:
        console.print(f"opening {total:,} image files before training", highlight=False)
        yield lambda number: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("opening image files", total=total)
        yield lambda number: bar.advance(task, number)
