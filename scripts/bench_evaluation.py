"""Cost of counting one evaluation batch on one core, against torchmetrics and the bare tensor operations.

    python scripts/bench_evaluation.py [--classes 100 1000 8142] [--batch 256] [--link softmax]

Everything is measured in this run, in turns, and compared as medians; `ClosedSet.update` includes top-1, top-5, NLL,
calibration (all and few) and the rows kept for predictions.parquet.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torchmetrics.classification import MulticlassAccuracy

from ltr.evaluation.closed_set import ClosedSet
from ltr.evaluation.scores import LINKS, Scores


def milliseconds(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median time of each call; alternating calls share busy moments of the machine."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()  # untimed: the one before may have emptied the caches
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def bench(classes: int, batch: int, link: str, rounds: int) -> None:
    """Print one block for a number of classes."""
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(batch, classes, generator=generator)
    labels = torch.randint(0, classes, (batch,), generator=generator)
    indices = torch.arange(batch)
    counts = np.maximum(1, (1000 * 0.002 ** (np.arange(classes) / max(1, classes - 1))).astype(np.int64))
    protocol = ClosedSet(counts, link=link)
    reference = MulticlassAccuracy(num_classes=classes, average=None, validate_args=False)
    scores = Scores(logits)
    measured = milliseconds(
        {
            "ClosedSet.update": lambda: protocol.update(scores, labels, indices),
            "torch.topk + cross_entropy": lambda: (
                logits.topk(min(5, classes), dim=1),
                torch.nn.functional.cross_entropy(logits, labels),
            ),
            "torchmetrics MulticlassAccuracy(average=None)": lambda: reference.update(logits, labels),
        },
        rounds,
    )
    start = time.perf_counter()
    protocol.compute()
    print(f"{classes} classes, batch {batch}, link {link}, one thread")
    for name, value in measured.items():
        print(f"  {name:<46} {value:9.2f} ms  {value / measured['ClosedSet.update']:7.2f} x")
    print(f"  {'ClosedSet.compute, once':<46} {1000 * (time.perf_counter() - start):9.2f} ms")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000, 8142])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--link", choices=LINKS, default="softmax")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for classes in arguments.classes:
        bench(classes, arguments.batch, arguments.link, arguments.rounds)


if __name__ == "__main__":
    main()
