"""Runs that are killed, torn and starved, and end with the bits of a run that was left in peace.

    python scripts/torture.py --kills 100 --faults 20

Every trial starts ``ltr-train`` on embedded digits in forked processes (one, or two with strategy=ddp), kills one of
them with SIGKILL at a random instant, several times in a run, and starts the same command again until it is finished.
Weights and result rows must then be those of the undisturbed run, bit for bit. Faults are a torn checkpoint, a file
size limit in the middle of a save (as a full disk), lock files of dead processes, two runs racing for the same stages.
A table is printed; the exit code is 1 where anything differed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ltr.methods.checkpoint import describe
from ltr.runs.launch import GRACE
from ltr.runs.place import RENDEZVOUS

LIMIT = 240.0  # seconds after which a run counts as hanging
FORK = multiprocessing.get_context("fork")
COMMON = (
    *("trainer.accelerator=cpu", "trainer.precision=fp32", "trainer.max_epochs=3", "batch_size=50"),
    *("figures=none", "callbacks.progress=none", "checkpoint.every_minutes=0.002"),
)
RUNS = {
    "erm": ("method=erm", "trainer.ema_decay=0.9", "sampler=progressive"),
    "crt": ("method=crt", "method.classifier.epochs=2"),
    "m2m": ("method=m2m",),
    "sla": ("method=sla",),
    "background_splitting": ("method=background_splitting", "dataset=digits_bg"),
    "arpl": ("method=arpl", "dataset=digits_open"),
    "herbs": ("method=herbs", "optimizer.lr=0.01"),
    "rkd": ("method=rkd", "dataset=digits_retrieval"),
}


@dataclass
class Tally:
    """What came of one kind of trial."""

    name: str
    processes: int
    trials: int = 0
    hits: int = 0  # kills or faults that met a living run
    same: int = 0
    wrong: list[str] = field(default_factory=list)


def child(rank: int, processes: int, argv: Sequence[str], folder: Path, meeting: Path, before: Callable | None) -> None:
    """One process of a run: its words go to a file."""
    os.dup2(os.open(folder / f"{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
    os.dup2(1, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    if processes > 1:
        number, world = str(rank), str(processes)
        os.environ |= {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ[RENDEZVOUS] = meeting.as_uri()
    if before is not None:
        before()
    from ltr.cli import train_main

    code = train_main(list(argv))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def started(folder: Path, argv: Sequence[str], processes: int = 1, before: Callable | None = None) -> list[Any]:
    """The processes of ``ltr-train`` with its outputs in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / f"meeting-{time.monotonic_ns()}"
    more = ["strategy=ddp"] if processes > 1 else []
    arguments = [*COMMON, *argv, *more, f"paths.outputs={folder / 'outputs'}"]
    running = [
        FORK.Process(target=child, args=(rank, processes, arguments, folder, meeting, before))
        for rank in range(processes)
    ]
    for process in running:
        process.start()
    return running


def ended(running: Sequence[Any], limit: float = LIMIT) -> list[int | None]:
    """Exit codes; None for a process that hung and was killed."""
    until = time.monotonic() + limit
    codes: list[int | None] = []
    for process in running:
        process.join(max(0.0, until - time.monotonic()))
        codes.append(process.exitcode)
    for process in running:
        if process.is_alive():
            process.kill()
            process.join()
    return codes


def digest(folder: Path) -> str:
    """Over the weights and the result rows of the run in ``folder``."""
    results = sorted((folder / "outputs").glob("*/*/*/result.json"))
    if len(results) != 1:
        return f"{len(results)} results"
    found = hashlib.sha256()
    state = describe(results[0].parent / "checkpoints" / "final.ckpt")["state_dict"]
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].numpy().tobytes())
    found.update(json.dumps(json.loads(results[0].read_text())["rows"], sort_keys=True).encode())
    return found.hexdigest()


