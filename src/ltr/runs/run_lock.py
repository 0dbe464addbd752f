"""Lock of a run directory: two processes never run the same command at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ltr.errors import LtrError
from ltr.runs.processes.core_slot import core_lent


@contextlib.contextmanager
def locked_run(directory: Path, print_line: Callable[[str], None]) -> Iterator[bool]:
    """Hold the lock of a run directory during a block; yield True if another process held it before.

    The lock lies beside the directory. The system releases it when its process ends. If the block does not create the
    directory, because a check fails, nothing remains.

    Raises:
        LtrError: the lock cannot be written.
    """
    lock = FileLock(directory.parent / f".{directory.name.rpartition('-')[2]}.lock")
    created = [folder for folder in directory.parents if not folder.exists()]  # the innermost first
    has_waited = False
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            has_waited = True
            print_line(f"waiting for the run in {directory}: another process is running this command")
            with core_lent():
                lock.acquire()
    except OSError as error:
        raise LtrError(
            f"the run in {directory} cannot be locked: {error}. Set paths.outputs to a folder where that is possible"
        ) from error
    try:
        yield has_waited
    finally:
        lock.release()
        if not directory.is_dir():
            with contextlib.suppress(OSError):
                Path(lock.lock_file).unlink()
                for folder in created:
                    folder.rmdir()
