"""Many-, medium- and few-shot classes, by their number of training images.

The bounds follow Liu et al. (CVPR 2019) as coded by Kang et al. (ICLR 2020): many above 100 training images, few
below 20, medium from 20 to 100. The bounds are strict: 375 classes of iNaturalist 2018 have exactly 20 images, and
papers that count them as few report other group sizes.
"""

from __future__ import annotations

import numpy as np

from ltr.errors import ConfigError
from ltr.evaluation.averages import mean, ratio

GROUPS = ("many", "medium", "few")


def shot_groups(class_counts: np.ndarray, many_above: int = 100, few_below: int = 20) -> dict[str, np.ndarray]:
    """Return masks of the many-, medium- and few-shot classes.

    Args:
        class_counts: int64 [C], training images of each class.
        many_above: classes with more images than this are many-shot.
        few_below: classes with fewer images than this are few-shot.

    Returns:
        ``{"many": ..., "medium": ..., "few": ...}``, each bool [C]; every class is in exactly one.

    Raises:
        ConfigError: the bounds overlap, so that a class would be both many and few.
    """
    if few_below > many_above + 1:
        raise ConfigError(
            f"evaluation.few_below={few_below} and evaluation.many_above={many_above} overlap: a class of "
            f"{few_below - 1} images would be both few and many. Choose few_below <= many_above + 1."
        )
    counts = np.asarray(class_counts)
    many, few = counts > many_above, counts < few_below
    return {"many": many, "medium": ~(many | few), "few": few}


def group_means(accuracy: np.ndarray, groups: dict[str, np.ndarray]) -> dict[str, float]:
    """Return means of per-class accuracies [C] over the classes with images: ``many medium few balanced_accuracy``.

    Args:
        accuracy: float64 [C]; NaN for a class without images.
        groups: masks from `shot_groups`.
    """
    is_present = ~np.isnan(accuracy)
    return {
        **{name: mean(accuracy[is_present & groups[name]]) for name in GROUPS},
        "balanced_accuracy": mean(accuracy[is_present]),
    }


def class_table(
    class_counts: np.ndarray, groups: dict[str, np.ndarray], n: np.ndarray, correct: np.ndarray, predicted: np.ndarray
) -> dict[str, np.ndarray]:
    """Return per-class results, arrays [C]: ``class_id train_count group n correct accuracy precision recall f1``.

    Args:
        class_counts: training images of each class.
        groups: masks from `shot_groups`.
        n: evaluated images of each class.
        correct: correct predictions among them.
        predicted: images that are predicted as each class.
    """
    recall = ratio(correct, n)
    return {
        "class_id": np.arange(len(class_counts)),
        "train_count": class_counts,
        "group": group_of_class(groups),
        "n": n,
        "correct": correct,
        "accuracy": recall,
        "precision": ratio(correct, predicted),
        "recall": recall.copy(),
        "f1": ratio(2 * correct, n + predicted),
    }


def group_of_class(groups: dict[str, np.ndarray]) -> np.ndarray:
    """Return the name of each class's group, str [C]."""
    names = np.full(len(groups["many"]), "medium", dtype="<U6")
    for name in ("many", "few"):
        names[groups[name]] = name
    return names
