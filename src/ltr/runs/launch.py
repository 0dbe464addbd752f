"""Launch of the processes of a run on this machine, supervised: one that dies ends the others."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from ltr.errors import Interrupted, LtrError
from ltr.escaping import lines
from ltr.runs.interrupt import leave_closed_terminal, stop_signals
from ltr.runs.process_info import RENDEZVOUS

_POLL = 0.05  # seconds
GRACE = 10.0  # seconds for the others to report their errors, once one has failed
WATCHED = "LTR_WATCHED"  # set in processes that end when the one that started them does
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
LOST = 120  # exit code of a process that only noticed that another one was gone


class ProcessesFailed(LtrError):
    """The processes ended with an error that they have reported; only the exit code is left to pass on."""

    is_reported = True

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


def launch_processes(processes: int, arguments: Sequence[str]) -> None:
    """Run ``ltr-train`` with these arguments in so many processes of this machine, and wait for them.

    Rank 0 prints as if it were alone; the others' errors are printed only where rank 0 did not notice them.

    Raises:
        ProcessesFailed: a process failed; with the exit code of the first one (128 + the signal that killed it).
        Interrupted: a signal stopped them.
    """
    folder = Path(tempfile.mkdtemp(prefix="ltr-processes-"))
    errors: list[IO[bytes]] = []
    running: list[subprocess.Popen] = []
    try:
        for rank in range(processes):
            errors.append(open(folder / f"{rank}.err", "w+b"))  # noqa: SIM115 - read when they have ended
            running.append(_started(rank, processes, arguments, folder, errors[-1]))
        with _passing_on(running):
            code, first = _wait(running)
        if code:
            _show(first, running, errors)
            raise _failure(code)
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.wait()
        for file in errors:
            file.close()
        shutil.rmtree(folder, ignore_errors=True)


def _failure(code: int) -> LtrError:
    if code - 128 not in _STOPS:
        return ProcessesFailed(code)
    stopped = Interrupted(code - 128, "")
    stopped.is_reported = True  # type: ignore[attr-defined]
    return stopped


def _started(rank: int, processes: int, arguments: Sequence[str], folder: Path, errors: IO[bytes]) -> subprocess.Popen:
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {
        "OMP_NUM_THREADS": str(threads),  # or each would take all cores
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        RENDEZVOUS: (folder / "rendezvous").as_uri(),
        WATCHED: "1",
    }
    return subprocess.Popen(
        (sys.executable, "-c", "from ltr.cli import train; train()", *arguments),
        env=environment,
        stdin=subprocess.PIPE,  # closed by the system when this process dies, however it does: see `end_with_parent`
        stdout=None if rank == 0 else subprocess.DEVNULL,
        stderr=None if rank == 0 else errors,
        start_new_session=True,  # a Ctrl-C reaches them once, from here
    )


def end_with_parent() -> None:
    """End this process, which `launch_processes` started, at once when the starting process is gone."""
    if os.environ.pop(WATCHED, None) is None:
        return
    pipe = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nothing else is to read from it

    def watch() -> None:
        os.read(pipe, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def _wait(running: Sequence[subprocess.Popen]) -> tuple[int, int]:
    """Return (exit code, rank) of the first process that failed, once all have ended; (0, 0) if none did."""
    failed: list[tuple[int, int]] = []
    until = float("inf")
    while any(process.poll() is None for process in running):
        time.sleep(_POLL)
        ended = [(process.returncode, rank) for rank, process in enumerate(running) if process.returncode is not None]
        failed += [end for end in ended if end[0] and end not in failed]
        if failed and until == float("inf"):
            until = time.monotonic() + GRACE
        if time.monotonic() > until:
            for process in running:
                if process.poll() is None:
                    process.kill()
            until = float("inf") if all(process.poll() is not None for process in running) else until
    ended = [(process.returncode, rank) for rank, process in enumerate(running)]
    failed += [end for end in ended if end[0] and end not in failed]
    # a process that was killed here, or noticed the loss of another, is not the cause
    causes = [end for end in failed if end[0] != LOST] or failed
    code, rank = causes[0] if causes else (0, 0)
    return (128 - code if code < 0 else code), rank


def _show(rank: int, running: Sequence[subprocess.Popen], errors: Sequence[IO[bytes]]) -> None:
    """Print the error of a process that does not print, unless rank 0 met and printed the same one."""
    code = running[rank].returncode
    if rank and running[0].returncode != code:
        errors[rank].seek(0)
        text = errors[rank].read().decode(errors="replace").rstrip()
        print(lines(f"process {rank + 1} of {len(running)} failed:\n{text}".rstrip(":\n")), file=sys.stderr)
    if code < 0:
        name = signal.Signals(-code).name
        print(
            f"error: process {rank + 1} of {len(running)} was ended by {name}; the same command goes on from the last "
            "saved state",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _passing_on(running: Sequence[subprocess.Popen]) -> Iterator[None]:
    """Pass stop signals on to the run's processes, which save their state and end."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        leave_closed_terminal()
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, pass_on) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
