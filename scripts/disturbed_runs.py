"""Runs of ``ltr-train`` in separate processes, disturbed by ``torture.py``, and their outcomes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ltr.methods.core.checkpoint import describe
from ltr.runs.processes.process_info import RENDEZVOUS

LIMIT = 240.0  # seconds after which a run counts as hanging
GRACE = 8.0  # seconds for the others to notice that one of them is gone
KILLED = -signal.SIGKILL
FORK = multiprocessing.get_context("fork")
COMMON = (
    *("trainer.accelerator=cpu", "trainer.precision=fp32", "trainer.max_epochs=3", "batch_size=50"),
    *("figures=none", "callbacks.progress=none", "checkpoint.every_minutes=0.0005", "checkpoint.min_seconds=0"),
)
FOLDER = ("dataset=folder", "backbone=digits_net", "dataset.image_size=16", "batch_size=20")
RUNS = {
    "erm": ("method=erm", "trainer.ema_decay=0.9", "sampler=progressive"),
    "crt": ("method=crt", "method.classifier.epochs=2"),
    "m2m": ("method=m2m",),
    "sla": ("method=sla",),
    "background_splitting": ("method=background_splitting", "dataset=digits_bg"),
    "arpl": ("method=arpl", "dataset=digits_open"),
    "herbs": ("method=herbs", "optimizer.lr=0.01"),
    "rkd": ("method=rkd", "dataset=digits_retrieval"),
    "files": FOLDER,
    "files_skip": (*FOLDER, "trainer.on_error=skip", "trainer.max_skipped=0.05"),
}


class Case(NamedTuple):
    """A disturbed run: its name in `RUNS`, its processes, and the workers that read its files."""

    run: str
    processes: int = 1
    workers: int = 0

    def __str__(self) -> str:
        parts = [f"{self.processes} processes"] * (self.processes > 1) + [f"{self.workers} workers"] * bool(
            self.workers
        )
        return ", ".join([self.run, *parts])


def child(rank: int, processes: int, argv: Sequence[str], folder: Path, meeting: Path, before: Callable | None) -> None:
    """One process of a run, whose output goes to a file."""
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


def exit_codes(running: Sequence[Any], limit: float = LIMIT) -> list[int | None]:
    """Return exit codes; None for a process that hung and was killed."""
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


def exit_codes_after(victim: Any, running: Sequence[Any]) -> list[int | None]:
    """Return exit codes after a disturbance of ``victim``; None if it hung.

    Where it failed, the others have `GRACE` before they are ended, as whatever starts processes does: one that waits
    for the others at the start would wait for minutes.
    """
    (code,) = exit_codes([victim])
    exit_codes(running, LIMIT if code == 0 else GRACE)
    return [code if process is victim else process.exitcode for process in running]


def digest(folder: Path) -> str:
    """Return the digest of the weights and the result rows of the run in ``folder``."""
    results = sorted((folder / "outputs").glob("*/*/*/result.json"))
    if len(results) != 1:
        return f"{len(results)} results"
    digest = hashlib.sha256()
    state = describe(results[0].parent / "checkpoints" / "final.ckpt")["state_dict"]
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].numpy().tobytes())
    digest.update(json.dumps(json.loads(results[0].read_text())["rows"], sort_keys=True).encode())
    return digest.hexdigest()


def output_text(folder: Path) -> str:
    """Return the output of all processes of the runs in ``folder``, rank 0 first."""
    return "".join(path.read_text() for path in sorted(folder.glob("?.log")))


def unexplained(text: str) -> bool:
    """Return whether the output contains a traceback.

    Two are Python's own: a worker's thread prints one where its run is killed beside it, and torch's loader where a
    worker is killed that was about to end.
    """
    harmless = text.count("in _serve") + text.count("Exception ignored in")
    return text.count("Traceback") > harmless or "not a mistake that ltr foresees" in text


def jpegs(root: Path) -> None:
    """Write five classes of 40 training and 8 test images, each a noisy colour."""
    for number in range(5 * 48):
        label, number_in_class = number % 5, number // 5
        draw = np.random.default_rng(number)
        pixels = np.clip(draw.normal(60 + 30 * label, 50, (28, 24, 3)), 0, 255).astype(np.uint8)
        path = root / ("test" if number_in_class < 8 else "train") / f"class{label}" / f"{number_in_class}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def damage(path: Path) -> None:
    """Make an image unreadable but keep its size, which is part of the data set's fingerprint."""
    path.write_bytes(bytes(path.stat().st_size))


def workers_of(process: Any) -> list[int]:
    """Return the child processes of a process."""
    try:
        return [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except OSError:
        return []


class Runs:
    """A starter of runs in separate folders that knows their undisturbed outcomes.

    Args:
        root: a folder for the outputs.
        draw: of the images that cannot be read.
    """

    def __init__(self, root: Path, draw: random.Random) -> None:
        self.root = root
        self.draw = draw
        self.number = 0
        self._peace: dict[Case, float] = {}
        self._digests: dict[tuple[str, int], str] = {}
        self._images: dict[str, Path] = {}

    def folder(self) -> Path:
        self.number += 1
        return self.root / str(self.number)

    def images(self, run: str) -> Path:
        """Return the folder of JPEGs of a run; ``files_skip`` has three unreadable files."""
        if run not in self._images:
            jpegs(self.root / run)
            self._images[run] = self.root / run
            if run == "files_skip":
                for label in (0, 0, 3):
                    damage(self.root / run / "train" / f"class{label}" / f"{self.draw.randrange(8, 48)}.jpg")
        return self._images[run]

    def start(self, folder: Path, case: Case, before: Callable | None = None, images: Path | None = None) -> list[Any]:
        """Start the processes of ``ltr-train`` with outputs in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        meeting = folder / f"meeting-{time.monotonic_ns()}"
        argv = [*COMMON, *RUNS[case.run], f"trainer.num_workers={case.workers}", f"paths.outputs={folder / 'outputs'}"]
        argv += ["strategy=ddp"] * (case.processes > 1)
        if case.run.startswith("files"):
            argv.append(f"dataset.root={images or self.images(case.run)}")
        running = [
            FORK.Process(target=child, args=(rank, case.processes, argv, folder, meeting, before))
            for rank in range(case.processes)
        ]
        for process in running:
            process.start()
        return running

    def undisturbed(self, case: Case) -> tuple[str, float]:
        """Return digest and seconds of the undisturbed run; the digest does not depend on the number of workers."""
        if case not in self._peace:
            folder, began = self.folder(), time.monotonic()
            codes = exit_codes(self.start(folder, case))
            if any(code != 0 for code in codes):
                raise SystemExit(f"{case} fails even in peace {codes}: {output_text(folder)[-2000:]}")
            self._digests.setdefault((case.run, case.processes), digest(folder))
            self._peace[case] = time.monotonic() - began
            if digest(folder) != self._digests[case.run, case.processes]:
                raise SystemExit(f"{case} ends with other bits than with other workers, even in peace: {folder}")
            shutil.rmtree(folder)
        return self._digests[case.run, case.processes], self._peace[case]
