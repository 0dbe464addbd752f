"""Boxes cut from files: the rule in pixels, and that every reader of images cuts the same."""

import numpy as np
import pytest
from PIL import Image

from ltr.data.images.crop import FileCrop
from ltr.data.images.decode import decode_image
from ltr.data.images.regions import BoxCrops, Region
from ltr.data.source import Decoding, ImageFiles

WHOLE = (float("nan"),) * 4


@pytest.mark.parametrize(
    ("box", "margin", "square", "pixels"),
    [
        (WHOLE, 0.5, True, (0, 0, 100, 80)),
        ((0.1, 0.25, 0.4, 0.5), 0.0, False, (10, 20, 50, 60)),
        ((0.1, 0.25, 0.4, 0.25), 0.0, True, (10, 10, 50, 50)),
        ((0.1, 0.25, 0.4, 0.5), 0.25, False, (0, 10, 60, 70)),  # 10 pixels a side
        ((0.0, 0.0, 0.4, 0.25), 0.0, True, (0, 0, 40, 40)),  # moved into the image
        ((0.0, 0.0, 1.0, 1.0), 0.3, True, (0, 0, 100, 80)),  # larger than the image
        ((0.999, 0.999, 0.001, 0.001), 0.0, False, (99, 79, 100, 80)),  # a pixel at least
    ],
)
def test_a_box_in_pixels(box, margin, square, pixels):
    assert Region("a.png", box, margin, square).pixels(100, 80) == pixels


def test_squares_are_inside_and_square_where_the_image_allows():
    random = np.random.default_rng(0)
    for _ in range(300):
        low = random.uniform(0, 0.9, 2)
        sides = np.minimum(random.uniform(0.01, 1, 2), 1 - low)
        region = Region("", (*low, *sides), float(random.uniform(0, 0.5)), True)
        left, top, right, bottom = region.pixels(640, 480)
        assert 0 <= left < right <= 640
        assert 0 <= top < bottom <= 480
        if bottom - top < 480:
            assert abs((right - left) - (bottom - top)) <= 1


@pytest.fixture
def striped(tmp_path):
    """An image whose columns count up, and a box in it that has no neighbours of other values."""
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[8:32, 20:44] = (200, 100, 50)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return Region(str(tmp_path / "a.png"), (20 / 60, 8 / 40, 24 / 60, 24 / 40), 0.0, False)


def test_decoding_a_region_is_the_crop_of_the_decoded_image(striped):
    whole = np.asarray(decode_image(striped.path))
    np.testing.assert_array_equal(np.asarray(decode_image(striped)), whole[8:32, 20:44])


@pytest.mark.parametrize("uniform", [None, np.random.default_rng(1).uniform(size=40)])
def test_crops_of_a_region_are_inside_the_region(striped, uniform):
    crop = FileCrop(8, resize=12, random=True)
    pixels = crop.read(striped, uniform)
    np.testing.assert_array_equal(pixels, np.broadcast_to((200, 100, 50), (8, 8, 3)))


def test_a_box_counts_in_the_upright_image(tmp_path):
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[:, 20:] = 250  # the right third, which is at the bottom of the upright image
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    region = Region(str(tmp_path / "a.png"), (0.0, 0.7, 1.0, 0.3), 0.0, False)
    upright = FileCrop(4, resize=4).read(region, None, Decoding(exif=True))
    assert upright.min() == 250
    assert FileCrop(4, resize=4).read(region, None, Decoding()).min() == 0


def test_a_table_of_files_opens_regions():
    boxes = np.array([[0.1, 0.2, 0.3, 0.4], WHOLE], dtype=np.float32)
    files = ImageFiles.from_paths("/root", ["a.jpg", "a.jpg"], crops=BoxCrops(boxes, 0.2, True))
    assert files.open(0).path == "/root/a.jpg"
    assert files.open(0).margin == 0.2
    np.testing.assert_allclose(files.open(0).box, boxes[0])
    assert files.open(1).pixels(7, 5) == (0, 0, 7, 5)


def test_options_that_change_pixels_change_the_identity():
    boxes = np.array([[0.1, 0.2, 0.3, 0.4]], dtype=np.float32)
    identities = {
        BoxCrops(*arguments).identity() for arguments in ((boxes,), (boxes + 0.1,), (boxes, 0.1), (boxes, 0.0, True))
    }
    assert len(identities) == 4
