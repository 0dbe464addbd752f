"""Commands in several processes at once: forked from the test's own, which has imported everything already."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ltr.runs.processes.process_info import RENDEZVOUS


@dataclass(frozen=True)
class Processes:
    """Exit codes and output of the processes of a run."""

    codes: list[int]
    out: str  # of the first
    err: str


def ltr_train_in(
    folder: Path, *overrides: str, processes: int = 2, timeout: float = 60, hook=None, strategy: str = "ddp"
) -> Processes:
    """``ltr-train strategy=ddp`` in so many forked processes, with ``folder/outputs``.

    Args:
        hook: called as hook(rank) in each process before the command.

    Raises:
        TimeoutError: they hang.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / f"meeting-{time.monotonic_ns()}"
    context = multiprocessing.get_context("fork")
    argv = [
        f"strategy={strategy}",
        f"paths.outputs={folder / 'outputs'}",
        *("figures=none", "callbacks.progress=none", "trainer.accelerator=cpu", "trainer.precision=fp32"),
        *overrides,
    ]
    running = [
        context.Process(target=_one, args=(rank, processes, meeting, argv, folder, hook)) for rank in range(processes)
    ]
    for process in running:
        process.start()
    until = time.monotonic() + timeout
    for process in running:
        process.join(max(0.0, until - time.monotonic()))
    hanging = [process for process in running if process.is_alive()]
    for process in hanging:
        process.kill()
        process.join()
    texts = [(folder / f"0.{name}").read_text() for name in ("out", "err")]
    if hanging:
        raise TimeoutError(f"{len(hanging)} of {processes} processes hang: {texts}")
    return Processes([process.exitcode or 0 for process in running], *texts)


def ltr_train_command(folder: Path, *argv: str, timeout: float = 120) -> Processes:
    """``ltr-train`` as a command in ``folder``: a forked process, which may start others.

    Raises:
        TimeoutError: it hangs.
    """
    process = multiprocessing.get_context("fork").Process(target=_command, args=(folder, argv))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError("the command hangs")
    return Processes([process.exitcode], *((folder / f"command.{name}").read_text() for name in ("out", "err")))


def _command(folder: Path, argv: Sequence[str]) -> None:
    from ltr import cli

    _write_to(folder, "command")
    os.chdir(folder)
    sys.argv = ["ltr-train", *argv]
    try:
        cli.train()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


def _write_to(folder: Path, name: str) -> None:
    """Let this process write to ``NAME.out`` and ``NAME.err``."""
    for suffix, stream in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / f"{name}.{suffix}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115


def _one(rank: int, processes: int, meeting: Path, argv: Sequence[str], folder: Path, hook) -> None:
    _write_to(folder, str(rank))
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        RENDEZVOUS: meeting.as_uri(),
    }
    if hook is not None:
        hook(rank)
    from ltr.cli import train_main

    code = train_main(list(argv))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
