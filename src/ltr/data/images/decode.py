"""Decoding of image files to RGB; imports only Pillow and NumPy, so that worker processes start quickly."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageColor

from ltr.configuration.ranges import check_option
from ltr.data.images.orientation import decode_oriented
from ltr.data.images.orientation import orientation as orientation  # its former place
from ltr.data.images.regions import Region
from ltr.data.source import PLAIN, Decoding
from ltr.errors import ConfigError

# Pillow's own limit, twice the number of pixels at which it warns
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
# formats of the accepted suffixes. Pillow ignores the suffix and would try every format; some formats start other
# programs (PostScript: Ghostscript)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

WhiteLevel = Annotated[int, "[1, 65535]"]

_PHOTOMETRIC = 262  # tag of TIFF; 0: WhiteIsZero
_WHITE = 65535  # default white level of 16-bit images


def build_decoding(*, exif: bool, matte: str | None, white_level: WhiteLevel | None) -> Decoding:
    """Build a `Decoding` from the values of a data set's config.

    Args:
        matte: name or hexadecimal number of a colour, such as ``white`` or ``#ff8800``.

    Raises:
        ConfigError: the colour is unknown, or the white level is outside 1..65535.
    """
    check_option("dataset.white_level", white_level, WhiteLevel | None)
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
    """Peculiarities of one image that decoding reveals; none of them is an error.

    Attributes:
        highest: highest value of a 16-bit grey image; -1 if it was not decoded.
        wide_colour: True for 16 bits per colour, of which Pillow reads the upper 8.
        transparent: True if the image has transparent pixels; None if it has an alpha channel and was not decoded.
        frames: True for several frames, of which the first is read.
        constant: common value of all pixels, or None.
    """

    highest: int | None = None
    wide_colour: bool = False
    transparent: bool | None = False
    frames: bool = False
    constant: tuple[int, ...] | None = None


def open_image(opened: Any) -> Image.Image:
    """Open an image without decoding it, in one of the accepted `FORMATS`.

    Args:
        opened: path, binary stream, or region of a file.

    Raises:
        ValueError: the path is not a regular file; a named pipe, for example, could block for ever.
        OSError: the file is missing, is a link loop, or has none of the formats.
    """
    if isinstance(opened, Region):
        opened = opened.path
    if isinstance(opened, (str, bytes, os.PathLike)) and not stat.S_ISREG(os.stat(opened).st_mode):
        raise ValueError("it is not a regular file (a folder, named pipe, socket or device)")
    try:
        return Image.open(opened, formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise Image.UnidentifiedImageError(f"it is not an image of the formats {', '.join(FORMATS)}") from error


def decode_image(
    opened: Any, decoding: Decoding = PLAIN, *, max_pixels: int = MAX_PIXELS, notes: Notes | None = None
) -> Image.Image:
    """Decode a whole image, or the region of one, to RGB.

    Args:
        opened: path, binary stream, or region of a file.
        decoding: options of the conversion to RGB.
        max_pixels: larger images are refused before decoding, because some kilobytes may decode to gigabytes.
        notes: receives peculiarities of the image.

    Raises:
        ValueError: the image is too large, or its pixels cannot be converted to RGB.
        Exception: any error that a decoder raises for a damaged file.
    """
    with open_image(opened) as image:
        refuse_too_many_pixels(image, max_pixels)
        if notes is not None:
            notes.frames = has_more_frames(image, opened)
        rgb = decode_to_rgb(image, decoding, notes)
        return rgb.crop(opened.pixels(*rgb.size)) if isinstance(opened, Region) else rgb


def to_image(opened: Any, decoding: Decoding = PLAIN) -> Image.Image:
    """Return an image in RGB.

    Args:
        opened: pixels uint8 [H, W, C], a decoded image in RGB, or an argument of `decode_image`.
        decoding: options of the conversion of files to RGB.
    """
    if isinstance(opened, np.ndarray):
        return to_rgb(Image.fromarray(opened[..., 0] if opened.shape[-1] == 1 else opened))
    return opened if isinstance(opened, Image.Image) else decode_image(opened, decoding)


def refuse_too_many_pixels(image: Image.Image, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ValueError for an image with more pixels than allowed."""
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels are more than the allowed {max_pixels:,}")


def decode_to_rgb(image: Image.Image, decoding: Decoding, notes: Notes | None = None) -> Image.Image:
    """Decode an opened image: apply its EXIF orientation if ``decoding.exif`` is set, and convert it to RGB."""
    wide, is_inverted, transparency = has_wide_colour(image), is_white_zero(image), transparent_value(image)
    if wide and decoding.white_level is not None:
        raise ValueError(
            "its colours have 16 bits each, of which only the upper 8 can be read; a white level is for grey images. "
            "Convert it to 8 bits"
        )
    if notes is not None:
        notes.wide_colour = wide
    oriented = decode_oriented(image, decoding.exif)
    if transparency is not None:
        oriented.info["transparency"] = transparency
    return to_rgb(oriented, decoding, notes, is_inverted=is_inverted)


