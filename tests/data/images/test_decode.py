"""Decoding to RGB: accepted formats, transparency, and the white level of 16-bit images."""

import os
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ltr.data.images.crop import FileCrop
from ltr.data.images.decode import Notes, build_decoding, decode_image, open_image
from ltr.data.source import PLAIN, Decoding, ImageFiles, Source
from ltr.errors import ConfigError

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
WHITE = Decoding(matte=(255, 255, 255))


def deep(path, levels):
    Image.fromarray(np.asarray(levels, dtype=np.uint16)).save(path)
    return str(path)


def png(path, colour_type, pixels, bits=16, transparent=None):
    """A PNG of any number of bits per channel, most of which Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    texts = ["".join(f"{value:0{bits}b}" for value in row.ravel().tolist()) for row in pixels]
    rows = b"".join(b"\0" + int(text + "0" * (-len(text) % 8), 2).to_bytes(-(-len(text) // 8)) for text in texts)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    if transparent is not None:
        head += chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return str(path)


def tiff(path, pixels, photometric, bits):
    """A little-endian grey TIFF, which is black where it is zero if ``photometric`` is 1, and white if it is 0."""
    height, width = pixels.shape
    data = pixels.astype(f"<u{bits // 8}").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height)]
    tags += [(279, len(data)), (339, 1)]
    head = b"II" + struct.pack("<HI", 42, 8 + len(data)) + data + struct.pack("<H", len(tags))
    path.write_bytes(head + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4))
    return str(path)


# -- formats ------------------------------------------------------------------------------------------------------


def test_postscript_under_another_name_starts_no_program(tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "cat.jpg").write_bytes(POSTSCRIPT)
    for read in (decode_image, lambda path: FileCrop(4).read(path, None)):
        with pytest.raises(OSError, match="not an image of the formats JPEG, PNG"):
            read(str(tmp_path / "cat.jpg"))
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("format", ["ICNS", "PCX", "TGA", "ICO", "PDF", "EPS", "SGI", "DDS"])
def test_other_formats_are_refused_with_any_suffix(tmp_path, format):
    image = Image.new("RGB", (32, 32), (9, 9, 9))
    image.save(tmp_path / "x", format)
    (tmp_path / "x").rename(tmp_path / "x.png")
    with pytest.raises(OSError, match="not an image of the formats"):
        open_image(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_a_file_that_is_not_regular_is_refused_and_does_not_block(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    if kind == "pipe":
        os.mkfifo("x.jpg")
    elif kind == "folder":
        os.mkdir("x.jpg")
    elif kind == "device":
        os.symlink("/dev/zero", "x.jpg")
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("x.jpg")
        listening.close()
    with pytest.raises(ValueError, match="not a regular file"):
        decode_image("x.jpg")


# -- transparency -------------------------------------------------------------------------------------------------


def drawing():
    """A black square on a transparent background."""
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[2:6, 2:6, 3] = 255
    return Image.fromarray(pixels, "RGBA")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_the_matte_lies_under_transparent_pixels(tmp_path, mode):
    drawing().convert(mode).save(tmp_path / "x.png")
    notes = Notes()
    on_white = np.asarray(decode_image(tmp_path / "x.png", WHITE, notes=notes))
    assert notes.transparent
    assert (on_white[0, 0] == 255).all()
    assert (on_white[3, 3] == 0).all()
    red = np.asarray(decode_image(tmp_path / "x.png", Decoding(matte=(255, 0, 0))))
    assert red[0, 0].tolist() == [255, 0, 0]
    assert not np.asarray(decode_image(tmp_path / "x.png")).any()  # published sets: dropped, as ever


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_transparent_colour_of_a_palette_becomes_the_matte(tmp_path, suffix):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 1), 1)
    image.save(tmp_path / f"x.{suffix}", transparency=0)
    pixels = np.asarray(decode_image(tmp_path / f"x.{suffix}", WHITE))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [200, 100, 50]


def test_a_transparent_colour_of_an_rgb_png_becomes_the_matte(tmp_path):
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    image.putpixel((1, 1), (200, 100, 50))
    image.save(tmp_path / "x.png", transparency=(1, 2, 3))
    assert np.asarray(decode_image(tmp_path / "x.png", WHITE))[0, 0].tolist() == [255, 255, 255]
    assert np.asarray(decode_image(tmp_path / "x.png"))[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("exif", [True, False])
def test_the_transparent_grey_of_a_png_becomes_the_matte_at_any_depth(tmp_path, bits, exif):
    most = 2**bits - 1
    levels = np.array(sorted({0, 1, most // 2, most - 1, most}))
    greys = levels * 256 // 65536 if bits == 16 else levels * 255 // most
    for transparent in levels.tolist():
        path = png(tmp_path / "x.png", 0, levels[None], bits, (transparent,))
        notes = Notes()
        decoded = np.asarray(decode_image(path, Decoding(exif=exif, matte=(255, 0, 0)), notes=notes))[0]
        expected = [[255, 0, 0] if level == transparent else [grey] * 3 for level, grey in zip(levels, greys.tolist())]
        assert decoded.tolist() == expected
        assert notes.transparent
        assert np.asarray(decode_image(path))[0, :, 0].tolist() == greys.tolist()
    notes = Notes()
    decode_image(png(tmp_path / "x.png", 0, np.zeros((1, 4), int), bits, (most,)), WHITE, notes=notes)
    assert not notes.transparent


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_a_png_becomes_the_matte_at_any_depth(tmp_path, bits):
    shift = bits - 8
    colours = np.array([[[1, 2, 3], [200, 100, 50], [255, 255, 255]]]) << shift
    path = png(tmp_path / "x.png", 2, colours, bits, tuple(colours[0, 1].tolist()))
    assert np.asarray(decode_image(path, WHITE))[0].tolist() == [[1, 2, 3], [255] * 3, [255] * 3]
    red = Decoding(matte=(255, 0, 0))
    assert np.asarray(decode_image(path, red))[0].tolist() == [[1, 2, 3], [255, 0, 0], [255] * 3]


def test_an_opaque_alpha_channel_changes_nothing_and_is_not_reported(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "x.png")
    notes = Notes()
    assert np.array_equal(np.asarray(decode_image(tmp_path / "x.png", WHITE, notes=notes)), pixels)
    assert not notes.transparent


# -- 16 bits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("white", "levels", "expected"), [
    (None, [0, 255, 256, 65535], [0, 0, 1, 255]),
    (65535, [0, 255, 256, 65535], [0, 0, 1, 255]),
    (4095, [0, 15, 16, 4095], [0, 0, 1, 255]),
    (255, [0, 1, 128, 255], [0, 1, 128, 255]),
    (1000, [0, 500, 1000, 1000], [0, 127, 255, 255]),
])  # fmt: skip
def test_the_white_level_is_the_value_of_white(tmp_path, white, levels, expected):
    path = deep(tmp_path / "x.png", [levels])
    assert np.asarray(decode_image(path, Decoding(white_level=white)))[0, :, 0].tolist() == expected


def test_big_endian_tiffs_follow_the_white_level(tmp_path):
    values = np.array([[0, 16, 4095]], dtype=">u2")
    Image.frombytes("I;16B", (3, 1), values.tobytes()).save(tmp_path / "x.tif")
    assert np.asarray(decode_image(tmp_path / "x.tif", Decoding(white_level=4095)))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("exif", [True, False])
def test_a_tiff_that_is_white_at_zero_is_inverted(tmp_path, bits, exif):
    most = 2**bits - 1
    levels = np.array([[0, 1, most // 3, most // 2, most - 1, most]])
    inverted = decode_image(tiff(tmp_path / "inverted.tif", levels, 0, bits), Decoding(exif=exif))
    plain = decode_image(tiff(tmp_path / "plain.tif", most - levels, 1, bits), Decoding(exif=exif))
    np.testing.assert_array_equal(np.asarray(inverted), np.asarray(plain))
    assert np.asarray(inverted)[0, [0, -1], 0].tolist() == [255, 0]


def test_the_white_level_is_black_where_zero_is_white(tmp_path):
    path = tiff(tmp_path / "x.tif", np.array([[0, 2048, 4095]]), 0, 16)
    notes = Notes()
    pixels = np.asarray(decode_image(path, Decoding(white_level=4095), notes=notes))
    assert pixels[0, :, 0].tolist() == [255, 127, 0]
    assert notes.highest == 4095
    with pytest.raises(ValueError, match=r"highest value is 4,095, above the white level of 255"):
        decode_image(path, Decoding(white_level=255))


def test_a_value_above_the_white_level_is_an_error(tmp_path):
    path = deep(tmp_path / "x.png", [[0, 4096]])
    with pytest.raises(ValueError, match=r"highest value is 4,096, above the white level of 4,095"):
        decode_image(path, Decoding(white_level=4095))


def test_colour_images_of_16_bits_are_noted_and_ignore_the_white_level(tmp_path):
    path = png(tmp_path / "x.png", 2, np.full((4, 4, 3), 300))
    notes = Notes()
    assert (np.asarray(decode_image(path, notes=notes)) == 1).all()
    assert notes.wide_colour
    with pytest.raises(ValueError, match="Convert it to 8 bits"):
        decode_image(path, Decoding(white_level=4095))


def test_several_frames_are_noted_and_the_first_is_read(tmp_path):
    red, blue = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    for suffix in ("gif", "tif", "webp"):
        red.save(tmp_path / f"x.{suffix}", save_all=True, append_images=[blue])
        notes = Notes()
        pixels = np.asarray(decode_image(tmp_path / f"x.{suffix}", notes=notes))
        assert notes.frames
        assert pixels[0, 0, 0] > 250
        red.save(tmp_path / f"one.{suffix}")
        notes = Notes()
        decode_image(tmp_path / f"one.{suffix}", notes=notes)
        assert not notes.frames


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "RGB"])
def test_notes_do_not_change_pixels(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "x.tif" if mode != "LA" else tmp_path / "x.png")
    path = next(tmp_path.iterdir())
    assert np.array_equal(np.asarray(decode_image(path)), np.asarray(decode_image(path, notes=Notes())))


# -- as configured ------------------------------------------------------------------------------------------------


def test_mattes_are_given_by_colour_name_or_hexadecimal_number():
    assert build_decoding(exif=True, matte="black", white_level=None) == Decoding(True, (0, 0, 0), None)
    assert build_decoding(exif=False, matte="#ff8800", white_level=4095) == Decoding(False, (255, 136, 0), 4095)
    assert build_decoding(exif=False, matte=None, white_level=None) == PLAIN
    with pytest.raises(ConfigError, match=r"dataset.matte=whit: allowed are null, names of colours"):
        build_decoding(exif=False, matte="whit", white_level=None)
    with pytest.raises(ConfigError, match=r"dataset.white_level=70000: allowed is int \[1, 65535\] or null"):
        build_decoding(exif=False, matte=None, white_level=70000)


def test_options_that_change_pixels_are_in_the_fingerprint_if_set():
    def fingerprint(how):
        files = ImageFiles.from_paths("/", ["a.png"], decoding=how)
        return Source("s", files, np.zeros(1, dtype=np.int64), ("a",), {"train": range(1)}).fingerprint

    ways = [PLAIN, Decoding(exif=True), WHITE, Decoding(matte=(0, 0, 0)), Decoding(white_level=4095)]
    assert len({fingerprint(how) for how in ways}) == len(ways)
    # as it was before there were a matte and a white level
    assert fingerprint(PLAIN) == "25473bf366215bc8fb5ef28d521820cdf585a175fcb92ec17524a7461651c49a"
