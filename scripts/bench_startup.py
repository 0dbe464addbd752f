"""Start-up time of `ltr-train`: against an empty Hydra app with the same configs, and against importing Lightning.

    python scripts/bench_startup.py

Every side is a process of its own, run in turn on the same machine; the median of 7 counts. Budgets: `--help` at most
0.2 s above the empty app's, `--cfg job` at most 0.7 s; from the command to the first training step of the digits at
most 1.3 times `import torch, pytorch_lightning`, the whole default run at most 8 s (both in processor time).
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from process_pool import EMPTY_APP, TRAIN

REPEATS = 7
IMPORTS = "import torch, pytorch_lightning"
FIRST_STEP = """
import os
from ltr.cli import run_as_process, train_main

def to_first_step():
    from ltr.methods.core.network import ImageClassifier

    ImageClassifier.training_step = lambda *arguments: os._exit(0)
    return train_main([])

run_as_process(to_first_step)
"""
PROCESSOR_SIDES = {"imports": IMPORTS, "to the first step": FIRST_STEP, "whole run": TRAIN}


def seconds(script: Path, arguments: list[str], folder: Path) -> float:
    """Return the wall seconds of one process from start to end."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        env={**os.environ, "HYDRA_FULL_ERROR": "0"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


def processor_seconds(code: str) -> float:
    """Return the processor seconds of a process that runs ``code`` in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report_processor_time() -> None:
    """Print the processor seconds of imports, first step and whole run, and the ratio of the first two."""
    times: dict[str, list[float]] = {title: [] for title in PROCESSOR_SIDES}
    for repeat in range(REPEATS + 1):
        for title, code in PROCESSOR_SIDES.items():
            taken = processor_seconds(code)
            if repeat:  # the first round fills the file cache
                times[title].append(taken)
    for title, values in times.items():
        print(
            f"{title:<18} {statistics.median(values):.2f} s of processor time ({min(values):.2f} to {max(values):.2f})"
        )
    ratios = [seconds / imports for seconds, imports in zip(times["to the first step"], times["imports"])]
    print(f"to the first step: {statistics.median(ratios):.2f} times the imports (median of {REPEATS})")


def main() -> None:
    report_processor_time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scripts = {"ltr-train": TRAIN, "empty app": EMPTY_APP}
        for title, code in scripts.items():
            (folder / f"{title.replace(' ', '_')}.py").write_text(code)
        for arguments in (["--help"], ["--cfg", "job"]):
            times: dict[str, list[float]] = {title: [] for title in scripts}
            for repeat in range(REPEATS + 1):
                for title in scripts:
                    taken = seconds(folder / f"{title.replace(' ', '_')}.py", arguments, folder)
                    if repeat:  # the first round fills the file cache
                        times[title].append(taken)
            command, empty = (statistics.median(times[title]) for title in scripts)
            print(
                f"{' '.join(arguments):<10} ltr-train {command:.3f} s   empty Hydra app {empty:.3f} s   "
                f"difference {command - empty:+.3f} s   (median of {REPEATS})"
            )


if __name__ == "__main__":
    main()
