"""Statistics of a split, computed without decoding an image, and example images of its classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltr.data.source import ImageFiles, Source
from ltr.data.split import SPLIT_PARTS, Split


@dataclass(frozen=True, eq=False)
class Description:
    """Statistics of a split; all but ``background_share`` exclude background images.

    Attributes:
        class_names: names of the C classes.
        labels: int64 [C], their labels.
        class_counts: int64 [C], training images per class.
        images: images per part, for parts with images.
        imbalance_factor: largest over smallest class count; NaN if a class has no training image.
        gini: Gini coefficient of the class counts, 0 (all equal) to 1.
        background_share: background's share of the training images; None without a background.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    class_counts: np.ndarray
    images: dict[str, int]
    imbalance_factor: float
    gini: float
    background_share: float | None


def describe(split: Split) -> Description:
    """Compute the statistics of a split."""
    background = "background" in split.protocols
    labels = np.arange(int(background), split.num_classes)
    counts = split.class_counts[labels]
    total = int(split.class_counts.sum())
    smallest = int(counts.min()) if len(counts) else 0
    return Description(
        class_names=split.class_names[int(background) :],
        labels=labels,
        class_counts=counts,
        images={part: len(getattr(split, part)) for part in SPLIT_PARTS if len(getattr(split, part))},
        imbalance_factor=int(counts.max()) / smallest if smallest else float("nan"),
        gini=gini(counts),
        background_share=int(split.class_counts[0]) / total if background and total else None,
    )


def gini(counts: np.ndarray) -> float:
    """Return the Gini coefficient of class counts (Gini 1912): half the mean absolute difference over the mean.

    Returns:
        0 if all counts are equal, near 1 if one class has all images; NaN if there are no images.
    """
    values = np.sort(np.asarray(counts, dtype=np.float64))
    total = values.sum()
    if not total:
        return float("nan")
    ranks = 2 * np.arange(1, len(values) + 1) - len(values) - 1
    return float((ranks * values).sum() / (len(values) * total))


def head_middle_tail(class_counts: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Return up to ``classes`` labels of the largest, of the middle and of the smallest classes, without repeats."""
    order = np.argsort(-np.asarray(class_counts), kind="stable")
    order = order[np.asarray(class_counts)[order] > 0]
    per_group = max(min(classes, len(order) // 3), 1)
    middle = max((len(order) - per_group) // 2, 0)
    rows = {"head": order[:per_group], "middle": order[middle : middle + per_group], "tail": order[-per_group:]}
    seen: set[int] = set()
    groups = {}
    for group, labels in rows.items():
        groups[group] = np.array([label for label in labels.tolist() if label not in seen], dtype=np.int64)
        seen.update(labels.tolist())
    return groups


def first_images(source: Source, split: Split, label: int, number: int) -> np.ndarray:
    """Return the indices of the first ``number`` training images of a label."""
    return split.train[split.label_map[source.labels[split.train]] == label][:number]


def thumbnail(source: Source, index: int, side: int) -> np.ndarray | None:
    """Return the central square of an image, uint8 [side, side, 3], or None if it is damaged.

    Args:
        side: largest side of the thumbnail in pixels; smaller images are not enlarged.
    """
    from PIL import Image, ImageOps

    from ltr.data.images.decode import to_image

    images = source.images
    try:
        image = to_image(images.open(index) if isinstance(images, ImageFiles) else images[index], source.decoding)
    except Exception:  # decoders raise errors of any type; `ltr-data check` reports them
        return None
    side = min(side, *image.size)
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR))
