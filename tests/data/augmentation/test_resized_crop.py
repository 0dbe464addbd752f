"""Random-resized crops of a batch against torchvision, one image at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from ltr.data.augmentation.augment import Augmentation
from ltr.data.augmentation.resized_crop import DRAWS, Boxes, crop_and_resize, sample_boxes
from ltr.errors import ConfigError

SIDE = 32
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), dtype=np.uint8)
UNIFORM = np.random.default_rng(1).random((40, DRAWS))


def test_crops_equal_torchvision_within_one_level():
    boxes = sample_boxes(UNIFORM, SIDE, SCALE, RATIO)
    mirrored = np.arange(40) % 3 == 0
    cropped = crop_and_resize(torch.from_numpy(PIXELS), boxes, mirrored).numpy()
    for image, crop, flip, box in zip(PIXELS, cropped, mirrored, zip(*boxes)):
        reference = functional.resized_crop(Image.fromarray(image), *(int(number) for number in box), size=[SIDE, SIDE])
        reference = functional.hflip(reference) if flip else reference
        assert np.abs(np.asarray(reference).astype(int) - crop).max() <= 1


def test_the_whole_image_is_unchanged():
    whole = Boxes(*(np.full(40, number) for number in (0, 0, SIDE, SIDE)))
    images = torch.from_numpy(PIXELS)
    assert torch.equal(crop_and_resize(images, whole, np.zeros(40, bool)), images)
    assert torch.equal(crop_and_resize(images, whole, np.ones(40, bool)), images.flip(2))


def test_boxes_are_uniform_in_area_and_lie_inside_the_image():
    boxes = sample_boxes(np.random.default_rng(2).random((4000, DRAWS)), SIDE, SCALE, RATIO)
    assert (boxes.top >= 0).all()
    assert (boxes.top + boxes.height <= SIDE).all()
    assert (boxes.left + boxes.width <= SIDE).all()
    ratios = boxes.width / boxes.height
    assert ((ratios > 0.65) & (ratios < 1.55)).all()  # within the range up to rounding to pixels
    areas = boxes.width * boxes.height / SIDE**2
    assert areas.min() == pytest.approx(0.08, abs=0.02)
    small = sample_boxes(np.random.default_rng(2).random((4000, DRAWS)), SIDE, (0.1, 0.5), RATIO)  # all of them fit
    assert np.quantile(small.width * small.height / SIDE**2, [0.25, 0.5, 0.75]) == pytest.approx(
        [0.2, 0.3, 0.4], abs=0.02
    )


def test_a_box_that_never_fits_is_replaced_by_the_largest_central_one():
    flat = np.full((1, DRAWS), 0.999999)  # the whole area, much wider than high
    boxes = sample_boxes(flat, SIDE, (1.0, 1.0), (2.0, 4.0))
    assert [int(number[0]) for number in boxes] == [8, 0, 16, 32]


def test_the_crop_of_an_image_does_not_depend_on_its_batch():
    augment = Augmentation((3, SIDE, SIDE), pad=0, resized_crop=SCALE)
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    labels, positions = torch.zeros(40, dtype=torch.int64), np.arange(40)
    whole, _ = augment(images, labels, seed=3, positions=positions)
    part, _ = augment(images[10:20], labels[10:20], seed=3, positions=positions[10:20])
    assert torch.equal(whole[10:20], part)
    assert not torch.equal(whole, augment(images, labels, seed=4, positions=positions)[0])
    assert not torch.equal(whole, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad": 4, "resized_crop": [0.1, 1.0]}, "augment.pad=0"),
        ({"pad": 0, "resized_crop": [0.5, 0.1]}, "two ascending shares"),
        ({"pad": 0, "resized_crop": [0.5, 1.1]}, "two ascending shares"),
        ({"pad": 0, "resized_crop": [0.1, 1.0], "crop_ratio": [2.0, 1.0]}, "augment.crop_ratio"),
    ],
)
def test_wrong_crops_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Augmentation((3, SIDE, SIDE), **options)


def test_log_ratios_are_uniform():
    boxes = sample_boxes(np.random.default_rng(3).random((4000, DRAWS)), 400, (0.1, 0.1), RATIO)
    logs = np.log(boxes.width / boxes.height) / math.log(4 / 3)
    assert abs(logs.mean()) < 0.03
    assert np.quantile(logs, [0.25, 0.75]) == pytest.approx([-0.5, 0.5], abs=0.05)
