"""The same work on many pieces in processes of their own; results come in order, and few pieces wait at a time."""

from __future__ import annotations

import multiprocessing
import os
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
_WAITING = 4  # pieces for each process


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_parallel(work: Callable[[Piece], Done], pieces: Iterable[Piece], workers: int) -> Iterator[Done]:
    """``work`` of each piece, in order.

    Args:
        work: a function of a module; it and the pieces are pickled.
        pieces: taken from only as results are.
        workers: processes; 1 works in this one.

    Raises:
        DataError: a process was killed, as it is where memory runs out or a decoder crashes.
    """
    if workers == 1:
        yield from map(work, pieces)
        return
    # new interpreters: a copy of this process would have its threads' locks, and import no less
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_the_parent)
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


def _end_with_the_parent() -> None:
    """A worker whose parent is killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
