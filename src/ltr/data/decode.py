"""From an image file to RGB pixels, by Pillow alone: worker processes that only decode import nothing heavier."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageOps

from ltr.data.source import PLAIN, Decoding
from ltr.errors import ConfigError

# Pillow itself refuses more at twice the number that it warns at, and so does training
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
# the formats behind the suffixes of image files. Pillow would try all that it knows, whatever a file is called, and
# some of those start other programs (PostScript: Ghostscript)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

_ORIENTATION = 0x0112
_WHITE = 65535  # of 16 bits, where nothing else is said


def decoding(*, exif: bool, matte: str | None, white_level: int | None) -> Decoding:
    """Build a `Decoding` from the values of a data set's config.

    Args:
        matte: a colour's name or its hexadecimal number, such as ``white`` or ``#ff8800``.

    Raises:
        ConfigError: no such colour, or a white level outside 1..65535.
    """
    if white_level is not None and (isinstance(white_level, bool) or not 1 <= white_level <= _WHITE):
        raise ConfigError(f"dataset.white_level={white_level}: allowed are null and whole numbers from 1 to {_WHITE}")
    if matte is None:
        return Decoding(exif, None, white_level)
    try:
        red, green, blue = ImageColor.getrgb(str(matte))[:3]
    except ValueError as error:
        raise ConfigError(
            f"dataset.matte={matte}: allowed are null, names of colours such as white, black or grey, and numbers such "
            "as '#ff8800'"
        ) from error
    return Decoding(exif, (red, green, blue), white_level)


@dataclass
class Notes:
    """What stands out in one image while it is decoded; none of it is an error.

    Attributes:
        highest: the highest value of a grey image of 16 bits; -1 where it was not decoded.
        wide_colour: its colours have 16 bits each, of which Pillow reads the upper 8.
        transparent: it has transparent pixels; None where it has a channel for them and was not decoded.
        frames: it has several frames or configs, of which the first is read.
        constant: the one value that all its pixels have.
    """

    highest: int | None = None
    wide_colour: bool = False
    transparent: bool | None = False
    frames: bool = False
    constant: tuple[int, ...] | None = None


def open_image(opened: Any) -> Image.Image:
    """Open an image without decoding it, in one of the accepted `FORMATS`.

    Args:
        opened: a path or a binary stream.

    Raises:
        ValueError: a path to something else than a regular file, which could block for ever (a named pipe).
        OSError: nothing there, a loop of links, or none of the formats.
    """
    if isinstance(opened, (str, bytes, os.PathLike)) and not stat.S_ISREG(os.stat(opened).st_mode):
        raise ValueError("it is not a regular file (a folder, named pipe, socket or device)")
    try:
        return Image.open(opened, formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise Image.UnidentifiedImageError(f"it is not an image of the formats {', '.join(FORMATS)}") from error


def decoded(
    opened: Any, how: Decoding = PLAIN, *, max_pixels: int = MAX_PIXELS, notes: Notes | None = None
) -> Image.Image:
    """Decode a whole image to RGB.

    Args:
        opened: what Pillow opens (a path, a binary stream).
        how: see `ltr.data.source.Decoding`.
        max_pixels: larger images are refused before they are decoded: a file of some kilobytes may hold gigabytes.
        notes: filled in with what stands out.

    Raises:
        ValueError: an image that is too large, or of pixels that cannot be RGB.
        Exception: whatever a decoder raises for a damaged file.
    """
    with open_image(opened) as image:
        refuse_too_many_pixels(image, max_pixels)
        if notes is not None:
            notes.frames = has_more_frames(image, opened)
        return turned_to_rgb(image, how, notes)


def refuse_too_many_pixels(image: Image.Image, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ValueError for an image with more pixels than allowed."""
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels are more than the {max_pixels:,} that are allowed")


def turned_to_rgb(image: Image.Image, how: Decoding, notes: Notes | None = None) -> Image.Image:
    """Decode an opened image: turned upright where ``how`` says so, then `to_rgb`."""
    wide = has_wide_colour(image)
    if wide and how.white_level is not None:
        raise ValueError(
            "its colours have 16 bits each, of which only the upper 8 can be read; a white level is for grey images. "
            "Convert it to 8 bits"
        )
    if notes is not None:
        notes.wide_colour = wide
    return to_rgb(ImageOps.exif_transpose(image) if how.exif else image, how, notes)


def to_rgb(image: Image.Image, how: Decoding = PLAIN, notes: Notes | None = None) -> Image.Image:
    """Any mode as RGB: grey is repeated, CMYK and palettes converted, 16 bits scaled to 8 by the white level.

    Transparent pixels take the matte's colour; without a matte, alpha is dropped.

    Raises:
        ValueError: floating-point pixels, whose range is not known; or values above the white level.
    """
    if image.mode == "F":
        raise ValueError("it has floating-point pixels, whose range is not known; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        return _scaled_to_8_bits(image, how.white_level, notes)
    if has_alpha(image) and (how.matte is not None or notes is not None):
        layered = image.convert("RGBA")
        if notes is not None:
            notes.transparent = int(np.asarray(layered.getchannel("A")).min(initial=255)) < 255
        if how.matte is not None:
            ground = Image.new("RGBA", layered.size, (*how.matte, 255))
            return Image.alpha_composite(ground, layered).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # straight to RGB, Pillow warns about the transparency that is lost
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image, white_level: int | None, notes: Notes | None) -> Image.Image:
    levels = np.asarray(image).astype(np.int64)
    highest = int(levels.max(initial=0))
    if levels.min(initial=0) < 0 or highest > _WHITE:
        raise ValueError("its pixels need more than 16 bits; convert it to 8 or 16 bits")
    white = _WHITE if white_level is None else white_level
    if highest > white:
        raise ValueError(f"its highest value is {highest:,}, above the white level of {white:,} (dataset.white_level)")
    if notes is not None:
        notes.highest = highest
    return Image.fromarray((levels * 256 // (white + 1)).astype(np.uint8)).convert("RGB")


def has_alpha(image: Image.Image) -> bool:
    """Whether an image has a channel or a colour of transparency, by its header."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info


def has_sixteen_bits(image: Image.Image) -> bool:
    """Whether an image is grey with more than 8 bits, by its header."""
    return image.mode.startswith("I")


def has_more_frames(image: Image.Image, opened: Any) -> bool:
    """Whether an opened image is an animation or has several configs; pictures beside a photograph (MPO) do not
    count."""
    if image.format in ("PNG", "WEBP"):
        return getattr(image, "n_frames", 1) > 1
    if image.format in ("GIF", "TIFF") and isinstance(opened, (str, bytes, os.PathLike)):
        with open_image(opened) as another:  # looking for a second frame moves on from the first
            return bool(getattr(another, "is_animated", False))
    return False


def has_wide_colour(image: Image.Image) -> bool:
    """Whether the file has more bits per colour than the 8 that Pillow keeps, by the raw mode of its decoder."""
    tiles = getattr(image, "tile", None)
    if image.mode.startswith("I") or not tiles:
        return False
    arguments = tiles[0][3]
    if tiles[0][0] in ("ppm", "ppm_plain"):  # (raw mode, highest value)
        return isinstance(arguments, tuple) and len(arguments) > 1 and arguments[1] > 255
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return isinstance(raw, str) and ";16" in raw


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; from 5 on, turning it exchanges width and height."""
    found = image.getexif().get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1
