"""Cost of interruptions and several processes: three ratios, each measured in one run.

    python scripts/bench_interruption.py --data /path/to/cifar    # CIFAR-10-LT; without --data digits

- saving:    seconds that saving the training state takes against those of the epoch, by default once an epoch. At most
             2 % of CIFAR-10-LT's (the digits' epoch is too short to say).
- resuming:  from the command to the end of its first step, where it goes on in mid-epoch against where it begins. At
             most 1.3.
- processes: images per second of two CPU processes with one thread each against one process with two threads, on two
             cores, ResNet-32 at the same batch size. At least 0.9.

Everything runs on CPUs. Rounds of the two sides alternate; medians are compared.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from process_pool import TRAIN

# prints what each save took
SAVING = """
import time
from ltr.runs.training import train as training
save = training.TrainingState.save
def timed(self, trainer):
    began = time.perf_counter()
    save(self, trainer)
    print("SAVED", time.perf_counter() - began, flush=True)
training.TrainingState.save = timed
"""
# tells the end of the first step, and is gone: what is stored stays as it was
FIRST_STEP = """
import os
from ltr.runs.training import train as training
class First(training.StopOnSignal):
    def on_train_batch_end(self, *arguments):
        print("STEP", flush=True)
        os._exit(0)
training.StopOnSignal = First
"""
# stops in the middle of the second epoch
HALF = """
import signal
from ltr.runs.training import train as training
class Half(training.StopOnSignal):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.current_epoch == 1 and 2 * (index + 1) >= trainer.num_training_batches:
            self.request.signal = signal.SIGTERM
        super().on_train_batch_end(trainer, module, outputs, batch, index)
training.StopOnSignal = Half
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with cifar-10-batches-py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4, help="epochs of the timed run")
    parser.add_argument(
        "--batches", type=int, help="batches per epoch (default: all, which the figure for saving needs)"
    )
    parser.add_argument("--only", choices=("saving", "resuming", "processes"), nargs="*")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    overrides = ["dataset=digits_lt", "backbone=resnet32"]
    if arguments.data:
        overrides = ["dataset=cifar10_lt", f"paths.data={arguments.data.absolute()}"]
    overrides += ["batch_size=128", "scheduler=constant", f"trainer.max_epochs={arguments.epochs}"]
    overrides += ["trainer.accelerator=cpu", "figures=none", "callbacks.progress=none", "checkpoint.min_seconds=0"]
    overrides += [f"trainer.limit_train_batches={arguments.batches}"] if arguments.batches else []
    for name, part in (("saving", saving), ("resuming", resuming), ("processes", processes)):
        if not arguments.only or name in arguments.only:
            with tempfile.TemporaryDirectory() as folder:
                print(f"{name:<10} {part(Path(folder), overrides, arguments.rounds)}", flush=True)


def ltr_train(folder: Path, overrides: list[str], before: str = "", threads: int = 2, code: int = 0) -> str:
    """Run ``ltr-train`` with its outputs in ``folder`` and return its output."""
    done = subprocess.run(
        [sys.executable, "-c", before + TRAIN, *overrides, f"paths.outputs={folder}"],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != code:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def epochs_of(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the only run in ``folder``, without its first epoch."""
    (path,) = folder.glob("*/*/*/metrics.csv")
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))[1:]


def saving(folder: Path, overrides: list[str], rounds: int) -> str:
    """Return the share of an epoch that one save at its end takes."""
    saves, seconds = [], []
    for turn in range(rounds):
        out = ltr_train(folder / str(turn), overrides, SAVING)
        saves += [float(line.split()[1]) for line in out.splitlines() if line.startswith("SAVED")]
        rows = epochs_of(folder / str(turn))
        images = int(next(part for part in out.split(", ") if part.endswith(" train")).split()[-2].replace(",", ""))
        steps = int(rows[1]["step"]) - int(rows[0]["step"])
        images = min(images, 128 * steps)
        seconds += [images / float(row["images_per_second"]) for row in rows]
    save, epoch = statistics.median(saves), statistics.median(seconds)
    return f"a save {1000 * save:.1f} ms   an epoch {epoch:.2f} s   share {100 * save / epoch:.2f} % (at most 2)"


def resuming(folder: Path, overrides: list[str], rounds: int) -> str:
    """Return the seconds to the end of the first step, of a resumed and of a fresh run."""
    ltr_train(folder / "stopped", overrides, HALF, code=143)
    taken: dict[str, list[float]] = {"begins": [], "goes on": []}
    for turn in range(rounds + 1):
        for side, samples in taken.items():
            where = folder / "stopped" if side == "goes on" else folder / f"fresh-{turn}"
            began = time.perf_counter()
            out = ltr_train(where, overrides, FIRST_STEP)
            seconds = time.perf_counter() - began
            if "STEP" not in out or ("resuming in epoch 2" in out) != (side == "goes on"):
                sys.exit(f"the run that {side} did not: {out}")
            if turn:  # the first round fills the file cache
                samples.append(seconds)
    fresh, resumed = (statistics.median(samples) for samples in taken.values())
    return f"begins {fresh:.2f} s   goes on {resumed:.2f} s   ratio {resumed / fresh:.3f} (at most 1.3)"


def processes(folder: Path, overrides: list[str], rounds: int) -> str:
    """Return images per second of one process with two threads, and of two with one."""
    sides: dict[str, tuple[int, list[str]]] = {"one": (2, []), "two": (1, ["strategy=ddp", "trainer.devices=2"])}
    rates: dict[str, list[float]] = {"one": [], "two": []}
    for turn in range(rounds):
        for side, (threads, more) in sides.items():
            where = folder / f"{side}-{turn}"
            ltr_train(where, [*overrides, *more], threads=threads)
            rates[side] += [float(row["images_per_second"]) for row in epochs_of(where)]
    one, two = (statistics.median(samples) for samples in rates.values())
    return f"one process {one:.0f} images/s   two {two:.0f} images/s   ratio {two / one:.3f} (at least 0.9)"


if __name__ == "__main__":
    main()
