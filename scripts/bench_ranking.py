"""Cost of exact ranking metrics on one core, against the plain sorts that they need.

    python scripts/bench_ranking.py [--images 95986] [--classes 100] [--scores 100000] [--rounds 7]

First block: average precision of every class over all images (one sort of the scores per class is needed), alone and as
a whole pass of the background protocol with all of its metrics. Second block: OSCR, AUROC and AUPR of known and unknown
images (one sort of the images is needed), each alone, all from one count, and as a whole pass of the open-set protocol.
All in float32, in turns; times are medians of the processor's time, which other programs do not lengthen.
Freed memory is kept, as in every run. scikit-learn does the same for comparison, once, where it has the metric.
"""

from __future__ import annotations

import argparse
import resource
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch

from ltr.evaluation import detection, ranking
from ltr.evaluation.background import Background
from ltr.evaluation.open_set import OpenSet
from ltr.evaluation.scores import Scores
from ltr.runs.processes.device import keep_freed_memory


def milliseconds(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median time of each call; the calls alternate."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()  # untimed: the one before may have emptied the caches
            start = time.process_time()
            call()
            times[name].append(1000 * (time.process_time() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def megabytes(call: Callable[[], object]) -> float:
    """Return the peak additional numpy memory of a call."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def show(measured: dict[str, float], plain: str) -> None:
    for name, value in measured.items():
        print(f"  {name:<58} {value:9.2f} ms  {value / measured[plain]:7.2f} x")


def bench_background(images: int, classes: int, rounds: int) -> None:
    """Time average precisions of many images with few positives."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, classes + 1, (images,), generator=generator)
    labels[torch.rand(images, generator=generator) < 0.98] = 0
    logits = torch.randn(images, classes + 1, generator=generator)
    logits[torch.arange(images), labels] += 2
    scores, foreground = logits[:, 1:].contiguous().numpy(), labels.numpy() - 1
    counts = np.full(classes + 1, 50)

    def fed() -> Background:
        protocol = Background(counts, keep_predictions=False)
        for start in range(0, images, 250):
            part = slice(start, start + 250)
            protocol.update(Scores(logits[part]), labels[part])
        return protocol

    whole = fed()
    plain = "plain sorts: numpy.sort of each class's column"
    measured = milliseconds(
        {
            plain: lambda: [np.sort(scores[:, c]) for c in range(classes)],
            "average_precisions": lambda: ranking.average_precisions(scores, foreground),
            "Background.compute: all metrics, curves, histograms": whole.compute,
            "Background.update of all images, in batches of 250": fed,
        },
        rounds,
    )
    print(f"{images} images x {classes} classes, one thread")
    show(measured, plain)
    print(f"  scores kept: {whole.bytes_per_image * images / 1e6:.0f} MB ({whole.bytes_per_image} bytes an image)")
    print(
        f"  beside them: average_precisions {megabytes(lambda: ranking.average_precisions(scores, foreground)):.0f} MB"
    )
    print(f"               Background.compute {megabytes(whole.compute):.0f} MB")
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"  the process at its largest, with torch and the made-up data: {largest:.0f} MB")
    from sklearn.metrics import average_precision_score

    some = range(0, classes, max(1, classes // 5))
    start = time.process_time()
    expected = [average_precision_score(foreground == c, scores[:, c]) for c in some]
    seconds = (time.process_time() - start) / len(some) * classes
    actual = ranking.average_precisions(scores, foreground)[list(some)]
    difference = np.abs(actual - expected).max()
    print(f"  scikit-learn, from {len(some)} classes: {1000 * seconds:.0f} ms; largest difference {difference:.1e}")


def bench_open_set(scores: int, rounds: int) -> None:
    """Time metrics of known against unknown images."""
    random = np.random.default_rng(0)
    known, unknown = random.normal(1, 1, scores // 2).astype(np.float32), random.normal(0, 1, scores - scores // 2)
    unknown = unknown.astype(np.float32)
    correct = random.random(len(known)) < 0.9
    together = np.concatenate([known, unknown])
    points = detection.operating_points(known, unknown, correct)
    logits = torch.from_numpy(random.normal(size=(scores, 10)).astype(np.float32))
    labels = torch.from_numpy(np.r_[random.integers(0, 10, len(known)), np.full(len(unknown), -1)])
    protocol = OpenSet(np.full(10, 500), keep_predictions=False)
    protocol.update(Scores(logits), labels)

    def one(metric: Callable[[detection.OperatingPoints], float]) -> Callable[[], object]:
        return lambda: metric(detection.operating_points(known, unknown, correct))

    def all_from_one() -> list[float]:
        points = detection.operating_points(known, unknown, correct)
        return [f(points) for f in (detection.oscr, detection.auroc, detection.aupr_known, detection.aupr_unknown)]

    plain = "plain sort: numpy.argsort of all scores"
    measured = milliseconds(
        {
            plain: lambda: np.argsort(together),
            "AUROC": one(detection.auroc),
            "OSCR": one(detection.oscr),
            "AUPR, known": one(detection.aupr_known),
            "AUPR, unknown": one(detection.aupr_unknown),
            "OSCR, AUROC and both AUPR from one count": all_from_one,
            "oscr_arpl (the circulating count, by a stable sort)": lambda: detection.oscr_arpl(known, unknown, correct),
            "OpenSet.compute: all of it, thresholds, curves": protocol.compute,
        },
        rounds,
    )
    print(f"{scores} scores, half of them known, one thread")
    show(measured, plain)
    from sklearn.metrics import average_precision_score, roc_auc_score

    is_known = np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    start = time.process_time()
    expected = roc_auc_score(is_known, together), average_precision_score(is_known, together)
    seconds = time.process_time() - start
    actual = detection.auroc(points), detection.aupr_known(points)
    difference = np.abs(np.subtract(actual, expected)).max()
    print(f"  scikit-learn, AUROC and AUPR: {1000 * seconds:.0f} ms; largest difference {difference:.1e}")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=95_986)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--scores", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    bench_background(arguments.images, arguments.classes, arguments.rounds)
    bench_open_set(arguments.scores, arguments.rounds)


if __name__ == "__main__":
    main()
