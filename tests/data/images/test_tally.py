"""Peculiarities of images are counted, named and reported once, with advice."""

import numpy as np
import pytest

from ltr.data.images.decode import Notes
from ltr.data.images.tally import Tally, constant_value, tally_arrays
from ltr.data.source import PLAIN, Decoding


def lines(how, dataset, *notes):
    tally = Tally(how, dataset)
    for number, one in enumerate(notes):
        tally.add(f"{number}.png", one)
    return tally.lines()


@pytest.mark.parametrize(
    ("highest", "left", "level"),
    [(255, "all is black", 255), (256, "only 2 of 256 levels", 511), (4095, "only 16 of 256 levels", 4095),
     (3000, "only 12 of 256 levels", 4095), (32767, "only 128 of 256 levels", 32767)],
)  # fmt: skip
def test_low_values_of_16_bits_are_reported_with_a_white_level(highest, left, level):
    (line,) = lines(PLAIN, {"white_level": None}, Notes(highest=7), Notes(highest=highest))
    assert line.startswith(f"2 images have 16 bits and a highest value of {highest:,}")
    assert left in line
    assert f"dataset.white_level={level} " in line


def test_16_bits_that_are_used_or_have_a_white_level_are_not_reported():
    assert lines(PLAIN, {}, Notes(highest=4096), Notes(highest=32768)) == []
    assert lines(PLAIN, {}, Notes(highest=0), Notes(highest=32768)) == []
    assert lines(Decoding(white_level=4095), {"white_level": 4095}, Notes(highest=100)) == []


def test_images_of_few_levels_among_bright_ones_are_named():
    (line,) = lines(PLAIN, {}, *[Notes(highest=255)] * 11, Notes(highest=65535))
    assert line.startswith("11 images of 16 bits have far lower values than others, which reach 65,535")
    assert "0.png (255)" in line
    (line,) = lines(Decoding(white_level=4095), {"white_level": 4095}, Notes(highest=15), Notes(highest=4095))
    assert "0.png (15)" in line


def test_undecoded_alpha_channels_count_if_other_images_have_transparent_pixels():
    assert lines(PLAIN, {}, Notes(transparent=None), Notes()) == []
    (line,) = lines(PLAIN, {}, Notes(transparent=None), Notes(transparent=True))
    assert line.startswith("1 image has transparency (so may 1 others that were not decoded)")


def test_a_key_that_the_data_set_lacks_is_not_advised():
    (line,) = lines(PLAIN, {}, Notes(highest=255))
    assert "dataset." not in line
    assert "Convert to 8 bits" in line


def test_at_most_ten_images_are_named():
    (line,) = lines(PLAIN, {}, *[Notes(transparent=True)] * 12)
    assert line.startswith("12 images have transparency; the alpha channel is dropped")
    assert line.count(".png") == 10
    assert line.endswith(", ...")


def test_constant_images_are_found():
    assert constant_value(np.full((3, 4, 3), 7)) == (7, 7, 7)
    assert constant_value(np.arange(12).reshape(2, 2, 3)) is None
    tally = Tally(PLAIN)
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 1), dtype=np.uint8)
    images[2] = 9
    tally_arrays(images, tally)
    assert tally.lines() == ["1 image has the same value in every pixel once decoded: image 2 (9)"]
