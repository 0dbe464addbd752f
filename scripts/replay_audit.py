"""Precision and recall of the label audit where a share of the labels was flipped, for many, medium and few.

    python scripts/replay_audit.py --weights FILE --features outputs/cifar10_lt.npy    # needs CIFAR-10

The training labels of ``--dataset`` are flipped with ``--share`` to another class at random; the audit sees features of
a network that was not trained on them (torchvision's squeezenet1_0 on ImageNet), and folds. Printed for each group of
classes by their number of training images: flipped labels, precision and recall of confident learning with
class-relative thresholds (or of cleanlab, ``--method cleanlab``), and of the plain argmax.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ltr.apply.audit import label_errors, out_of_fold
from ltr.apply.cleanlab_errors import check_cleanlab, cleanlab_errors
from ltr.evaluation.groups import shot_groups
from ltr.randomness import generator


def read(dataset: str, overrides: list[str], features: Path, weights: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return features float32 [N, D] and labels of a split's training images."""
    from ltr.configuration.overrides import load_config
    from ltr.data.packed_images.reading import read_source
    from ltr.data.splitting.exclusion import read_split
    from replay_mining import extract

    named = [f"dataset={dataset}", *overrides]
    config = load_config(named)
    source = read_source({**config["dataset"], "image_size": None})
    split = read_split(config["dataset"], source)
    if not features.is_file():
        features.parent.mkdir(parents=True, exist_ok=True)
        np.save(features, extract(np.asarray(source.images)[split.train], weights, side=64))
    values = np.load(features).astype(np.float32)
    if len(values) != len(split.train):
        raise SystemExit(f"{features} has {len(values):,} rows, and {split.name} {len(split.train):,} training images")
    return values, split.label_map[source.labels[split.train]]


def flip(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return labels of which a share is another class at random."""
    random = generator(seed, "flips")
    classes = int(labels.max()) + 1
    other = (labels + random.integers(1, classes, len(labels))) % classes
    return np.where(random.uniform(size=len(labels)) < share, other, labels)


def scores(flagged: np.ndarray, wrong: np.ndarray, members: np.ndarray) -> tuple[float, float]:
    """Return precision and recall of flagged labels among some images."""
    hits = int(np.count_nonzero(flagged & wrong & members))
    raised, present = int(np.count_nonzero(flagged & members)), int(np.count_nonzero(wrong & members))
    return hits / max(raised, 1), hits / max(present, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cifar10_lt")
    parser.add_argument(
        "--override", action="append", default=[], metavar="KEY=VALUE", help="override of the dataset config"
    )
    parser.add_argument("--features", type=Path, required=True, metavar="FILE", help=".npy file, computed if missing")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of torchvision's squeezenet1_0")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--many-above", type=int, default=500, help="bound of many-shot classes, in training images (default: 500)"
    )
    parser.add_argument(
        "--few-below", type=int, default=150, help="bound of few-shot classes, in training images (default: 150)"
    )
    parser.add_argument("--method", choices=("ltr", "cleanlab"), default="ltr")
    arguments = parser.parse_args()
    if arguments.method == "cleanlab":
        check_cleanlab()
    find_errors = cleanlab_errors if arguments.method == "cleanlab" else label_errors
    features, labels = read(arguments.dataset, arguments.override, arguments.features, arguments.weights)
    counts = np.bincount(labels)
    groups = shot_groups(counts, arguments.many_above, arguments.few_below)
    table: dict[str, list[list[float]]] = {}
    for seed in range(arguments.seeds):
        noisy = flip(labels, arguments.share, seed)
        wrong = noisy != labels
        probabilities, _ = out_of_fold(features, noisy, len(counts), seed=seed)
        audited, plain = find_errors(probabilities, noisy).is_error, probabilities.argmax(axis=1) != noisy
        for group, of in {"all": np.ones(len(counts), dtype=bool), **groups}.items():
            members = of[noisy]  # by the label that is seen
            if members.any():
                row = [float((wrong & members).sum()), *scores(audited, wrong, members), *scores(plain, wrong, members)]
                table.setdefault(group, []).append(row)
    print(f"{'classes':<8}{'flipped':>9}{'precision':>11}{'recall':>8}   argmax: precision, recall")
    for group, rows in table.items():
        flipped, precision, recall, plain_precision, plain_recall = np.mean(rows, axis=0)
        print(f"{group:<8}{flipped:>9.0f}{precision:>11.2f}{recall:>8.2f}{plain_precision:>20.2f}{plain_recall:>8.2f}")


if __name__ == "__main__":
    main()
