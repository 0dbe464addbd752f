"""A training step of a small network by number of threads, and by how OpenMP's threads wait for each other.

    python scripts/bench_threads.py             # beside whatever runs on this machine
    python scripts/bench_threads.py --load 1    # beside one process at low priority that computes

Each side is a separate process, because OpenMP reads its variables once. Steps per second count only without other
load than that of --load.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from ltr.names import counted

STEPS = """
import sys, time, torch
from torch import nn
torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
convolutions = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
network = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(512, 10))
images, labels = torch.rand(64, 1, 8, 8), torch.randint(0, 10, (64,))
optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
def step():
    optimizer.zero_grad()
    nn.functional.cross_entropy(network(images), labels).backward()
    optimizer.step()
for _ in range(3):
    step()
start, work, steps = time.perf_counter(), time.process_time(), 0
while time.perf_counter() - start < float(sys.argv[2]):
    step()
    steps += 1
print(steps / (time.perf_counter() - start), 1000 * (time.process_time() - work) / steps)
"""
BUSY = "import os\nos.nice(10)\nwhile True: pass"
NAMES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", type=int, default=0, help="processes at low priority that compute meanwhile")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="for each side of a round")
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    sides: dict[str, tuple[int, dict[str, str]]] = {
        "1 thread": (1, {}),
        f"{threads} threads": (threads, {}),
        f"{threads} threads, OMP_WAIT_POLICY=passive": (threads, {"OMP_WAIT_POLICY": "passive"}),
        f"{threads} threads, GOMP_SPINCOUNT=1000": (threads, {"GOMP_SPINCOUNT": "1000"}),
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    load = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(arguments.load)]
    try:
        for _ in range(arguments.rounds):
            for name, (number, variables) in sides.items():
                measured[name].append(steps(number, variables, arguments.seconds))
    finally:
        for process in load:
            process.kill()
    beside = counted(arguments.load, "busy process", "busy processes")
    print(f"medians of {counted(arguments.rounds, 'round')}, beside {beside}")
    for name, values in measured.items():
        rates, work = zip(*values)
        print(
            f"{name:<36} {statistics.median(rates):8.1f} steps/s ({min(rates):.1f} to {max(rates):.1f})"
            f"  processor {statistics.median(work):6.2f} ms a step"
        )


def steps(threads: int, variables: dict[str, str], seconds: float) -> tuple[float, float]:
    """Return steps per second and the processor time of a step in ms, of a process with these variables."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", STEPS, str(threads), str(seconds)]
    done = subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, check=True)
    rate, work = done.stdout.split()
    return float(rate), float(work)


if __name__ == "__main__":
    main()