class Torture:
    """The trials of one run of this script.

    Args:
        root: a folder for the outputs.
        draw: of the instants.
    """

    def __init__(self, root: Path, draw: random.Random) -> None:
        self.root = root
        self.draw = draw
        self.number = 0
        self._peace: dict[tuple[str, int], tuple[str, float]] = {}

    def folder(self) -> Path:
        self.number += 1
        return self.root / str(self.number)

    def in_peace(self, name: str, processes: int) -> tuple[str, float]:
        """Digest and seconds of the undisturbed run."""
        if (name, processes) not in self._peace:
            folder, began = self.folder(), time.monotonic()
            codes = ended(started(folder, RUNS[name], processes))
            if any(codes):
                raise SystemExit(f"{name} fails even in peace {codes}: {(folder / '0.log').read_text()[-2000:]}")
            self._peace[name, processes] = digest(folder), time.monotonic() - began
            shutil.rmtree(folder)
        return self._peace[name, processes]

    def judge(self, tally: Tally, folder: Path, codes: list[int | None]) -> None:
        """Count a trial that has ended."""
        tally.trials += 1
        wanted = self.in_peace(tally.name, tally.processes)[0]
        if not any(codes) and digest(folder) == wanted:
            tally.same += 1
            shutil.rmtree(folder)
        else:
            tally.wrong.append(f"{folder}: exit codes {codes}, digest {digest(folder)[:12]} for {wanted[:12]}")

    def killed(self, tally: Tally, most: int) -> None:
        """One run, killed up to ``most`` times on its way."""
        _, seconds = self.in_peace(tally.name, tally.processes)
        folder = self.folder()
        for _ in range(most):
            running = started(folder, RUNS[tally.name], tally.processes)
            time.sleep(self.draw.uniform(0, 0.6 * seconds))  # the first run, which was timed, is slower than others
            victim = self.draw.choice(running)
            if victim.is_alive():
                victim.kill()
                tally.hits += 1
            ended(running, GRACE if victim.exitcode is None or victim.exitcode < 0 else LIMIT)
        self.judge(tally, folder, ended(started(folder, RUNS[tally.name], tally.processes)))

    def torn(self, tally: Tally) -> None:
        """Killed, and its newest checkpoint cut or changed."""
        _, seconds = self.in_peace(tally.name, tally.processes)
        folder = self.folder()
        running = started(folder, RUNS[tally.name], tally.processes)
        until = time.monotonic() + 2 * seconds
        while not list((folder / "outputs").glob("stages/*/state/last.ckpt")) and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(self.draw.uniform(0, 0.1) * seconds)
        for process in running:
            process.kill()
        ended(running)
        for path in (folder / "outputs").glob("stages/*/state/last.ckpt"):
            content = bytearray(path.read_bytes())
            place = self.draw.randrange(len(content))
            if self.draw.random() < 0.5:
                del content[place:]
            else:
                content[place] ^= 0xFF
            path.write_bytes(content)
            tally.hits += 1
        self.judge(tally, folder, ended(started(folder, RUNS[tally.name], tally.processes)))

    def full(self, tally: Tally) -> None:
        """A file may not grow beyond so many bytes; then it may."""
        most = self.draw.randrange(2_000, 400_000)
        folder = self.folder()
        limit = (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        codes = ended(
            started(folder, RUNS[tally.name], tally.processes, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
        )
        tally.hits += any(codes)
        said = (folder / "0.log").read_text()
        if None in codes or "Traceback" in said or "not a mistake that ltr foresees" in said:
            tally.wrong.append(f"{folder}: full at {most} bytes, exit codes {codes}: {said[-300:]}")
        self.judge(tally, folder, ended(started(folder, RUNS[tally.name], tally.processes)))

    def locked(self, tally: Tally) -> None:
        """A run died while it held a stage's lock."""
        folder = self.folder()
        _, seconds = self.in_peace(tally.name, tally.processes)
        running = started(folder, RUNS[tally.name], tally.processes)
        locks: list[Path] = []
        until = time.monotonic() + seconds
        while not locks and time.monotonic() < until:
            locks = list((folder / "outputs" / "stages").glob(".*.lock"))
            time.sleep(0.01)
        for process in running:
            process.kill()
        ended(running)
        tally.hits += bool(locks)
        self.judge(tally, folder, ended(started(folder, RUNS[tally.name], tally.processes)))

    def racing(self, tally: Tally) -> None:
        """Two runs of the same command at once."""
        folder = self.folder()
        one = started(folder, RUNS[tally.name], tally.processes)
        time.sleep(self.draw.uniform(0, 0.5))
        other = started(folder, RUNS[tally.name], tally.processes)
        tally.hits += 1
        self.judge(tally, folder, [*ended(one), *ended(other)])


def signal_default() -> None:
    """Ctrl-C ends the script."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def show(rows: Sequence[tuple[str, Tally]]) -> None:
    print(f"\n{'trial':<8} {'run':<22} {'processes':>9} {'runs':>5} {'hits':>5} {'same bits':>9}")
    for kind, tally in rows:
        print(
            f"{kind:<8} {tally.name:<22} {tally.processes:>9} {tally.trials:>5} {tally.hits:>5} {tally.same:>9}",
            flush=True,
        )
        for line in tally.wrong:
            print(f"    {line}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=24, help="in total, spread over the runs (default: 24)")
    parser.add_argument("--faults", type=int, default=2, help="of each kind (default: 2)")
    parser.add_argument("--runs", default=",".join(RUNS), help="which, separated by commas")
    parser.add_argument("--processes", default="1,2", help="of a run, separated by commas (default: 1,2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the outputs (default: a temporary one)")
    arguments = parser.parse_args()
    signal_default()
    torch.set_num_threads(1)
    import ltr.runs.runner
    import ltr.train_command  # noqa: F401 - imported once for all forks

    root = arguments.folder or Path(tempfile.mkdtemp(prefix="ltr-torture-"))
    torture = Torture(root.absolute(), random.Random(arguments.seed))
    names = arguments.runs.split(",")
    cases = [(name, int(processes)) for processes in arguments.processes.split(",") for name in names]
    rows = [("killed", Tally(name, processes)) for name, processes in cases]
    print(f"{torch.__version__}, {os.cpu_count()} cores, one thread each; outputs in {root}")
    done = 0
    while done < arguments.kills:
        for _, tally in rows:
            if done < arguments.kills:
                before = tally.hits
                torture.killed(tally, most=min(3, arguments.kills - done))
                done += tally.hits - before
                print(
                    f"{tally.name} x{tally.processes}: {tally.hits} kills, {tally.same}/{tally.trials} same", flush=True
                )
    for kind in ("torn", "full", "locked", "racing"):
        tally = Tally(names[0], 1)
        for _ in range(arguments.faults):
            getattr(torture, kind)(tally)
        rows.append((kind, tally))
    show(rows)
    return int(any(tally.wrong or tally.same < tally.trials for _, tally in rows))


if __name__ == "__main__":
    sys.exit(main())
