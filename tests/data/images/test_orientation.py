"""Photographs of every format and orientation: size by the header, decoded pixels, crops and regions agree."""

import numpy as np
import pytest
from PIL import Image

from ltr.data.images.boxes import read_image_size
from ltr.data.images.crop import FileCrop
from ltr.data.images.decode import decode_image, open_image
from ltr.data.images.orientation import decoded_size, orientation, stored_size
from ltr.data.images.regions import Region
from ltr.data.source import Decoding, ImageFiles

TURNS = {  # by EXIF's definition: the stored first row and column are the upright image's ...
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def stored_pixels(width=48, height=32):
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([columns * 5, rows * 7, np.full_like(rows, 90)], axis=-1).astype(np.uint8)


def save(path, pixels, turn, kind):
    exif = Image.Exif()
    exif[0x0112] = turn
    image = Image.fromarray(pixels)
    options = {
        "jpg": {"exif": exif, "quality": 100, "subsampling": 0},
        "png": {"exif": exif},
        "webp": {"exif": exif, "lossless": True},
        "tif": {"tiffinfo": {0x0112: turn}},
        "tif-lzw": {"tiffinfo": {0x0112: turn}, "compression": "tiff_lzw"},
        "tif-xmp": {"tiffinfo": {700: XMP % turn}},
        "mpo": {"exif": exif, "quality": 100, "subsampling": 0, "save_all": True, "append_images": [image]},
    }[kind]
    path = path / f"{kind}.{kind.partition('-')[0]}"
    image.save(path, **options)
    return str(path)


def png_with_late_exif(path, pixels, turn):
    """Move the chunk eXIf behind the pixels, where Pillow reads it only when it decodes."""
    save(path, pixels, turn, "png")
    content = (path / "png.png").read_bytes()
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    (path / "late.png").write_bytes(content[:start] + content[stop:end] + content[start:stop] + content[end:])
    return str(path / "late.png")


@pytest.fixture(params=["jpg", "png", "png-late", "webp", "tif", "tif-lzw", "tif-xmp", "mpo"])
def kind(request):
    return request.param


@pytest.fixture(params=TURNS)
def turn(request):
    return request.param


def photograph(tmp_path, kind, turn, pixels):
    if kind == "png-late":
        return png_with_late_exif(tmp_path, pixels, turn)
    return save(tmp_path, pixels, turn, kind)


@pytest.mark.parametrize("exif", [True, False])
def test_decoded_pixels_are_upright_or_as_stored_and_the_header_says_their_size(tmp_path, kind, turn, exif):
    pixels = stored_pixels()
    path = photograph(tmp_path, kind, turn, pixels)
    expected = TURNS[turn](pixels) if exif else pixels
    with open_image(path) as image:
        if kind == "tif-xmp" and orientation(image) == 1:  # older versions of Pillow do not read it
            expected = pixels
            turn = 1
        assert stored_size(image) == (48, 32)
        assert decoded_size(image, exif) == expected.shape[1::-1]
        assert orientation(image) == turn
    decoding = Decoding(exif=exif)
    assert read_image_size(ImageFiles.from_paths("/", [path], decoding=decoding), 0) == expected.shape[1::-1]
    decoded = np.asarray(decode_image(path, decoding)).astype(int)
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= 6  # JPEG


@pytest.mark.parametrize("exif", [True, False])
@pytest.mark.parametrize("reduced", [True, False])
def test_crops_are_those_of_the_decoded_image(tmp_path, kind, turn, exif, reduced):
    path, decoding = photograph(tmp_path, kind, turn, stored_pixels()), Decoding(exif=exif)
    whole = decode_image(path, decoding)
    region = Region(path, (0.1, 0.2, 0.5, 0.4), 0.05, False)
    uniform = np.random.default_rng(turn).random(40)
    for opened, image in ((path, whole), (region, whole.crop(region.pixels(*whole.size)))):
        for crop, numbers in ((FileCrop(14, resize=16), None), (FileCrop(6, random=True, reduced=reduced), uniform)):
            actual = crop.read(opened, numbers, decoding).astype(int)
            expected = crop.read(image, numbers).astype(int)
            assert np.abs(actual - expected).max() <= (8 if numbers is not None and reduced else 0)


@pytest.mark.parametrize("sides", [(16, 16), (17, 16)])
def test_square_tiffs_are_turned_once(tmp_path, turn, sides):
    pixels = stored_pixels(*sides)
    path = save(tmp_path, pixels, turn, "tif")
    np.testing.assert_array_equal(np.asarray(decode_image(path, Decoding(exif=True))), TURNS[turn](pixels))
    np.testing.assert_array_equal(np.asarray(decode_image(path, Decoding(exif=False))), pixels)
