"""Crops of image files: evaluation's central crop, random boxes and windows, decoding at reduced size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional

from ltr.data.images.crop import ATTEMPTS, FileCrop
from ltr.data.source import Decoding
from ltr.errors import ConfigError
from ltr.randomness import uniforms

SIZE = 16


def rgb(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, -1)


def test_evaluation_crop_is_that_of_resize_and_centre_crop(tmp_path):
    ramp = np.add.outer(np.arange(140) % 256, np.arange(224) // 2).astype(np.uint8)
    Image.fromarray(rgb(ramp)).save(tmp_path / "image.png")
    cropped = FileCrop(56, resize=70).read(str(tmp_path / "image.png"), None)
    two_steps = Image.fromarray(rgb(ramp)).resize((112, 70), Image.Resampling.BILINEAR).crop((28, 7, 84, 63))
    assert np.abs(cropped.astype(int) - np.asarray(two_steps)).max() <= 1


@pytest.fixture
def picture(tmp_path) -> Image.Image:
    """A smooth image of 210 x 150 pixels, as picture.png."""
    colours = np.random.default_rng(2).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    image = Image.fromarray(colours).resize((210, 150), Image.Resampling.BICUBIC)
    image.save(tmp_path / "picture.png")
    return image


SQUARE = transforms.Resize((100, 100), Image.Resampling.BILINEAR)


def test_stretched_evaluation_is_torchvisions_resize_to_a_square_and_centre_crop(picture, tmp_path):
    cropped = FileCrop(64, resize=[100, 100]).read(str(tmp_path / "picture.png"), None)
    expected = np.asarray(transforms.CenterCrop(64)(SQUARE(picture)))
    assert np.abs(cropped.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("resize", [[100, 100], 100])
def test_a_random_window_is_torchvisions_crop_of_the_resized_image(picture, tmp_path, resize):
    crop = FileCrop(64, resize=resize, random=True, window=True)
    whole = SQUARE(picture) if crop.stretch else transforms.Resize(100, Image.Resampling.BILINEAR)(picture)
    for uniform in uniforms(0, np.arange(8), 4 * ATTEMPTS):
        cropped = crop.read(str(tmp_path / "picture.png"), uniform)
        top, left = int(uniform[2] * (whole.height - 63)), int(uniform[3] * (whole.width - 63))
        expected = np.asarray(functional.crop(whole, top, left, 64, 64))
        assert np.abs(cropped.astype(int) - expected).max() <= 1


def test_windows_reach_all_borders_of_the_image():
    crop = FileCrop(64, resize=[100, 100], random=True, window=True)
    boxes = np.array([crop.window_box(210, 150, u) for u in uniforms(0, np.arange(3000), 4)])
    assert boxes.min(0)[:2].tolist() == [0, 0]
    assert boxes.max(0)[2:] == pytest.approx([210, 150])
    assert len(np.unique(boxes[:, 0])) == len(np.unique(boxes[:, 1])) == 37  # 100 - 64 + 1 places


def test_random_boxes_keep_area_ratio_and_borders():
    crop = FileCrop(SIZE, random=True)
    boxes = np.array([crop.random_box(500, 375, u) for u in uniforms(0, np.arange(3000), 4 * ATTEMPTS)])
    left, top, right, bottom = boxes.T
    assert left.min() == top.min() == 0
    assert right.max() == 500
    assert bottom.max() == 375
    share = (right - left) * (bottom - top) / (500 * 375)
    ratio = (right - left) / (bottom - top)
    assert 0.079 < share.min() < 0.09
    assert 0.95 < share.max() <= 1
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.zeros(3, 375, 500)
        expected = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    assert share.mean() == pytest.approx(np.mean([h * w for _, _, h, w in expected]) / (500 * 375), abs=0.02)


@pytest.mark.parametrize(("width", "height"), [(1000, 10), (10, 1000)])
def test_an_image_that_no_random_box_fits_gives_its_middle(width, height):
    left, top, right, bottom = FileCrop(SIZE, random=True, scale=(0.9, 1.0)).random_box(
        width, height, np.full(4 * ATTEMPTS, 0.5)
    )
    assert (right - left, bottom - top) == ((13, 10) if width > height else (10, 13))
    assert abs((left + right) - width) <= 1
    assert abs((top + bottom) - height) <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resize": 15}, "files.resize=15"),
        ({"resize": [32]}, r"files.resize=\[32\]: allowed is the short side"),
        ({"resize": [32, 40]}, r"files.resize=\[32, 40\]"),
        ({"resize": [8, 8]}, "files.resize=8"),
        ({"scale": [0.0, 1.0]}, "files.scale"),
        ({"scale": [0.5, 0.2]}, "files.scale"),
        ({"ratio": [0.0, 1.0]}, "files.ratio"),
    ],
)
def test_crop_options_outside_their_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        FileCrop(SIZE, **options)


@pytest.fixture
def photograph(tmp_path) -> Image.Image:
    """A smooth image of 400 x 300 pixels, as 0.jpg and 0.png."""
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(colours).resize((400, 300), Image.Resampling.BICUBIC)
    image.save(tmp_path / "0.jpg", quality=95)
    image.save(tmp_path / "0.png")
    return image


DRAWS = np.random.default_rng(1).random((20, 4 * ATTEMPTS))


def test_decoding_at_reduced_size_gives_nearly_the_same_crops(photograph, tmp_path):
    whole, reduced = (FileCrop(24, random=True, reduced=reduced) for reduced in (False, True))
    differences = []
    for uniform in DRAWS:
        pixels = [crop.read(str(tmp_path / "0.jpg"), uniform).astype(int) for crop in (whole, reduced)]
        differences.append(np.abs(pixels[0] - pixels[1]))
    assert 0 < np.mean(differences) < 1.5
    assert np.max(differences) < 40


@pytest.mark.parametrize("size", [(400, 304), (401, 300)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photographs_are_cropped_at_the_same_position_at_reduced_size(photograph, tmp_path, size, orientation):
    exif = photograph.getexif()
    exif[0x0112] = orientation
    photograph.resize(size).save(tmp_path / "turned.jpg", quality=95, exif=exif)
    whole, reduced = (FileCrop(24, random=True, reduced=reduced) for reduced in (False, True))
    for uniform in DRAWS:
        pixels = [
            crop.read(str(tmp_path / "turned.jpg"), uniform, Decoding(exif=True)).astype(int)
            for crop in (whole, reduced)
        ]
        assert np.abs(pixels[0] - pixels[1]).mean() < 2


@pytest.mark.parametrize(
    ("file", "size", "uniform"), [("0.png", 24, DRAWS[0]), ("0.jpg", 200, DRAWS[0]), ("0.jpg", 24, None)]
)
def test_other_formats_small_crops_and_evaluation_are_never_reduced(photograph, tmp_path, file, size, uniform):
    whole, reduced = (FileCrop(size, random=True, reduced=reduced) for reduced in (False, True))
    path = str(tmp_path / file)
    assert np.array_equal(whole.read(path, uniform), reduced.read(path, uniform))


@pytest.mark.parametrize(("side", "divisor"), [(47, 1), (48, 2), (95, 2), (96, 4), (192, 8), (5000, 8)])
def test_a_crop_keeps_enough_pixels_when_it_is_reduced(side, divisor):
    assert FileCrop(24)._divisor((3, 5, 3 + side + 10, 5 + side)) == divisor
