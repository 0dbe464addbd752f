"""Fuzzing by random command lines and damaged files: each must run or end in a foreseen message.

    python scripts/fuzz.py --commands 2000 --mutations 500

Commands plan (``stages=plan``) and train nothing. Each runs in a worker process that is monitored from outside: a
traceback, "not a mistake that ltr foresees", a signal, a command that hangs, an exit code that no command has, and the
exit code 0 where an argument can only be a mistake are findings. They are printed, and the exit code is then 1. The
same ``--seed`` draws the same cases. Ctrl-C ends the kind that is being tried; the table says what was.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fuzz_cases import Case, Findings, run_command

FORK = multiprocessing.get_context("fork")
LIMIT = 300.0  # seconds after which a command hangs; a sweep over every loss plans ten runs


def _serve(connection: Any, folder: Path) -> None:
    """Run cases one after the other in a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the process that looks after this one
    os.chdir(folder)
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, 0)
    log = os.open(folder / "worker.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    gc.freeze()  # what was imported before stays
    while True:
        command, arguments = connection.recv()
        try:
            answer = run_command(command, arguments)
        except BaseException as error:  # that no command lets through
            answer = (1, f"Traceback (most recent call last): {type(error).__name__}: {error}")
        connection.send(answer)


class Worker:
    """A process that runs cases, and is restarted when a case ends it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: Any = None

    def run(self, case: Case) -> tuple[int | None, str]:
        """Return (exit code, standard error); None for a hang, a negative code for a signal."""
        if case.prepare is not None:
            case.prepare()
        if self.process is None:
            self.connection, worker_end = FORK.Pipe()
            self.process = FORK.Process(target=_serve, args=(worker_end, self.folder))
            self.process.start()
            worker_end.close()
        self.connection.send((case.command, case.arguments))
        with contextlib.suppress(EOFError, ConnectionError):
            if self.connection.poll(LIMIT):
                return self.connection.recv()
            self.close()
            return None, f"nothing for {LIMIT:g} seconds"
        self.process.join()
        code, self.process = self.process.exitcode, None
        return (code if code < 0 else 1000 + code), "the process ended"

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def command_lines(draw: random.Random, folder: Path, count: int) -> Iterator[Case]:
    """Generate random planning command lines of ``ltr-train``."""
    from fuzz_commands import CommandLines

    lines = CommandLines(draw)
    for _ in range(count):
        parts, is_sweep = lines.next()
        fixed = ["stages=plan", f"paths.outputs={folder / 'outputs'}", f"paths.data={folder / 'data'}"]
        words = [*["-m"] * is_sweep, *fixed, *(part.text for part in parts)]
        yield Case("ltr-train", tuple(words), any(part.is_nonsense for part in parts))


def run_cases(cases: Iterable[Case], folder: Path, name: str, every: int = 20) -> Findings:
    """Run all cases and print the progress; after Ctrl-C the cases run so far count."""
    findings, began = Findings(), time.monotonic()
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(Worker(folder)) as worker:
        for number, case in enumerate(cases, 1):
            before = len(findings.wrong)
            findings.examine(case, *worker.run(case))
            for line in findings.wrong[before:]:
                print(f"  {name} {number}, {line}", flush=True)
            if number % every == 0:
                print(
                    f"{time.monotonic() - began:6.0f} s  {name}: {number}, {len(findings.wrong)} findings", flush=True
                )
    return findings


def main() -> int:
    from fuzz_files import KINDS, mutations

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", type=int, default=200, help="number of random command lines (default: 200)")
    parser.add_argument("--mutations", type=int, default=50, help="mutations per kind of file (default: 50)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of files, comma-separated (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it was started in the background
    os.environ.pop("HYDRA_FULL_ERROR", None)
    import torch

    import ltr.commands.train  # noqa: F401 - imported once for all workers

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="ltr-fuzz-"))
    draw = random.Random(arguments.seed)
    findings_of = {"command lines": run_cases(command_lines(draw, folder, arguments.commands), folder, "command lines")}
    for kind in [kind for kind in arguments.kinds.split(",") if kind and arguments.mutations]:
        findings_of[kind] = run_cases(mutations(kind, draw, folder, arguments.mutations), folder, kind)
    print("\n| what | cases | exit code 0 | 1 | 2 | findings |\n|---|---|---|---|---|---|")
    for name, findings in findings_of.items():
        codes = findings.codes
        print(f"| {name} | {codes.total()} | {codes[0]} | {codes[1]} | {codes[2]} | {len(findings.wrong)} |")
    wrong = sum(len(findings.wrong) for findings in findings_of.values())
    if not wrong:
        shutil.rmtree(folder)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
