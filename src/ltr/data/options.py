"""Declaration of the keys that the program reads from any data set's config, whatever its source and its split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from ltr.configuration.ranges import BelowOne, PositiveInt

Interpolation = Literal["bilinear", "bicubic"]


class DatasetConfig(TypedDict, total=False):
    """Keys of a data set's config beside those that it passes on to its source and its split."""

    name: str
    """Its name in results and reports."""

    mean: Sequence[float]
    """Mean of each channel, of pixels in [0, 1], which normalisation takes off."""

    std: Sequence[float]
    """Standard deviation of each channel, by which normalisation divides."""

    val: str
    """Rule of the validation images; an option of the split, where it takes one."""

    split_file: str | None
    """File of an exact split, to be used instead of ``split``; None: ``split``."""

    beta: BelowOne
    """Base of the effective number of samples (Cui et al., CVPR 2019), for losses that take it from the data set."""

    resize_to: PositiveInt | None
    """Side in pixels that images in memory are resized to, antialiased; None: their own."""

    image_size: PositiveInt
    """Side in pixels of the network's input, for images that are read from files."""

    image_resize: PositiveInt | Sequence[PositiveInt] | None
    """Short side before evaluation's centre crop, None: 8/7 of image_size; [n, n]: stretched to a square."""

    interpolation: Interpolation | None
    """Of the resizing of images: bilinear or bicubic; None: bilinear."""

    packed: str | None
    """Packed images (from the command ``pack`` of ltr-data) to read instead of the image files; None: the files."""

    exclude: str | None
    """File of paths, one a line, that are left out, as ``--exclude-to`` of ltr-data writes it."""
