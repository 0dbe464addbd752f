"""One message for an error that all processes of a run meet, where ``torchrun`` has started them."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

_AGENT = "TORCHELASTIC_USE_AGENT_STORE"  # torchrun sets it for its processes
_PATIENCE = 5.0  # seconds that a process waits for the others to fail in the same way
_POLL = 0.05


def print_once(
    message: str,
    print_text: Callable[[str], None],
    environment: Mapping[str, str] = os.environ,
    seconds: float = _PATIENCE,
) -> None:
    """Print the message of an error that ends this process; under ``torchrun``, one that all ranks meet only once.

    Rank 0 prints, and puts a digest of its message into the store that ``torchrun`` keeps for its processes. The others
    look for the digest of theirs; where it does not appear, they print theirs with their rank. Rank 0 waits for them,
    because ``torchrun`` ends all processes as soon as one has ended.

    Args:
        message: message of this process's error.
        print_text: prints a message.
        environment: environment of this process.
        seconds: to wait for the other processes.
    """
    if environment.get(_AGENT) != "True":
        print_text(message)
        return
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):  # the process ends in a moment by itself
            signal.signal(number, signal.SIG_IGN)
    rank = environment.get("RANK", "0")
    if rank == "0":
        print_text(message)
    try:
        is_printed = _meet(message, environment, seconds)
    except Exception:  # a store that is gone, or an environment of other values
        is_printed = False
    if rank != "0" and not is_printed:
        print_text(f"rank {rank}: {message}")


def _meet(message: str, environment: Mapping[str, str], seconds: float) -> bool:
    """Return whether rank 0 has printed the message, after a wait of at most ``seconds``."""
    rank, world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    restart = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    prefix = f"ltr/error/{restart}/{hashlib.sha256(message.encode(errors='replace')).hexdigest()}"
    store = _store(environment)
    store.set(f"{prefix}/{rank}", "")
    awaited = [f"{prefix}/{other}" for other in ([0] if rank else range(1, world_size))]
    until = time.monotonic() + seconds
    while not store.check(awaited) and time.monotonic() < until:
        time.sleep(_POLL)
    return bool(store.check(awaited))


def _store(environment: Mapping[str, str]) -> Any:
    from torch import distributed  # only where a process of several fails

    return distributed.TCPStore(
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
        is_master=False,
        timeout=timedelta(seconds=_PATIENCE),
        wait_for_workers=False,
    )
