"""Splits of camera-trap images: empty images are the background, if the data set has any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltr.configuration.ranges import NonNegativeInt, ProperFraction
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.data.splitting.background import NAME
from ltr.data.splitting.building import Validation, build_split, labelled_indices
from ltr.errors import DataError
from ltr.identity import named
from ltr.names import canonical


@named("split/camera_traps")
def camera_traps(
    source: Source,
    *,
    empty: Sequence[str] = ("empty", "blank", "background"),
    val: Validation = "none",
    val_fraction: ProperFraction = 0.1,
    seed: NonNegativeInt = 0,
) -> Split:
    """Keep the parts of the source; the classes of empty images become the background, label 0.

    Without such a class it is a closed-set split. Validation images are held out in whole groups, see
    `ltr.data.splitting.building.hold_out_validation`.

    Args:
        empty: names of classes of images without an animal, in upper or lower case; they become the background.
        val, val_fraction, seed: see `ltr.data.splitting.closed_set.natural`.

    Raises:
        DataError: there are only empty images.
    """
    names = {canonical(name).casefold() for name in empty}
    is_empty = np.array([class_name.casefold() in names for class_name in source.class_names], dtype=bool)
    if is_empty.all():
        raise DataError(f"{source.name}: all images are empty; a class of animals is needed")
    if not is_empty.any():
        label_map = np.arange(source.num_classes)
        train = labelled_indices(source, label_map, "train")
        return build_split(
            source, f"{source.name}-natural", train, label_map, val=val, val_fraction=val_fraction, seed=seed
        )
    label_map = np.where(is_empty, 0, np.cumsum(~is_empty))
    train = labelled_indices(source, label_map, "train")
    share = float((label_map[source.labels[train]] == 0).mean())
    kept = [class_name for class_name, is_background in zip(source.class_names, is_empty) if not is_background]
    return build_split(
        source,
        f"{source.name}-bg{len(kept)}-empty-share{share:.4f}",
        train,
        label_map,
        class_names=(NAME, *kept),
        val=val,
        val_fraction=val_fraction,
        seed=seed,
        protocols=("background",),
    )
