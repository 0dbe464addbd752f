"""Distances of images to the class points of a trained RPL, ARPL or GCPL: own class, other classes, unknown classes.

    python scripts/distances_to_points.py outputs/cifar10_open/rpl/rpl-s0-1a2b3c4d
    python scripts/distances_to_points.py weights.ckpt --data /path/to/data

For each class the mean squared distance (divided by the width of the features) from its points to its own test images,
to those of the other known classes, and to images of unknown classes: its own lie farther from reciprocal points than
the others do, and nearer to prototypes. Then the distance from the points of the predicted class, mean ± s.d.; how far
images lie from the middle, the mean of the known classes' mean features; and in what share of the pairs of a known and
an unknown image the unknown one is nearer to it, ties by half.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ltr.cli import run_guarded
from ltr.data.module import DataModule
from ltr.data.packed_images.reading import read_source
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.data.splitting.exclusion import read_split
from ltr.errors import CheckpointError, DataError
from ltr.evaluation.detection import auroc, operating_points
from ltr.files import checkpoint_file
from ltr.methods.core.checkpoint import describe, load_network
from ltr.methods.reciprocal_points.base import PointNetwork

PARTS = ("test", "unknown")


class Lying(NamedTuple):
    """Features and distances of a part's images; N images, C classes, features of width D."""

    features: np.ndarray  # float64 [N, D]
    distances: np.ndarray  # float64 [N, C], mean over a class's points of ||f - p||^2 / D
    predicted: np.ndarray  # float64 [N], the distance of these that is of the class with the highest logit
    labels: np.ndarray  # int64 [N], -1 for unknown classes


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a run's directory, or a checkpoint file")
    parser.add_argument("--data", type=Path, help="folder of the data sets (default: the run's)")
    parser.add_argument("--batch-size", type=int, default=200)
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    arguments = parse_arguments(argv)
    path = checkpoint_file(arguments.checkpoint)
    network = load_network(path)
    if not isinstance(network, PointNetwork):
        raise CheckpointError(f"{path} has no points; networks of method=rpl, rpl_pp, arpl, arpl_cs and gcpl have")
    config = describe(path)["dataset"]
    if arguments.data and "root" in config["source"]:
        config = {**config, "source": {**config["source"], "root": str(arguments.data)}}
    source = read_source(config)
    split = read_split(config, source)
    if not len(split.unknown):
        raise DataError(f"{path} was trained on {config['name']}, which has no unknown images; cifar10_open has")
    known, unknown = (lying(network, source, split, config, part, arguments.batch_size) for part in PARTS)
    print(f"{path}\n{config['name']}: {len(known.labels):,} test images, {len(unknown.labels):,} of unknown classes")
    print(f"\n{'points of':<16}{'own images':>14}{'other known':>14}{'unknown':>14}   squared distance / width")
    rows = by_class(known, unknown)
    names = [str(name) for name in network.dataset_info.class_names]
    for name, row in zip([*names, "mean"], [*rows, rows.mean(0)]):
        print(f"{name:<16}" + "".join(f"{value:14.3f}" for value in row))
    near = [f"{name} {of.predicted.mean():.3f} ± {of.predicted.std():.3f}" for name, of in zip(PARTS, (known, unknown))]
    print(f"\nto the points of the predicted class: {', '.join(near)}")
    far_known, far_unknown = from_middle(known, unknown)
    print(f"from the middle: known {far_known.mean():.3f}, unknown {far_unknown.mean():.3f}")
    print(f"pairs with the unknown image nearer to it: {100 * auroc(operating_points(far_known, far_unknown)):.1f} %")
    return 0


@torch.inference_mode()
def lying(network: PointNetwork, source: Source, split: Split, config: dict[str, Any], part: str, rows: int) -> Lying:
    """Return features and distances of a part's images, in the order of the split."""
    data = DataModule.for_evaluation(source, split, config, rows)
    features, distances, predicted, labels = [], [], [], []
    for batch in data.evaluation_loader(part):
        batch_features = network.features(network.to_unit(batch.images)).double()
        features.append(batch_features.numpy())
        measured = network.head.measure(batch_features)
        of_classes = measured.squares.mean(2) / batch_features.shape[1]
        distances.append(of_classes.numpy())
        predicted.append(of_classes.gather(1, network.head.logits(measured).argmax(1, keepdim=True))[:, 0].numpy())
        labels.append(batch.labels.numpy())
    return Lying(*(np.concatenate(parts) for parts in (features, distances, predicted, labels)))


def by_class(known: Lying, unknown: Lying) -> np.ndarray:
    """Return the mean distance of each class's points to its images, other known and unknown images, float64 [C, 3]."""
    classes = range(known.distances.shape[1])
    own_distances = [known.distances[known.labels == c, c].mean() for c in classes]
    other = [known.distances[known.labels != c, c].mean() for c in classes]
    return np.stack([own_distances, other, unknown.distances.mean(0)], 1)


def from_middle(known: Lying, unknown: Lying) -> tuple[np.ndarray, np.ndarray]:
    """Return Euclidean distances of known and of unknown images to the mean of the known classes' mean features."""
    classes = range(known.distances.shape[1])
    middle = np.stack([known.features[known.labels == c].mean(0) for c in classes]).mean(0)
    return np.linalg.norm(known.features - middle, axis=1), np.linalg.norm(unknown.features - middle, axis=1)


if __name__ == "__main__":
    sys.exit(run_guarded(lambda: main(sys.argv[1:])))
