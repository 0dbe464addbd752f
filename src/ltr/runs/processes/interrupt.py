"""Handling of Ctrl-C, SIGTERM and SIGHUP: stop at the next batch, save the training state, exit with 128 + signal.

A closed terminal or connection sends SIGHUP; under ``nohup`` the run ignores it. SLURM sends SIGUSR1 some time before
it ends a job (``--signal=USR1@90``): the run stops in the same way and requeues the job. Outside of a SLURM job,
SIGUSR1 keeps its handler.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from ltr.errors import Interrupted

_WORD = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP (the connection was closed)"}
_JOB = "SLURM_JOB_ID"


def stop_signals(environment: Mapping[str, str] = os.environ) -> tuple[signal.Signals, ...]:
    """Return the signals that stop a run, without SIGHUP if the process ignores it (``nohup``)."""
    signals = [number for number in _WORD if number != signal.SIGHUP or not _is_ignored(number)]
    return (*signals, *([signal.SIGUSR1] if _JOB in environment else []))


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


class Stopped(BaseException):
    """Exception for a signal that ends the command.

    It is not an `Exception`: a sweep would count a failed job and start the next one.
    """


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command like Ctrl-C, with clean-up, during a block.

    A training installs other handlers, see `stop_request`. Forked processes end without clean-up.
    """
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        leave_closed_terminal()
        raise Stopped from Interrupted(number, f"stopped by {_WORD[signal.Signals(number)]}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in stop_signals({}) if number != signal.SIGINT]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def signals_handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle stop signals by ``handler`` during a block; a no-op outside the main thread, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in stop_signals()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def leave_closed_terminal() -> None:
    """Redirect the output streams of a closed terminal to the null device, where printing raises no error."""
    for stream in (1, 2):
        try:
            termios.tcgetattr(stream)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def requeue(stopped: Interrupted, environment: Mapping[str, str] = os.environ) -> str:
    """Requeue the SLURM job if SIGUSR1 stopped it; return a sentence about it, or ''."""
    if stopped.exit_code != 128 + signal.SIGUSR1 or _JOB not in environment:
        return ""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else environment[_JOB]
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {job} could not be put back into the queue: {error}"
    if done.returncode:
        return f"job {job} could not be put back into the queue: {done.stderr.strip() or done.returncode}"
    return f"job {job} is back in the queue"


class StopRequest:
    """Signal that a run received: training polls it, all other work is interrupted immediately."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.polled = False  # True while training reads `signal` at every batch

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. A second signal does not wait for the poll."""
        is_second = self.signal is not None
        self.signal = number
        leave_closed_terminal()
        if is_second or not self.polled:
            raise self.error("stopped")

    def listen(self) -> None:
        """Install the handlers; called again when a fit begins, because Lightning then installs a SIGTERM handler."""
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                signal.signal(number, self.handle)

    def error(self, what: str) -> Interrupted:
        """Return the exception for the signal received."""
        assert self.signal is not None
        name = _WORD.get(signal.Signals(self.signal), signal.Signals(self.signal).name)
        return Interrupted(self.signal, f"{what} by {name}; the same command continues from there")

    @contextlib.contextmanager
    def while_polled(self) -> Iterator[None]:
        """During a block, let the first signal only set `signal`, without an exception."""
        self.polled = True
        try:
            yield
        finally:
            self.polled = False

    def check(self, what: str = "stopped") -> None:
        """Raise if a signal arrived while it was polled, and nothing has reacted to it since."""
        if self.signal is not None:
            raise self.error(what)


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Install the handlers during a run, in the main thread only."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in stop_signals()}
    request.listen()
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
