"""Supervised launch of a run's processes on this machine: if one fails, the launcher ends all."""

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
from ltr.runs.processes.interrupt import leave_closed_terminal, signals_handled_by
from ltr.runs.processes.process_info import RENDEZVOUS

_POLL = 0.05  # seconds
GRACE = 10.0  # seconds after the first failure in which further processes may report their errors
WATCHED = "LTR_WATCHED"  # set in processes that end when their launching process does
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
LOST = 120  # exit code of a process that only noticed that another one has ended


class ProcessesFailed(LtrError):
    """Failure of the processes, which have reported the error; holds their exit code."""

    is_reported = True

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


def launch_processes(processes: int, arguments: Sequence[str]) -> None:
    """Run ``ltr-train`` with these arguments in several processes on this machine, and wait for them.

    Rank 0 prints like a single process; errors of other ranks are printed only if rank 0 did not report them.

    Args:
        processes: number of processes.
        arguments: arguments of ``ltr-train``.

    Raises:
        ProcessesFailed: a process failed; it has the exit code of the first failure (128 + signal if a signal killed
            it).
        Interrupted: a signal stopped the processes.
    """
    folder = Path(tempfile.mkdtemp(prefix="ltr-processes-"))
    errors: list[IO[bytes]] = []
    running: list[subprocess.Popen] = []
    try:
        for rank in range(processes):
            errors.append(open(folder / f"{rank}.err", "w+b"))  # noqa: SIM115 - read when the processes have ended
            running.append(_start(rank, processes, arguments, folder, errors[-1]))
        with _forward_signals(running):
            code, failed_rank = _wait(running)
        if code:
            _print_error(failed_rank, running, errors)
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


def _start(rank: int, processes: int, arguments: Sequence[str], folder: Path, errors: IO[bytes]) -> subprocess.Popen:
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {
        "OMP_NUM_THREADS": str(threads),  # otherwise each process would use all cores
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
        stdin=subprocess.PIPE,  # the system closes it when this process dies for any reason, see `end_with_parent`
        stdout=None if rank == 0 else subprocess.DEVNULL,
        stderr=None if rank == 0 else errors,
        start_new_session=True,  # a Ctrl-C reaches the processes once, through `_forward_signals`
    )


def end_with_parent() -> None:
    """End this process, which `launch_processes` started, as soon as the launching process has ended."""
    if os.environ.pop(WATCHED, None) is None:
        return
    pipe = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # other code must not read from the pipe

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
    # processes that this function killed, or that only noticed the loss of another one, are not the cause
    causes = [end for end in failed if end[0] != LOST] or failed
    code, rank = causes[0] if causes else (0, 0)
    return (128 - code if code < 0 else code), rank


def _print_error(rank: int, running: Sequence[subprocess.Popen], errors: Sequence[IO[bytes]]) -> None:
    """Print the error of a rank other than 0, unless rank 0 has printed the same error."""
    code = running[rank].returncode
    if rank and running[0].returncode != code:
        errors[rank].seek(0)
        text = errors[rank].read().decode(errors="replace").rstrip()
        print(lines(f"process {rank + 1} of {len(running)} failed:\n{text}".rstrip(":\n")), file=sys.stderr)
    if code < 0:
        name = signal.Signals(-code).name
        print(
            f"error: process {rank + 1} of {len(running)} was ended by {name}; the same command continues from the "
            "last saved state",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _forward_signals(running: Sequence[subprocess.Popen]) -> Iterator[None]:
    """During a block, forward stop signals to the run's processes, which save their state and end."""

    def forward(number: int, frame: FrameType | None) -> None:
        leave_closed_terminal()
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    with signals_handled_by(forward):
        yield
