"""From an image file to RGB pixels, by Pillow alone: worker processes that only decode import nothing heavier."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageOps

# Pillow itself refuses more at twice the number that it warns at, and so does training
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)

_ORIENTATION = 0x0112


def decoded(opened: Any, *, exif: bool = False, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The whole image in RGB.

    Args:
        opened: what Pillow opens (a path, a binary stream).
        exif: turn the image as its EXIF orientation says, see `ltr.data.source.ImageFiles`.
        max_pixels: larger images are refused before they are decoded: a file of some kilobytes may hold gigabytes.

    Raises:
        ValueError: an image that is too large, or of pixels that cannot be RGB.
        Exception: whatever a decoder raises for a damaged file.
    """
    with Image.open(opened) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ValueError(f"{width} x {height} pixels are more than the {max_pixels:,} that are allowed")
        return to_rgb(ImageOps.exif_transpose(image) if exif else image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: grey is repeated, CMYK and palettes converted, 16 bits cut to the upper 8, alpha dropped.

    Raises:
        ValueError: floating-point pixels, whose range is not known.
    """
    if image.mode == "F":
        raise ValueError("it has floating-point pixels, whose range is not known; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min(initial=0) < 0 or levels.max(initial=0) > 65535:
            raise ValueError("its pixels need more than 16 bits; convert it to 8 or 16 bits")
        return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # straight to RGB, Pillow warns about the transparency that is lost
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; from 5 on, turning it exchanges width and height."""
    found = image.getexif().get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1
