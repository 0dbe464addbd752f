"""Orientation of photographs: what the header says, the size that decoding gives, and the rotation of pixels.

Pillow leaves the pixels of most formats as they are stored, but turns those of TIFF when it decodes them, and reports
their turned size before. The functions below hide the difference, for any version of Pillow.
"""

from __future__ import annotations

from PIL import Image

_ORIENTATION = 0x0112
_WIDTH, _HEIGHT = 256, 257  # tags of TIFF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STORED = {**_UPRIGHT, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}  # the inverse of each


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image that is not decoded yet, 1 (upright) to 8; from 5 on, sides exchange."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Return (width, height) of the stored pixels of an image that is not decoded yet."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    return int(tags.get(_WIDTH, image.width)), int(tags.get(_HEIGHT, image.height))


def decoded_size(image: Image.Image, exif: bool) -> tuple[int, int]:
    """Return (width, height) that an image will have once decoded, from its header.

    Args:
        exif: True for the upright image, False for the stored pixels.
    """
    width, height = stored_size(image)
    return (height, width) if exif and orientation(image) >= 5 else (width, height)


def decode_oriented(image: Image.Image, exif: bool) -> Image.Image:
    """Decode an image, and turn its pixels upright if ``exif`` is True; otherwise they stay as they are stored."""
    recorded = orientation(image)
    image.load()
    is_upright = orientation(image) != recorded  # the decoder applied the orientation, and removed it
    if recorded == 1 or is_upright == exif:
        return image
    return image.transpose((_UPRIGHT if exif else _STORED)[recorded])
