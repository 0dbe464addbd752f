"""Iteration over torch's DataLoader that does not hang if a worker process is killed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

PATIENCE = 1.0  # seconds to wait for setting an event, which takes microseconds
GRACE = 20  # seconds that a worker outlives a signal to stop, for the step and the state of the process it reads for


def iterate_batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield the batches of ``loader``; raise for a dead worker only while waiting for its batch.

    When a worker ends, torch raises from a SIGCHLD handler at an arbitrary line of the main thread. If a thread is
    starting, this causes another error; if the main thread holds a lock, it causes a hang. This function does not
    install that handler: torch also checks its workers every five seconds while it waits for a batch.

    Schedulers and ``timeout`` signal all processes of a group. The workers leave the reaction to the process that
    started them, which finishes its step; one that it does not end in time ends by itself.

    Raises:
        RuntimeError: torch's "DataLoader worker (pid(s) ...) exited unexpectedly".
    """
    signal_handling._SIGCHLD_handler_set = True
    loader.worker_init_fn = _outlive_signals
    loading: Any = iter(loader)
    if not loader.num_workers:
        yield from loading
        return
    loading._workers_done_event = _EndEvent(loading._workers_done_event)
    try:
        yield from loading
    except (EOFError, OSError) as error:  # a truncated batch; torch checks before the process has ended
        sentinels = {worker.sentinel: worker.pid for worker in loading._workers}
        gone = [str(sentinels[sentinel]) for sentinel in wait(list(sentinels), timeout=1.0)]
        if not gone:
            raise
        raise RuntimeError(f"DataLoader worker (pid(s) {', '.join(gone)}) exited unexpectedly") from error


def _outlive_signals(worker: int) -> None:
    """Let a worker go on for `GRACE` seconds after a signal to stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda *_: signal.alarm(GRACE))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


class _EndEvent:
    """Event that ends the workers, for use in the process that started them.

    All workers share its lock. A worker that is killed while it reads the event never releases the lock; the event is
    therefore set in a thread with a timeout, and torch terminates the workers that remain.
    """

    def __init__(self, event: Any) -> None:
        self._event = event
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        setter = threading.Thread(target=self._event.set, daemon=True)
        setter.start()
        setter.join(PATIENCE)


def unchanged(sample: Any) -> Any:
    """Return a sample unchanged, as ``collate_fn``: torch's default would convert arrays to tensors."""
    return sample
