"""Time saved by cached stages: ratios between commands, in one run.

    python scripts/bench_stages.py                          # digits_lt
    python scripts/bench_stages.py --data /path/to/cifar    # CIFAR-10-LT as well

- tau:     one run that evaluates 21 values of tau against one that evaluates one; the representation is stored. At most
  1.03.
- jobs:    the same 21 values as a sweep of 21 jobs; seconds a job.
- methods: a sweep over six methods that share their representation against the run of ERM alone. At most 1.6.
- local:   eight runs with +launcher=local against the same runs one after another, with one thread and with all; wall
  time (on an idle machine only) and the processor time of all processes. The digits also with 200 epochs; two cores
  take about three minutes a round.
- plans:   a sweep of 200 plans against Hydra's own time for 200 jobs that do nothing; seconds beyond it, at most 5.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from ltr.names import counted
from process_pool import EMPTY_APP, TRAIN

QUIET = ["figures=none", "callbacks.progress=none"]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
METHODS = "erm,crt,lws,tau_norm,ncm,posthoc_la"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with cifar-10-batches-py")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the comparison over tau")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the representation on CIFAR-10-LT")
    parser.add_argument("--only", choices=("tau", "jobs", "methods", "local", "plans"), nargs="*")
    arguments = parser.parse_args()
    sets = {"digits_lt": ["dataset=digits_lt", "dataset.val=train_fraction"]}
    if arguments.data:
        sets["cifar10_lt"] = [
            "dataset=cifar10_lt", "dataset.val=test_fraction", f"paths.data={arguments.data.absolute()}",
            f"trainer.max_epochs={arguments.epochs}",
        ]  # fmt: skip
    parts = {"tau": tau, "jobs": jobs, "methods": methods, "local": local, "plans": plans}
    for name, part in parts.items():
        if not arguments.only or name in arguments.only:
            for title, overrides in sets.items():
                with tempfile.TemporaryDirectory() as folder:
                    print(f"{name:<8} {title:<11} {part(Path(folder), overrides, arguments.rounds)}", flush=True)


def tau(folder: Path, overrides: list[str], rounds: int) -> str:
    """Return medians of a run with one tau and one with 21, each with only the representation cached."""
    seconds(TRAIN, [*overrides, "method=erm"], folder)
    stored = folder / "stored"
    (folder / "outputs" / "stages").rename(stored)
    times: dict[str, list[float]] = {"0.5": [], "auto": []}
    for turn in range(rounds + 1):
        for value, samples in times.items():
            shutil.rmtree(folder / "outputs")
            shutil.copytree(stored, folder / "outputs" / "stages")
            taken = seconds(TRAIN, [*overrides, "method=tau_norm", f"method.tau={value}"], folder)
            if turn:  # the first round fills the file cache
                samples.append(taken)
    one, many = (statistics.median(samples) for samples in times.values())
    return f"one tau {one:6.2f} s   21 values {many:6.2f} s   ratio {many / one:.3f}"


def jobs(folder: Path, overrides: list[str], rounds: int) -> str:
    """Return seconds per job of a sweep over 21 values of tau with a cached representation."""
    seconds(TRAIN, [*overrides, "method=erm"], folder)
    values = ",".join(f"{i / 20:g}" for i in range(21))
    taken = seconds(TRAIN, ["-m", *overrides, "method=tau_norm", f"method.tau={values}"], folder)
    return f"21 jobs {taken:6.2f} s   {taken / 21:.2f} s a job, start-up included"


def methods(folder: Path, overrides: list[str], rounds: int) -> str:
    """Time six methods with classifiers of two epochs against ERM alone."""
    alone = seconds(TRAIN, [*overrides, "method=erm"], folder)
    shutil.rmtree(folder / "outputs")
    more = "experiment=two_epoch_classifiers"
    configs = folder / "configs" / "experiment"
    configs.mkdir(parents=True)
    # a key of two of the methods: as a config it holds where the method has it
    (configs / "two_epoch_classifiers.yaml").write_text("# @package _global_\nmethod:\n  classifier:\n    epochs: 2\n")
    command = [f"--config-dir={folder / 'configs'}", "-m", *overrides]
    together = seconds(TRAIN, [*command, "method=crt,lws", more], folder)
    together += seconds(TRAIN, ["-m", *overrides, "method=erm,tau_norm,ncm,posthoc_la"], folder)
    keys = {path.parent.name for path in (folder / "outputs" / "stages").glob("*/weights.ckpt")}
    return (
        f"erm {alone:6.2f} s   {METHODS} {together:6.2f} s   ratio {together / alone:.2f}   {len(keys)} trained stages"
    )


def local(folder: Path, overrides: list[str], rounds: int) -> str:
    """Time eight seeds one after another, with one thread and with all, and in several processes."""
    one_thread, launched = {"OMP_NUM_THREADS": "1"}, ["+launcher=local"]
    sides: dict[str, tuple[list[str], dict[str, str]]] = {
        "in turn, one thread": ([], one_thread),
        "in turn, all threads": ([], {}),
        "+launcher=local": (launched, {}),
    }
    adopt_orphans()
    lines = [f"eight runs, medians of {counted(rounds, 'round')}; throughput: wall time in turn / with +launcher=local"]
    lengths = [40, 200] if "dataset=digits_lt" in overrides else [None]
    for epochs in lengths:
        length = [] if epochs is None else [f"trainer.max_epochs={epochs}"]
        wall: dict[str, list[float]] = {name: [] for name in sides}
        work: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, (chosen, environment) in sides.items():
                before = processor_time()
                command = ["-m", *chosen, *overrides, *length, "seed=0,1,2,3,4,5,6,7"]
                wall[name].append(seconds(TRAIN, command, folder, environment))
                work[name].append(processor_time() - before)
                shutil.rmtree(folder / "outputs")
        for name in sides:
            ratios = [base / one for base, one in zip(wall[name], wall["+launcher=local"])]
            lines.append(
                f"{name if epochs is None else f'{epochs} epochs, {name}':<32} "
                f"wall {statistics.median(wall[name]):6.1f} s  processor {statistics.median(work[name]):6.1f} s  "
                f"throughput {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )
    return "\n  ".join(lines)


def adopt_orphans() -> None:
    """Become the parent of processes whose parent ends, such as the server of +launcher=local: their time counts."""
    subreaper = 36
    ctypes.CDLL(None).prctl(subreaper, 1, 0, 0, 0)


def processor_time() -> float:
    """Return the processor seconds of all ended child processes; wait for those that are ending."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def plans(folder: Path, overrides: list[str], rounds: int) -> str:
    """Time 200 planning jobs beyond 200 empty jobs."""
    seeds = ",".join(str(seed) for seed in range(200))
    command = ["-m", *overrides, "method=crt", f"seed={seeds}"]
    nothing = seconds(EMPTY_APP, command, folder)
    planned = seconds(TRAIN, [*command, "stages=plan"], folder)
    return f"200 jobs of Hydra {nothing:6.2f} s   200 plans {planned:6.2f} s   beyond {planned - nothing:.2f} s"


def seconds(code: str, arguments: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> float:
    """Return the wall seconds of one process from start to end.

    Args:
        environment: numbers of threads of the process, which has no others; None: those of this process.
    """
    rest = {name: value for name, value in os.environ.items() if environment is None or name not in THREADS}
    script = folder / "command.py"
    script.write_text(code)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), *arguments, *QUIET],
        cwd=folder,
        env={**rest, **(environment or {}), "HYDRA_FULL_ERROR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)
    return taken


if __name__ == "__main__":
    main()
