"""Time of Recall@K against the chunked matrix products that it needs, and its peak memory.

    python scripts/bench_retrieval.py [--images 60502] [--classes 11316] [--width 512] [--rounds 3]

The sizes are those of Stanford Online Products' test half. Both sides run in turns in one process and are compared as
medians; the peak is of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

import numpy as np
import torch

from ltr.evaluation.retrieval import _DISTANCES, nearest_of_class


def made_up(images: int, classes: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features float32 [N, D] around class centres, and labels int64 [N]."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    centres = torch.randn(classes, width, generator=generator)
    return centres[labels] + 2.0 * torch.randn(images, width, generator=generator), labels


def products(features: torch.Tensor) -> None:
    """Run the bare chunked products of all rows with all rows."""
    rows = max(1, _DISTANCES // len(features))
    for start in range(0, len(features), rows):
        features[start : start + rows] @ features.T


def peak(images: int, classes: int, width: int, queue: multiprocessing.Queue) -> None:
    """Put the peak memory of this process in MB, before and after the ranking, into ``queue``."""
    features, labels = made_up(images, classes, width)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    nearest_of_class(features, labels)
    queue.put((before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    """Read the command line, run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60_502)
    parser.add_argument("--classes", type=int, default=11_316)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sizes = (arguments.images, arguments.classes, arguments.width)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak, args=(*sizes, queue))
    process.start()
    before, after = queue.get()
    process.join()

    features, labels = made_up(*sizes)
    times: dict[str, list[float]] = {"recall, MAP@R, R-precision": [], "the products alone": []}
    for _ in range(arguments.rounds):
        for name, call in zip(times, (lambda: nearest_of_class(features, labels), lambda: products(features))):
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    ratios = np.divide(*(np.array(values) for values in times.values()))
    print(
        f"{arguments.images} images, {arguments.classes} classes, width {arguments.width}, "
        f"{torch.get_num_threads()} threads"
    )
    for name, values in times.items():
        print(f"  {name:<28} {np.median(values):8.2f} s")
    print(f"  ratio {np.median(ratios):.2f} (rounds {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"  peak memory of the process {after:.0f} MB, of which {before:.0f} MB before the ranking")


if __name__ == "__main__":
    main()
