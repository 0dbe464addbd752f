"""How far a long piece of work has come: a bar in a terminal, a line at each tenth elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Yields what is told how many more images are done; all of it goes to standard error.

    Args:
        done: already, where work is taken up again.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done)
            yield lambda number: bar.advance(task, number)
        return
    so_far = done

    def advance(number: int) -> None:
        nonlocal so_far
        before, so_far = so_far, so_far + number
        if total and so_far * 10 // total > before * 10 // total:
            print(f"{what} {so_far:,} of {total:,}", file=sys.stderr, flush=True)

    yield advance
