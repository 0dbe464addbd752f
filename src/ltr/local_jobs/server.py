"""Server that imports what the jobs need and is forked for each process that runs jobs; a light module itself."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver, resource_tracker

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
_PRELOAD = "ltr.local_jobs.preload"
_FIGURES = ("matplotlib.figure", "matplotlib.backends.backend_agg")
_CHOICES = ("launcher=local", "+launcher=local", "hydra/launcher=local")


def start_early(overrides: Sequence[str]) -> None:
    """Start the server while this process still imports Hydra, if the command line chooses the local launcher."""
    if any(choice in overrides for choice in _CHOICES):
        start_server(has_figures="figures=none" not in overrides)


def start_server(has_figures: bool) -> None:
    """Start the server; a no-op if it runs.

    Args:
        has_figures: import matplotlib, too.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([_PRELOAD, *(_FIGURES if has_figures else ())])
    with starting():
        forkserver.ensure_running()


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Set what the server inherits when it starts with its first process.

    The server, and each process that it forks, would import the launching process's main module again: a script
    without ``if __name__ == "__main__"`` would start the sweep anew. An empty module takes its place.
    The server takes no part in the signals of a terminal or a queue: they are blocked, and each job unblocks them.
    """
    resource_tracker.ensure_running()  # starting it would unblock the signals
    names = {**dict.fromkeys(THREADS, "1"), "PYTHONSAFEPATH": "1"}  # the server computes nothing
    before = {name: os.environ.get(name) for name in names}
    main = sys.modules["__main__"]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        os.environ.update(names)
        sys.modules["__main__"] = types.ModuleType("__main__")
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
