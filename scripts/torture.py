"""Fault injection: disturbed runs must resume and end with the bits of an undisturbed run.

    python scripts/torture.py --kills 100 --faults 20

Every trial starts ``ltr-train`` on embedded digits, or on a folder of small JPEGs read by 0 or 4 workers, in forked
processes (one, or two with strategy=ddp), disturbs it at a random instant, and starts the same command again until it
is finished. Weights and result rows must then be those of the undisturbed run, bit for bit. A kill is a SIGKILL to one
of the processes, several in a run; half of them come shortly after a state was saved, so that several fall into one
epoch. The faults:

    stopped     SIGTERM, SIGINT or SIGHUP to one of the processes
    torn        killed, and the newest checkpoint cut or changed
    full        a disk that is full in the middle of a save (a tmpfs of few bytes; where none may be mounted, a limit
                on the size of a file)
    worker      a process that reads images killed
    unreadable  an image damaged while it is trained on (on_error=raise), or before (on_error=skip, and a kill)
    vanished    an image file deleted while it is trained on; put back for the next start
    changed     an image file replaced by another image between two epochs; the run ends, or names what it found
    removed     the outputs removed while the run continues; it ends with all its files, or says what is missing
    locked      a run that died while it held a stage's lock
    racing      two runs of the same command at once

A table is printed; the exit code is 1 where anything differed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from disturbed_runs import (
    KILLED,
    RUNS,
    Case,
    Runs,
    damage,
    digest,
    exit_codes,
    exit_codes_after,
    output_text,
    unexplained,
    workers_of,
)

ROOM = 2**26  # bytes of the small disk once there is room again
_GOING_ON = re.compile(r"^(\S+): resuming in epoch (\d+), batch (\d+)", re.MULTILINE)  # of which stage
KINDS = ("killed", "stopped", "torn", "full", "worker", "unreadable", "vanished", "changed", "removed",
         "locked", "racing")  # fmt: skip


@dataclass
class Tally:
    """Outcomes of the trials of one kind on one case."""

    kind: str
    case: Case
    trials: int = 0
    hits: int = 0  # kills or faults that met a living run
    inside: int = 0  # starts that went on in the middle of an epoch
    again: int = 0  # of these, starts that went on in the epoch in which the start before them did, too
    same: int = 0
    wrong: list[str] = field(default_factory=list)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[], object] | None]:
    """Mount a small file system at ``folder``; yield a function that enlarges it, or None without permission."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o"]
    if subprocess.run([*mount, f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield partial(subprocess.run, ["mount", "-o", f"remount,size={ROOM}", str(folder)], check=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class Torture:
    """The trials of one run of this script.

    Args:
        root: a folder for the outputs.
        draw: of the instants.
        mounts: whether full disks are file systems of their own, where they may be mounted.
    """

    def __init__(self, root: Path, draw: random.Random, mounts: bool = True) -> None:
        self.runs = Runs(root, draw)
        self.draw = draw
        self.mounts = mounts
        self.disks = {"a file system": 0, "a limit of file sizes": 0}

    def instant(self, folder: Path, seconds: float, after: str) -> None:
        """Wait for a random time of a run, or for one shortly after a file was written."""
        if not after:
            time.sleep(self.draw.uniform(0, 0.7 * seconds))  # the first run, which was timed, is slower than others
            return
        began, until = time.time_ns(), time.monotonic() + 1.5 * seconds

        def written() -> bool:
            return any(path.lstat().st_mtime_ns > began for path in (folder / "outputs").glob(after))

        with contextlib.suppress(OSError):  # it is renamed while we look
            while not written() and time.monotonic() < until:
                time.sleep(0.003)
        time.sleep(self.draw.uniform(0, 0.05) * seconds)

    def evaluate(self, tally: Tally, folder: Path, codes: list[int | None]) -> None:
        """Count a finished trial."""
        tally.trials += 1
        expected, actual, text = self.runs.undisturbed(tally.case)[0], digest(folder), output_text(folder)
        places = [(match[1], match[2]) for match in _GOING_ON.finditer(text) if match[3] != "1"]
        tally.inside += len(places)
        tally.again += sum(one == other for one, other in itertools.pairwise(places))
        if all(code == 0 for code in codes) and actual == expected and not unexplained(text):
            tally.same += 1
            shutil.rmtree(folder, ignore_errors=True)  # a small disk is still mounted there
        else:
            tally.wrong.append(f"{folder}: exit codes {codes}, digest {actual[:12]} for {expected[:12]}: {text[-300:]}")

    def finish(self, tally: Tally, folder: Path) -> None:
        """Repeat the command undisturbed and evaluate the outcome."""
        self.evaluate(tally, folder, exit_codes(self.runs.start(folder, tally.case)))

    def killed(self, tally: Tally, most: int = 3) -> None:
        """Kill one run up to ``most`` times."""
        _, seconds = self.runs.undisturbed(tally.case)
        folder = self.runs.folder()
        for _ in range(most):
            running = self.runs.start(folder, tally.case)
            self.instant(folder, seconds, self.draw.choice(["", "stages/*/state/last.ckpt"]))
            victim = self.draw.choice(running)
            victim.kill()
            tally.hits += exit_codes_after(victim, running)[running.index(victim)] == KILLED
        self.finish(tally, folder)

    def stopped(self, tally: Tally) -> None:
        """Send a signal: the run must save and exit with 143, 130 or 129."""
        _, seconds = self.runs.undisturbed(tally.case)
        folder = self.runs.folder()
        running = self.runs.start(folder, tally.case)
        self.instant(folder, seconds, self.draw.choice(["", "stages/*/state/last.ckpt"]))
        number, victim = self.draw.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]), self.draw.choice(running)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, number)
        codes = exit_codes_after(victim, running)
        code = codes[running.index(victim)]
        # one that cannot answer yet dies as any process does; in training all of them hear of it
        if code not in (0, 128 + number, -number) or (
            "stopped in epoch" in output_text(folder) and set(codes) != {code}
        ):
            tally.wrong.append(f"{folder}: {number.name} ends with {codes}: {output_text(folder)[-300:]}")
        tally.hits += code == 128 + number
        self.finish(tally, folder)

    def torn(self, tally: Tally) -> None:
        """Kill the run, then truncate or change its newest checkpoint."""
        _, seconds = self.runs.undisturbed(tally.case)
        folder = self.runs.folder()
        running = self.runs.start(folder, tally.case)
        self.instant(folder, seconds, "stages/*/state/last.ckpt")
        for process in running:
            process.kill()
        exit_codes(running)
        for state in (folder / "outputs").glob("stages/*/state"):
            newest = [path for path in (state / "last.ckpt", state / "previous.ckpt") if path.is_file()][:1]
            for path in newest:  # between the two names there may be no last one
                content = bytearray(path.read_bytes())
                position = self.draw.randrange(len(content))
                if self.draw.random() < 0.5:
                    del content[position:]
                else:
                    content[position] ^= 0xFF
                path.write_bytes(content)
                tally.hits += 1
        self.finish(tally, folder)

    def full(self, tally: Tally) -> None:
        """Fill the disk during the run, then free space."""
        folder, limits = self.runs.folder(), None
        size = self.draw.randrange(60_000, 900_000)
        with small_disk(folder / "outputs", size) if self.mounts else contextlib.nullcontext() as make_room:
            self.disks["a limit of file sizes" if make_room is None else "a file system"] += 1
            if make_room is None:
                limits = (size // 3, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            full = None if limits is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            running = self.runs.start(folder, tally.case, full)
            codes = exit_codes_after(running[0], running)
            tally.hits += any(codes)
            if None in codes or unexplained(output_text(folder)):
                tally.wrong.append(f"{folder}: full at {size} bytes, exit codes {codes}: {output_text(folder)[-300:]}")
            if make_room is not None:
                make_room()
            before = tally.same
            self.finish(tally, folder)
            if tally.same == before and make_room is not None:
                shutil.copytree(folder / "outputs", folder / "of the small disk")
        if tally.same > before:
            shutil.rmtree(folder, ignore_errors=True)

    def worker(self, tally: Tally) -> None:
        """Kill a loading worker: the run must end with an error, unless the worker is no longer needed."""
        _, seconds = self.runs.undisturbed(tally.case)
        folder = self.runs.folder()
        running = self.runs.start(folder, tally.case)
        self.instant(folder, seconds, "")
        victim, until = self.draw.choice(running), time.monotonic() + seconds
        while not (workers := workers_of(victim)) and time.monotonic() < until:
            time.sleep(0.003)
        time.sleep(self.draw.uniform(0, 0.02))
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(self.draw.choice(workers), signal.SIGKILL)
        code = exit_codes_after(victim, running)[running.index(victim)]
        tally.hits += code == 1 and "a process that reads images ended" in output_text(folder)
        if code not in (0, 1):
            tally.wrong.append(f"{folder}: a worker killed, exit code {code}: {output_text(folder)[-300:]}")
        self.finish(tally, folder)

    def unreadable(self, tally: Tally) -> None:
        """Damage an image: the run must name it, or replace it by another of its class."""
        if tally.case.run == "files_skip":
            before = tally.hits
            self.killed(tally, most=1)
            tally.hits = before + 1  # three images of every run
            return
        _, seconds = self.runs.undisturbed(tally.case)
        folder = self.runs.folder()
        images = self.runs.images(tally.case.run)
        path = images / "train" / f"class{self.draw.randrange(5)}" / f"{self.draw.randrange(8, 48)}.jpg"
        content = path.read_bytes()
        running = self.runs.start(folder, tally.case)
        self.instant(folder, seconds, "")
        damage(path)
        codes = exit_codes(running)
        path.write_bytes(content)
        words = output_text(folder)  # of training, or of the look at all files before it
        named = f"class{path.parent.name[-1]}/{path.name}" in words and "cannot be read" in words
        tally.hits += named
        if (any(codes) and not named) or None in codes:
            tally.wrong.append(f"{folder}: {path} damaged, exit codes {codes}: {output_text(folder)[-300:]}")
        self.finish(tally, folder)

    def vanished(self, tally: Tally) -> None:
        """Delete an image file: the run must name it, unless it is no longer needed."""
        _, seconds = self.runs.undisturbed(tally.case)
        folder, path = self.runs.folder(), self._training_image(tally)
        content = path.read_bytes()
        running = self.runs.start(folder, tally.case)
        self.instant(folder, seconds, "stages/*/state/last.ckpt")  # one that is gone before is not in the data set
        path.unlink()
        codes = exit_codes(running)
        path.write_bytes(content)
        named = path.name in output_text(folder)
        tally.hits += any(codes) and named
        if (any(codes) and not named) or None in codes:
            tally.wrong.append(f"{folder}: {path} deleted, exit codes {codes}: {output_text(folder)[-300:]}")
        self.finish(tally, folder)

    def changed(self, tally: Tally) -> None:
        """Replace an image file by another image: the run and its repetition must finish or give the reason."""
        _, seconds = self.runs.undisturbed(tally.case)
        folder, path = self.runs.folder(), self._training_image(tally)
        content = path.read_bytes()
        other = self.draw.choice([one for one in sorted(path.parent.iterdir()) if one != path]).read_bytes()
        running = self.runs.start(folder, tally.case)
        self.instant(folder, seconds, "stages/*/state/last.ckpt")
        path.write_bytes(other)
        tally.hits += any(process.is_alive() for process in running)
        codes = exit_codes(running)
        path.write_bytes(content)
        codes += exit_codes(self.runs.start(folder, tally.case))
        tally.trials += 1
        if (
            set(codes) <= {0, 1}
            and not unexplained(output_text(folder))
            and (not any(codes) or "error: " in output_text(folder))
        ):
            tally.same += 1
            shutil.rmtree(folder)
        else:
            tally.wrong.append(f"{folder}: {path} changed, exit codes {codes}: {output_text(folder)[-300:]}")

    def _training_image(self, tally: Tally) -> Path:
        images = self.runs.images(tally.case.run)
        return images / "train" / f"class{self.draw.randrange(5)}" / f"{self.draw.randrange(8, 48)}.jpg"

    def removed(self, tally: Tally) -> None:
        """Remove the outputs: the run must end with all its files, or with an error that names what is missing."""
        wanted, seconds = self.runs.undisturbed(tally.case)
        folder = self.runs.folder()
        running = self.runs.start(folder, tally.case)
        self.instant(folder, seconds, self.draw.choice(["", "stages/*/state/last.ckpt"]))
        shutil.rmtree(folder / "outputs", ignore_errors=True)
        tally.hits += any(process.is_alive() for process in running)
        codes = exit_codes(running)
        whole = not any(codes) and digest(folder) == wanted and any((folder / "outputs").glob("*/*/*/config.yaml"))
        explained = None not in codes and all(code in (0, 1) for code in codes) and "error: " in output_text(folder)
        if not (whole or (any(codes) and explained)):
            tally.wrong.append(f"{folder}: outputs removed, exit codes {codes}: {output_text(folder)[-300:]}")
        self.finish(tally, folder)

    def locked(self, tally: Tally) -> None:
        """Kill a run while it holds a stage's lock."""
        _, seconds = self.runs.undisturbed(tally.case)
        folder = self.runs.folder()
        running = self.runs.start(folder, tally.case)
        self.instant(folder, seconds, "stages/.*.lock")
        for process in running:
            process.kill()
        codes = exit_codes(running)
        tally.hits += KILLED in codes and bool(list((folder / "outputs" / "stages").glob(".*.lock")))
        self.finish(tally, folder)

    def racing(self, tally: Tally) -> None:
        """Start the same command twice at once."""
        _, seconds = self.runs.undisturbed(tally.case)
        folder = self.runs.folder()
        one = self.runs.start(folder, tally.case)
        time.sleep(self.draw.uniform(0, 0.5) * seconds)
        tally.hits += all(process.is_alive() for process in one)
        other = self.runs.start(folder, tally.case)
        self.evaluate(tally, folder, [*exit_codes(one), *exit_codes(other)])


def cases_of(names: Sequence[str], processes: Sequence[int]) -> list[Case]:
    """Return every run with every number of processes; runs on files with 0 and with 4 workers."""
    return [
        Case(name, number, workers)
        for number in processes
        for name in names
        for workers in ((0, 4) if name.startswith("files") else (0,))
    ]


def fits(kind: str, case: Case) -> bool:
    if kind == "worker":
        return case.workers > 0 and case.run == "files"
    if kind in ("vanished", "changed"):
        return case.run == "files"
    return case.run.startswith("files") if kind == "unreadable" else case.run != "files_skip"


def show(tallies: Sequence[Tally]) -> None:
    """Print a table of hits / trials of every case, by kind, then the findings."""
    kinds = [kind for kind in KINDS if any(tally.kind == kind for tally in tallies)]
    cell = {(tally.kind, tally.case): f"{tally.hits} / {tally.trials}" for tally in tallies if tally.trials}
    print("\n| run | " + " | ".join(kinds) + " |\n|---|" + "---|" * len(kinds))
    for case in dict.fromkeys(tally.case for tally in tallies):
        print(f"| {case} | " + " | ".join(cell.get((kind, case), "") for kind in kinds) + " |")
    for title, number in (("hits", "hits"), ("trials", "trials"), ("the same bits", "same")):
        sums = [sum(getattr(tally, number) for tally in tallies if tally.kind == kind) for kind in kinds]
        print(f"| {title} | " + " | ".join(map(str, sums)) + " |")
    inside, again = sum(tally.inside for tally in tallies), sum(tally.again for tally in tallies)
    print(
        f"\n{inside} starts went on in the middle of an epoch, {again} of them in that of the start before", flush=True
    )
    for tally in tallies:
        for line in tally.wrong:
            print(f"{tally.kind}, {tally.case}: {line}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--kills", type=int, default=24, help="total number of kills, spread over the runs (default: 24)"
    )
    parser.add_argument("--faults", type=int, default=2, help="faults per kind (default: 2)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of faults, comma-separated (default: all)")
    parser.add_argument("--runs", default=",".join(RUNS), help="runs, comma-separated (default: all)")
    parser.add_argument("--processes", default="1,2", help="processes per run, comma-separated (default: 1,2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="folder for the outputs (default: a temporary folder)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it was started in the background
    torch.set_num_threads(1)

    root = arguments.folder or Path(tempfile.mkdtemp(prefix="ltr-torture-"))
    torture = Torture(root.absolute(), random.Random(arguments.seed))
    cases = cases_of(arguments.runs.split(","), [int(number) for number in arguments.processes.split(",")])
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, one thread each; outputs in {root}", flush=True)
    began, tallies = time.monotonic(), []
    for kind in arguments.kinds.split(","):
        wanted = arguments.kills if kind == "killed" else arguments.faults
        kind_tallies = [Tally(kind, case) for case in cases if fits(kind, case)]
        tallies += kind_tallies
        for number in range(3 * wanted):  # some come too late
            if not kind_tallies or sum(tally.hits for tally in kind_tallies) >= wanted:
                break
            tally = kind_tallies[number % len(kind_tallies)]
            getattr(torture, kind)(tally)
            print(
                f"{time.monotonic() - began:6.0f} s  {kind:<10} {tally.case}: {tally.hits} hits, "
                f"{tally.same} of {tally.trials} with the same bits",
                flush=True,
            )
    show(tallies)
    print(f"full disks: {torture.disks}; {time.monotonic() - began:.0f} s")
    return int(any(tally.wrong or tally.same < tally.trials for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
