"""Progress of the jobs: a line for each running job in a terminal, a line for each event elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ltr.escaping import one_line, rich_text

_TAIL = 4096  # bytes of a job's output that hold its last line


class JobsDisplay:
    """Display of the running jobs, a context manager.

    Args:
        console: shows it.
        logs: the output of each running job, by its title; read at every refresh.
    """

    def __init__(self, console: Console, logs: Mapping[str, Path]) -> None:
        self.console = console
        self.logs = logs
        self._live: Any = None

    def __enter__(self) -> JobsDisplay:
        if self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self._lines, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def print_event(self, text: str) -> None:
        """Print what has happened to a job; the line stays above those of the running jobs."""
        self.console.print(rich_text(text), soft_wrap=True)

    def _lines(self) -> Group:
        texts = [f"{title}  {last_line(log)}" for title, log in list(self.logs.items())]
        return Group(*(Text(one_line(text), no_wrap=True, overflow="ellipsis") for text in texts))


def last_line(log: Path) -> str:
    """Return the last line of a file that is not blank; '' where there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
