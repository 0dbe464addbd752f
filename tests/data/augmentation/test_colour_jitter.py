"""Colour jitter with hue and random greyscale, against torchvision and by the frequencies of its numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from ltr.data.augmentation import pixel_operations as pixel
from ltr.data.augmentation.augment import Augmentation
from ltr.data.augmentation.colour_jitter import ColourJitter
from ltr.data.augmentation.policies import OPERATIONS
from ltr.errors import ConfigError

PIXELS = np.random.default_rng(0).integers(0, 256, (21, 24, 24, 3), dtype=np.uint8)
PIXELS[3] = PIXELS[3, :, :, :1]  # grey
PIXELS[4] = PIXELS[4] // 128 * 255  # the corners of the cube


def test_hues_equal_torchvision():
    shifts = np.linspace(-0.5, 0.5, 21).astype(np.float32)
    results = pixel.hue(torch.from_numpy(PIXELS), torch.from_numpy(shifts)).numpy()
    references = np.stack([functional.adjust_hue(Image.fromarray(i), float(s)) for i, s in zip(PIXELS, shifts)])
    difference = np.abs(results.astype(int) - references)
    # where the hue lies between two of its 256 levels, Pillow's floating-point numbers may round the other way
    assert difference.max() <= 6
    assert (difference > 0).mean() < 0.002
    assert np.array_equal(results[3], PIXELS[3])


def test_grey_images_equal_torchvision():
    results = pixel.grey(torch.from_numpy(PIXELS)).numpy()
    references = np.stack([functional.rgb_to_grayscale(Image.fromarray(image), 3) for image in PIXELS])
    assert np.array_equal(results, references)


def jitter(**changes) -> ColourJitter:
    return ColourJitter(**{"jitter": 0.4, "hue": 0.1, "probability": 0.8, "shuffled": True, "greyscale": 0.2} | changes)


def numbers(colours: ColourJitter, count: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    """Names [steps, count] and values of many images."""
    steps = colours.steps(np.random.default_rng(0).random((count, colours.draws)), 32)
    names = np.array(OPERATIONS)
    return np.stack([names[step.operations] for step in steps]), np.stack([step.values for step in steps])


def test_a_changed_image_has_each_operation_once_in_any_order():
    names, _ = numbers(jitter(greyscale=0.0))
    changed = names[:, names[0] != "identity"]
    assert changed.shape[1] / names.shape[1] == pytest.approx(0.8, abs=0.02)
    assert (np.sort(changed[:4], axis=0).T == ["brightness", "colour", "contrast", "hue"]).all()
    orders, counts = np.unique(changed[:4], axis=1, return_counts=True)
    assert orders.shape[1] == 24
    assert counts.min() > 0.7 * counts.mean()


def test_values_cover_their_ranges():
    names, values = numbers(jitter())
    for name, low, high in (("brightness", 0.6, 1.4), ("contrast", 0.6, 1.4), ("colour", 0.6, 1.4), ("hue", -0.1, 0.1)):
        chosen = values[names == name]
        assert chosen.min() == pytest.approx(low, abs=0.01)
        assert chosen.max() == pytest.approx(high, abs=0.01)


def test_a_share_of_the_images_is_grey_at_the_end():
    names, _ = numbers(jitter())
    assert (names[4] == "grey").mean() == pytest.approx(0.2, abs=0.02)


def test_without_a_random_order_the_hue_comes_last():
    names, _ = numbers(jitter(probability=1.0, shuffled=False))
    assert (names[:4] == np.array([["brightness"], ["contrast"], ["colour"], ["hue"]])).all()


def test_an_operation_without_a_range_is_left_out():
    names, _ = numbers(jitter(hue=0.0, probability=1.0, shuffled=False, greyscale=0.0))
    assert (names == np.array([["brightness"], ["contrast"], ["colour"], ["identity"], ["identity"]])).all()


def test_an_augmented_image_does_not_depend_on_its_batch_and_grey_images_stay_grey():
    augment = Augmentation(
        (3, 24, 24),
        pad=0,
        flip=False,
        jitter=0.4,
        hue=0.1,
        jitter_probability=0.8,
        jitter_order="random",
        greyscale=0.2,
    )
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    before, labels, positions = images.clone(), torch.zeros(21, dtype=torch.int64), np.arange(21)
    whole, _ = augment(images, labels, seed=1, positions=positions)
    part, _ = augment(images[5:9], labels[5:9], seed=1, positions=positions[5:9])
    assert torch.equal(whole[5:9], part)
    assert torch.equal(images, before)
    assert not augment.identity
    assert not augment.only_cuts
    assert bool((whole[3] == whole[3, :1]).all())


@pytest.mark.parametrize(
    ("options", "message"), [({"hue": 0.6}, "augment.hue"), ({"jitter_order": "any"}, "augment.jitter_order")]
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Augmentation((3, 24, 24), **options)
