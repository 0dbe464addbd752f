"""Time and memory to build each kind of split, against one plain numpy argsort of the same labels, on one core.

    python scripts/bench_splits.py [--images 2700000] [--classes 10000]

The labels are of the size of iNaturalist 2021, long-tailed, without any image behind them. Seconds are CPU time, the
median of three runs in this process; megabytes are the most that was allocated at one time while building, the
source's own labels not counted. Budgets at the default size: 1.5 s and 500 MB for every split.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ltr.data.source import ImageFiles, Source
from ltr.data.splitting.background import background
from ltr.data.splitting.closed_set import long_tail, natural
from ltr.data.splitting.open_set import open_set
from ltr.data.splitting.retrieval import retrieval

RUNS = 3
SECONDS, MEGABYTES = 1.5, 500.0  # budgets
TEST_PER_CLASS = 10


def synthetic_source(images: int, classes: int) -> Source:
    """Return ``images`` shuffled training labels of imbalance factor 100, and ten test labels per class."""
    weights = 100.0 ** -(np.arange(classes) / max(classes - 1, 1))
    counts = np.maximum((weights / weights.sum() * images).astype(np.int64), 2)
    counts[0] += images - counts.sum()
    rng = np.random.Generator(np.random.Philox(key=0))
    train = rng.permutation(np.repeat(np.arange(classes), counts))
    test = np.tile(np.arange(classes), TEST_PER_CLASS)
    total = len(train) + len(test)
    return Source(
        name="synthetic",
        images=ImageFiles("", b"", np.zeros(total + 1, dtype=np.int64)),
        labels=np.concatenate([train, test]),
        class_names=tuple(f"class {number}" for number in range(classes)),
        parts={"train": range(len(train)), "test": range(len(train), total)},
        fingerprint="synthetic",
    )


def seconds(work: Callable[[], object]) -> float:
    """Return the median CPU time of ``work``, which excludes other programs."""
    times = []
    for _ in range(RUNS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def megabytes(work: Callable[[], object]) -> float:
    """Return the peak allocation of ``work`` in 10^6 bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2_700_000)
    parser.add_argument("--classes", type=int, default=10_000)
    options = parser.parse_args()

    source = synthetic_source(options.images, options.classes)
    held_out: dict[str, Any] = {"val": "train_fraction"}
    few = max(options.classes // 50, 1)
    splits: dict[str, Callable[[], object]] = {
        "natural": partial(natural, source),
        "natural, val=train_fraction": partial(natural, source, **held_out),
        "long_tail, cao": partial(long_tail, source, imbalance_factor=100),
        "long_tail, seeded": partial(long_tail, source, imbalance_factor=100, subset="seeded"),
        "background, uniform": partial(background, source, n_foreground=few),
        "background, frequency, capped": partial(
            background, source, foreground="frequency", n_foreground=few, max_per_class=20
        ),
        "background, val=train_fraction": partial(background, source, n_foreground=few, **held_out),
        "open_set": partial(open_set, source),
        "open_set, long-tailed": partial(open_set, source, imbalance_factor=100),
        "open_set, val=train_fraction": partial(open_set, source, **held_out),
        "retrieval": partial(retrieval, source),
        "retrieval, val=train_fraction": partial(retrieval, source, **held_out),
    }
    labels = source.labels

    def reference() -> object:
        return np.argsort(labels)

    unit_seconds, unit_megabytes = seconds(reference), megabytes(reference)
    print(f"{len(labels):,} labels of {options.classes:,} classes; np.argsort: {unit_seconds:.3f} s")
    print(f"{'':32}{'s':>8}{'x argsort':>11}{'MB':>8}{'x argsort':>11}")
    within = True
    for name, build in splits.items():
        took, held = seconds(build), megabytes(build)
        within = within and took <= SECONDS and held <= MEGABYTES
        print(f"{name:32}{took:8.3f}{took / unit_seconds:11.2f}{held:8.0f}{held / unit_megabytes:11.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"largest memory of the process, source included: {peak:.0f} MB")
    print(f"within {SECONDS} s and {MEGABYTES:.0f} MB: {'yes' if within else 'no'}")


if __name__ == "__main__":
    main()
