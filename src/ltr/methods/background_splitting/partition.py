"""The partition of a split's training images: its statistics, a shuffled control, and the images with labels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ltr.identity import named
from ltr.methods.background_splitting.pseudo_labels import NONE, without_pseudo_labels
from ltr.methods.core.stage import Computation
from ltr.randomness import generator

LARGEST_SHARE = 0.5  # of the background in one pseudo-class; above it there is a warning


@named("computation/partition")
def partition(computation: Computation, *, shuffled: bool, labelled_fraction: float) -> dict[str, np.ndarray]:
    """Compute the statistics of a split's pseudo-labels, and choose the images that keep their labels.

    Args:
        shuffled: give each training image the pseudo-label of another one, drawn with the run's seed: a control with
            uninformative pseudo-labels.
        labelled_fraction: share of each class's training images that keep their label, in (0, 1], at least one image.
            The official code samples from all images, so that a rare class may keep none.

    Returns:
        With a parent ``pseudo_labels``, the `statistics` and a ``summary`` of them; with ``shuffled`` also
        ``taken_from`` int64 [source], the image whose pseudo-label an image gets. With ``labelled_fraction`` below 1,
        ``labelled`` bool [source] and ``labelled_counts`` int64 [C].

    Raises:
        ConfigError: a training image without a pseudo-label.
    """
    source, split = computation.source, computation.split
    train, labels = split.train, split.labels(source)[split.train]
    arrays: dict[str, np.ndarray] = {}
    if "pseudo_labels" in computation.parents:
        pseudo = computation.parents["pseudo_labels"].arrays
        if shuffled:
            arrays["taken_from"] = np.arange(len(source))
            order = generator(computation.seed, computation.role, "shuffled").permutation(len(train))
            arrays["taken_from"][train] = train[order]
        arrays |= statistics(pseudo, arrays.get("taken_from", slice(None)), train, labels)
        arrays["summary"] = np.array(summary(arrays))
    if labelled_fraction < 1:
        order = generator(computation.seed, computation.role, "labelled").permutation(len(train))
        labelled = np.zeros(len(source), dtype=bool)
        for label in range(split.num_classes):
            class_rows = order[labels[order] == label]
            labelled[train[class_rows[: max(round(labelled_fraction * len(class_rows)), 1)]]] = True
        arrays["labelled"] = labelled
        arrays["labelled_counts"] = np.bincount(labels[labelled[train]], minlength=split.num_classes)
    return arrays


def statistics(
    pseudo: Mapping[str, np.ndarray], rows: np.ndarray | slice, train: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the statistics of a partition.

    Args:
        pseudo: the arrays of the stage ``pseudo_labels``.
        rows: for each image of the source, the image whose pseudo-label it has.
        train: source indices int64 [n] of the training images.
        labels: int64 [n], of the training images; 0 is the background.

    Returns:
        ``counts`` int64 [G], ``size`` (number of pseudo-classes with images), ``largest_share`` and ``entropy``
        (nats), and the same for the background alone as ``background_counts`` and so on. If an image has several
        pseudo-labels, the first counts.

    Raises:
        ConfigError: a training image without a pseudo-label.
    """
    pseudo_labels = pseudo["labels"][rows][train]
    pseudo_labels = pseudo_labels if pseudo_labels.ndim == 1 else pseudo_labels[:, 0]
    if (pseudo_labels == NONE).any():
        raise without_pseudo_labels(int(np.count_nonzero(pseudo_labels == NONE)))
    groups = len(pseudo["classes"])
    arrays: dict[str, Any] = {}
    for prefix, values in (("", pseudo_labels), ("background_", pseudo_labels[labels == 0])):
        counts = np.bincount(values, minlength=groups)
        shares = counts[counts > 0] / max(counts.sum(), 1)
        arrays |= {
            f"{prefix}counts": counts,
            f"{prefix}size": np.int64(len(shares)),
            f"{prefix}largest_share": np.float64(shares.max() if len(shares) else math.nan),
            f"{prefix}entropy": np.float64(-(shares * np.log(shares)).sum()),
        }
    return arrays


def summary(report: Mapping[str, np.ndarray]) -> str:
    """Return the `statistics` as a line of text."""
    groups = len(report["counts"])
    size, entropy = int(report["background_size"]), float(report["background_entropy"])
    return (
        f"the background falls into {size} of {groups} pseudo-classes, largest share "
        f"{float(report['background_largest_share']):.1%}, entropy {entropy:.2f} nats (as {math.exp(entropy):.1f} "
        "classes of equal size)"
    )


def warn_of_one_class(report: Mapping[str, np.ndarray]) -> None:
    """Warn if one pseudo-class holds more than half of the background.

    Pseudo-labels that are the same for nearly every image have no effect or do harm: in a port to detection, where one
    class had 95.7 % of the images, the results fell as the auxiliary weight rose.
    """
    share = float(report["background_largest_share"])
    if share > LARGEST_SHARE:
        warnings.warn(
            f"one pseudo-class holds {share:.1%} of the background: a partition that hardly splits it hardly helps. "
            "Use another teacher, method.aux.partition=kmeans, or method.aux.weight=0",
            stacklevel=3,
        )