def to_rgb(
    image: Image.Image, decoding: Decoding = PLAIN, notes: Notes | None = None, *, is_inverted: bool = False
) -> Image.Image:
    """Convert any mode to RGB: repeat grey, convert CMYK and palettes, scale 16 bits to 8 by the white level.

    Transparent pixels get the colour of the matte; without a matte, the alpha channel is dropped.

    Args:
        is_inverted: True for an image of 16 bits in which 0 is white and the white level is black.

    Raises:
        ValueError: pixels are floating-point (their range is unknown), or a value is above the white level.
    """
    if image.mode == "F":
        raise ValueError("it has floating-point pixels, whose range is not known; convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        return _scaled_to_8_bits(image, decoding, notes, is_inverted)
    if has_alpha(image) and (decoding.matte is not None or notes is not None):
        layered = image.convert("RGBA")
        if notes is not None:
            notes.transparent = int(np.asarray(layered.getchannel("A")).min(initial=255)) < 255
        if decoding.matte is not None:
            ground = Image.new("RGBA", layered.size, (*decoding.matte, 255))
            return Image.alpha_composite(ground, layered).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # a direct conversion to RGB would warn about the lost transparency
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image, decoding: Decoding, notes: Notes | None, is_inverted: bool) -> Image.Image:
    levels = np.asarray(image).astype(np.int64)
    highest = int(levels.max(initial=0))
    if levels.min(initial=0) < 0 or highest > _WHITE:
        raise ValueError("its pixels need more than 16 bits; convert it to 8 or 16 bits")
    white = _WHITE if decoding.white_level is None else decoding.white_level
    if highest > white:
        raise ValueError(f"its highest value is {highest:,}, above the white level of {white:,} (dataset.white_level)")
    shown = white - levels if is_inverted else levels
    rgb = np.repeat((shown * 256 // (white + 1)).astype(np.uint8)[..., None], 3, axis=-1)
    if isinstance(transparency := image.info.get("transparency"), int):
        is_transparent = levels == transparency
        if notes is not None:
            notes.transparent = bool(is_transparent.any())
        if decoding.matte is not None:
            rgb[is_transparent] = decoding.matte
    if notes is not None:
        notes.highest = highest
    return Image.fromarray(rgb)


def has_alpha(image: Image.Image) -> bool:
    """Return whether the header of an image has an alpha channel or a transparent colour."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info


def has_sixteen_bits(image: Image.Image) -> bool:
    """Return whether the header of an image says grey with more than 8 bits."""
    return image.mode.startswith("I")


def has_more_frames(image: Image.Image, opened: Any) -> bool:
    """Return whether an image is an animation or has several frames; previews of a photograph (MPO) do not count."""
    if image.format in ("PNG", "WEBP"):
        return getattr(image, "n_frames", 1) > 1
    if image.format in ("GIF", "TIFF") and isinstance(opened, (str, bytes, os.PathLike, Region)):
        with open_image(opened) as reopened:  # the search for a second frame would move the file away from the first
            return bool(getattr(reopened, "is_animated", False))
    return False


def has_wide_colour(image: Image.Image) -> bool:
    """Return whether a file has more bits per colour than the 8 that Pillow keeps, by its decoder's raw mode."""
    tiles = getattr(image, "tile", None)
    if image.mode.startswith("I") or not tiles:
        return False
    if tiles[0][0] in ("ppm", "ppm_plain"):  # (raw mode, highest value)
        arguments = tiles[0][3]
        return isinstance(arguments, tuple) and len(arguments) > 1 and arguments[1] > 255
    return ";16" in _raw_mode(image)


def is_white_zero(image: Image.Image) -> bool:
    """Return whether 0 is white in a TIFF of 16 bits that is not decoded yet; Pillow inverts only those of fewer."""
    if image.format != "TIFF" or not image.mode.startswith("I"):
        return False
    is_inverted_by_decoder = "I" in _raw_mode(image).partition(";")[2]
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0 and not is_inverted_by_decoder


def transparent_value(image: Image.Image) -> Any:
    """Return the transparent value of a PNG that is not decoded yet, in units of its decoded pixels; None without one.

    Pillow stretches grey of 1, 2 and 4 bits to 8 and cuts colours of 16 bits to 8, and keeps the value of the file.
    """
    value = image.info.get("transparency")
    if image.format != "PNG" or value is None:
        return None
    raw = _raw_mode(image)
    if isinstance(value, tuple):
        return tuple(part >> 8 for part in value) if ";16" in raw else value
    highest = {"1": 1, "L;2": 3, "L;4": 15}.get(raw, 255)
    return value * 255 // highest if isinstance(value, int) and value <= highest else value


def _raw_mode(image: Image.Image) -> str:
    """Return the raw mode with which Pillow will decode an image; '' if it is decoded already."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""
