"""Declaration of the keys that every dataset config may have, independent of its source and split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from ltr.configuration.ranges import BelowOne, PositiveInt

Interpolation = Literal["bilinear", "bicubic"]


class DatasetConfig(TypedDict, total=False):
    """Keys of a dataset config, in addition to the options of its source and its split."""

    name: str
    """Name of the data set in results and reports."""

    mean: Sequence[float]
    """Mean of each channel, of pixels in [0, 1], which normalisation subtracts."""

    std: Sequence[float]
    """Standard deviation of each channel, by which normalisation divides."""

    val: str
    """Rule of the validation images, for splits that have this option."""

    split_file: str | None
    """File of an exact split, to be used instead of ``split``; None: ``split``."""

    beta: BelowOne
    """beta of the effective number of samples (Cui et al., CVPR 2019), for losses that take it from the data set."""

    resize_to: PositiveInt | None
    """Side in pixels that images in memory are resized to, antialiased; None: no resizing."""

    image_size: PositiveInt
    """Side in pixels of the network's input, for images that are read from files."""

    image_resize: PositiveInt | Sequence[PositiveInt] | None
    """Short side before evaluation's centre crop, None: 8/7 of image_size; [n, n]: stretched to a square."""

    interpolation: Interpolation | None
    """Interpolation of the resizing, bilinear or bicubic; None: bilinear."""

    packed: str | None
    """Packed images (from the command ``pack`` of ltr-data) to read instead of the image files; None: the files."""

    exclude: str | None
    """Text file of image paths to exclude, one per line, as ``--exclude-to`` of ltr-data writes it."""
