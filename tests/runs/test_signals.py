"""SIGTERM and SIGHUP end a command as Ctrl-C does; a SIGHUP that is ignored stays so; a closed terminal is no error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ltr.cli import run_guarded
from ltr.errors import Interrupted
from ltr.runs.processes import launch
from ltr.runs.processes.interrupt import Stopped, StopRequest, stop_request, stop_signals, stopped_by_signals

IGNORED = """
import os, signal, sys
from ltr.runs.processes.interrupt import stop_request, stop_signals, stopped_by_signals
with stopped_by_signals(), stop_request():
    os.kill(os.getpid(), signal.SIGHUP)
sys.exit(int(signal.SIGHUP in stop_signals()))
"""
# the slave side of a terminal whose master is closed: what is printed there is an error, unless it goes nowhere
CLOSED = """
import os, signal
from ltr.errors import Interrupted
from ltr.runs.processes.interrupt import stop_request
master, slave = os.openpty()
code = os.dup(2)
os.dup2(slave, 1)
os.dup2(slave, 2)
os.close(master)
try:
    with stop_request() as request, request.while_polled():
        os.kill(os.getpid(), signal.SIGHUP)
        print("saved", flush=True)
        request.check()
except Interrupted as stopped:
    os.write(code, str(stopped.exit_code).encode())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_after_its_cleanup(number, capsys):
    cleaned = []

    def command() -> int:
        try:
            os.kill(os.getpid(), number)
            return 0
        finally:
            cleaned.append(True)

    before = signal.getsignal(number)
    with stopped_by_signals():
        code = run_guarded(command)
    assert code == 128 + number
    assert cleaned
    assert capsys.readouterr().err.startswith(f"stopped by {signal.Signals(number).name}")
    assert signal.getsignal(number) is before


def test_a_signal_ends_a_block_with_an_exception_that_except_clauses_do_not_catch():
    with stopped_by_signals(), pytest.raises(Stopped) as stopped:
        os.kill(os.getpid(), signal.SIGHUP)
    assert isinstance(stopped.value.__cause__, Interrupted)
    assert not isinstance(stopped.value, Exception)


def test_a_hangup_stops_a_run_at_its_next_step():
    with stop_request() as request:
        with request.while_polled():
            os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(Interrupted, match="the connection was closed") as stopped:
            request.check()
    assert stopped.value.exit_code == 129


def test_a_hangup_is_forwarded_to_all_processes(monkeypatch):
    signals = []

    class Process:
        returncode = None

        def poll(self):
            return None

        def send_signal(self, number):
            signals.append(number)

    with launch._forward_signals([Process(), Process()]):
        os.kill(os.getpid(), signal.SIGHUP)
    assert signals == [signal.SIGHUP, signal.SIGHUP]
    assert launch._failure(129).exit_code == 129
    assert isinstance(launch._failure(129), Interrupted)


def test_a_hangup_under_nohup_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in stop_signals({})
        StopRequest().listen()
        with stopped_by_signals(), launch._forward_signals([]):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        done = subprocess.run(
            [sys.executable, "-c", IGNORED], check=False
        )  # which inherits it, as a run's processes do
        assert done.returncode == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_writing_to_a_closed_terminal_is_not_an_error():
    done = subprocess.run([sys.executable, "-c", CLOSED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "129"
