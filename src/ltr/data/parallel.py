"""Parallel map over worker processes, with results in order and a bounded number of waiting pieces."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from ltr.errors import DataError

Piece = TypeVar("Piece")
Done = TypeVar("Done")
_WAITING = 4  # queued pieces per process


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_parallel(work: Callable[[Piece], Done], pieces: Iterable[Piece], workers: int) -> Iterator[Done]:
    """Yield ``work(piece)`` for each piece, in order.

    Args:
        work: module-level function; it and the pieces are pickled.
        pieces: inputs, consumed only as fast as results are.
        workers: number of processes; 1 runs in this process.

    Raises:
        DataError: a process was killed, for example because memory ran out or a decoder crashed.
    """
    if workers == 1:
        yield from map(work, pieces)
        return
    # new interpreters: a forked process would inherit the locks of this process's threads, and import as much
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_exit_with_parent)
    waiting: deque[Future[Done]] = deque()
    try:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) >= _WAITING * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed: memory ran out, or a decoder crashed. --workers 1 shows which it was"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _exit_with_parent() -> None:
    """End this worker when its parent ends; otherwise it would wait for work forever.

    Signals to stop, which schedulers send to all processes of a group, are the parent's alone to react to.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
