"""The batches of torch's loader, whose worker processes may be killed at any instant without a hang."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

PATIENCE = 1.0  # seconds to set an event, which takes microseconds


def batches_of(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of ``loader``; a worker that is gone is told where its batch is awaited, and nowhere else.

    torch raises from a handler of SIGCHLD, at whatever line the main thread is when a worker ends. In the middle of
    starting a thread that becomes another error, and between a lock and its release it becomes a hang. So that handler
    is not installed: while torch waits for a batch it looks after its workers every five seconds as well.

    Raises:
        RuntimeError: torch's "DataLoader worker (pid(s) ...) exited unexpectedly".
    """
    signal_handling._SIGCHLD_handler_set = True
    loading: Any = iter(loader)
    if not loader.num_workers:
        yield from loading
        return
    loading._workers_done_event = _Done(loading._workers_done_event)
    try:
        yield from loading
    except (EOFError, OSError) as error:  # a batch that was cut off; torch looks before the process has quite ended
        sentinels = {worker.sentinel: worker.pid for worker in loading._workers}
        gone = [str(sentinels[sentinel]) for sentinel in wait(list(sentinels), timeout=1.0)]
        if not gone:
            raise
        raise RuntimeError(f"DataLoader worker (pid(s) {', '.join(gone)}) exited unexpectedly") from error


class _Done:
    """The event that tells workers to end, as the process that started them sees it.

    All workers share its lock. One that was killed while it looked at the event has the lock for ever, and whoever
    asked for it would wait as long; torch terminates workers that this leaves behind.
    """

    def __init__(self, event: Any) -> None:
        self._event = event
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        telling = threading.Thread(target=self._event.set, daemon=True)
        telling.start()
        telling.join(PATIENCE)
