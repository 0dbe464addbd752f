"""Augmentation against a loop over the images, and what its random numbers depend on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torchvision.transforms.v2 import functional

from ltr.configuration.allowed import check_values
from ltr.configuration.targets import check_arguments, instantiate
from ltr.data.augmentation.augment import Augmentation, cut_windows, window_constants
from ltr.errors import ConfigError
from ltr.randomness import derive_seed, uniforms

SIZE = 12
POSITIONS = np.arange(100, 140)
EVERYTHING = {
    "pad": 2,
    "jitter": 0.4,
    "blur": 0.5,
    "sharpen": 0.5,
    "policy": "autoaugment",
    "cutout": 5,
    "fill": [0.1, 0.5, 0.9],
}


def batch(channels: int = 3, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (count, SIZE, SIZE, channels), dtype=torch.uint8, generator=random)
    return pixels.permute(0, 3, 1, 2), torch.arange(count)


def augmented(images: torch.Tensor, *, seed: int = 5, positions: np.ndarray = POSITIONS, **options) -> torch.Tensor:
    channels = images.shape[1]
    augment = Augmentation((channels, SIZE, SIZE), **options)
    return augment(images, torch.arange(len(images)), seed=seed, positions=positions)[0]


def one_by_one(
    images: torch.Tensor, seed: int, pad: int, flip: bool, cutout: int | None, fill: list[int]
) -> np.ndarray:
    """Pad, crop, mirror and cover each image with plain slices."""
    augmented_images = []
    for image, u in zip(images.permute(0, 2, 3, 1).numpy(), uniforms(seed, POSITIONS, 5)):
        top, left = int(u[0] * (2 * pad + 1)), int(u[1] * (2 * pad + 1))
        image = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))[top : top + SIZE, left : left + SIZE]
        image = image[:, ::-1].copy() if flip and u[2] < 0.5 else image.copy()
        if cutout:
            first_row, first_column = int(u[3] * SIZE) - cutout // 2, int(u[4] * SIZE) - cutout // 2
            rows = slice(max(first_row, 0), first_row + cutout)
            image[rows, max(first_column, 0) : first_column + cutout] = fill
        augmented_images.append(image)
    return np.stack(augmented_images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("cutout", [None, 1, 4, 5, 11])
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_crop_mirror_and_cutout_equal_a_loop_over_the_images(pad, cutout, flip, channels):
    images, _ = batch(channels)
    fill = [51, 102, 255][:channels]
    augmented_images = augmented(images, pad=pad, flip=flip, cutout=cutout, fill=[level / 255 for level in fill])
    expected = one_by_one(images, 5, pad, flip, cutout, fill)
    assert np.array_equal(augmented_images.permute(0, 2, 3, 1).numpy(), expected)


def test_all_crops_and_mirrorings_are_equally_frequent():
    u = uniforms(0, np.arange(50_000), 3)
    corners = np.bincount((u[:, 0] * 9).astype(int) * 9 + (u[:, 1] * 9).astype(int), minlength=81)
    assert corners / 50_000 == pytest.approx(1 / 81, rel=0.2)
    assert (u[:, 2] < 0.5).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "options",
    [
        {"pad": 4},
        {"pad": 0},
        {"pad": 0, "flip": False, "cutout": 4},
        {"pad": 0, "flip": False, "policy": "randaugment"},
        {"pad": 0, "flip": False, "jitter": 0.4},
        {"pad": 0, "flip": False, "blur": 0.5},
        {"pad": 0, "flip": False, "sharpen": 0.5},
        {"mix": "mixup"},
        {"mix": "cutmix"},
        EVERYTHING,
    ],
)
def test_augmentation_does_not_modify_its_input(options):
    images, _ = batch()
    before = images.clone()
    augmented_images = augmented(images, **options)
    assert torch.equal(images, before)
    assert augmented_images.shape == images.shape
    assert not torch.equal(augmented_images, images)


@pytest.mark.parametrize("options", [{}, {"pad": 0}, EVERYTHING])
def test_images_stay_uint8_and_channels_last(options):
    augmented_images = augmented(batch()[0], **options)
    assert augmented_images.dtype == torch.uint8
    assert augmented_images.is_contiguous(memory_format=torch.channels_last)


def test_images_in_nchw_memory_give_the_same_pixels():
    images, _ = batch()
    assert torch.equal(augmented(images.contiguous(), **EVERYTHING), augmented(images, **EVERYTHING))


def test_the_augmentation_of_an_image_does_not_depend_on_its_batch():
    images, _ = batch()
    whole = augmented(images, **EVERYTHING)
    order = np.random.default_rng(0).permutation(40)
    shuffled = augmented(images[torch.from_numpy(order)], positions=POSITIONS[order], **EVERYTHING)
    assert torch.equal(shuffled, whole[torch.from_numpy(order)])
    assert torch.equal(augmented(images[7:9], positions=POSITIONS[7:9], **EVERYTHING), whole[7:9])


def test_repeated_samples_of_an_image_are_augmented_differently():
    image = batch()[0][:1].expand(40, -1, -1, -1)
    augmented_images = augmented(image)
    assert len({row.numpy().tobytes() for row in augmented_images}) > 30


@pytest.mark.parametrize(("seed", "shift"), [(6, 0), (5, 1)])
def test_another_seed_or_position_gives_other_pixels(seed, shift):
    images, _ = batch()
    assert not torch.equal(augmented(images, seed=seed, positions=POSITIONS + shift), augmented(images))


def test_no_global_generator_is_read_or_advanced():
    images, _ = batch()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = augmented(images, mix="mixup", **EVERYTHING)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(augmented(images, mix="mixup", **EVERYTHING), first)


def test_cutout_does_not_change_the_crops():
    images, _ = batch()
    plain, covered = augmented(images), augmented(images, cutout=4)
    share_kept = (plain == covered).float().mean()
    assert 1 - 16 / SIZE**2 - 0.01 <= share_kept < 1


def test_jitter_scales_brightness_within_its_range():
    grey = torch.full((40, 1, SIZE, SIZE), 100, dtype=torch.uint8)  # contrast and colour leave a flat image as it is
    levels = augmented(grey, pad=0, flip=False, jitter=0.4).flatten(1)
    assert torch.all(levels == levels[:, :1])
    assert 60 <= levels.min() < 70 < 130 < levels.max() <= 140


FOCUS = {"pad": 0, "flip": False, "blur": 0.4, "sharpen": 0.3}


def test_images_are_blurred_and_sharpened_as_torchvision_does_it():
    images, _ = batch()
    augmented_images = augmented(images, **FOCUS)
    blurred = sharpened = 0
    for image, result, u in zip(images, augmented_images, uniforms(derive_seed(5, "focus"), POSITIONS, 3)):
        expected = image
        if u[0] < 0.4:
            blurred += 1
            expected = functional.gaussian_blur(expected, [5, 5], [0.1 + 4.9 * u[1]] * 2)
        if u[2] < 0.3:
            sharpened += 1
            # the codes that use it have Pillow images, as in torchvision's transforms of them
            expected = functional.pil_to_tensor(functional.adjust_sharpness(functional.to_pil_image(expected), 1.5))
        difference = (result.int() - expected.int()).abs()
        assert difference.max() <= (2 if u[2] < 0.3 else 1)  # one level where a sum is half-way between two
        assert (difference > 0).float().mean() < 0.01
    assert (10 <= blurred <= 22, 6 <= sharpened <= 18) == (True, True)


def test_blur_does_not_change_the_crops():
    images, _ = batch()
    plain, both = augmented(images), augmented(images, blur=0.3)
    kept = [torch.equal(one, other) for one, other in zip(plain, both)]
    assert 20 <= sum(kept) < 40


def test_no_augmentation_returns_the_same_tensor():
    images, labels = batch()
    augment = Augmentation((3, SIZE, SIZE), pad=0, flip=False)
    augmented_images, mix = augment(images, labels, seed=0, positions=POSITIONS)
    assert augment.identity
    assert augmented_images is images
    assert mix is None


def test_mixing_returns_the_labels_of_the_partners():
    images, labels = batch()
    augment = Augmentation((3, SIZE, SIZE), mix="mixup")
    augmented_images, mix = augment(images, labels + 1000, seed=5, positions=POSITIONS)
    assert sorted(mix.labels.tolist()) == (labels + 1000).tolist()
    plain = augmented(images).float() / 255
    share = mix.weight.view(-1, 1, 1, 1)
    assert torch.allclose(augmented_images, share * plain + (1 - share) * plain[mix.labels - 1000], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((3, 8, 12), {}, ["8 x 12", "squares"]),
        ((3, 8, 8), {"pad": 8}, ["pad=8", "0 to 7"]),
        ((3, 8, 8), {"pad": 1, "cutout": 16}, ["cutout=16", "1 to 7"]),
        ((3, 8, 8), {"pad": 1, "blur": 0.1, "blur_pixels": 4}, ["blur_pixels=4", "odd number", "8 pixels"]),
        ((3, 8, 8), {"pad": 1, "blur": 0.1, "blur_pixels": 17}, ["blur_pixels=17", "at most 15"]),
        ((3, 8, 8), {"pad": 1, "blur": 0.1, "blur_sigma": [2.0, 1.0]}, ["blur_sigma=[2.0, 1.0]", "ascending"]),
        ((3, 8, 8), {"policy": "autoaugmnt"}, ["autoaugmnt", "Did you mean 'autoaugment'?"]),
        ((3, 8, 8), {"mix": "mixpu"}, ["mixpu", "Did you mean 'mixup'?"]),
        ((4, 8, 8), {"policy": "randaugment"}, ["1 or 3 channels", "have 4"]),
        ((3, 8, 8), {"fill": [0.5, 0.5]}, ["fill", "3 channels"]),
        ((3, 8, 8), {"fill": 128.0}, ["fill", "[0, 1]"]),
        ((3, 8, 8), {"mix": "mixup", "mix_alpha": 0.0}, ["mix_alpha=0.0", "(0, inf)"]),
    ],
)
def test_options_that_do_not_fit_the_images_are_refused(shape, options, words):
    with pytest.raises(ConfigError) as refused:
        Augmentation(shape, **options)
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize(
    "options",
    [
        EVERYTHING,
        {"pad": 0},
        {"policy": "randaugment"},
        {"mix": "mixup"},
        {"mix": "cutmix"},
    ],
)
def test_no_value_is_read_back_from_the_device(options):
    # tensors of the meta device have no values: whatever would wait for one raises
    images = torch.empty(40, SIZE, SIZE, 3, dtype=torch.uint8, device="meta").permute(0, 3, 1, 2)
    labels = torch.empty(40, dtype=torch.long, device="meta")
    augment = Augmentation((3, SIZE, SIZE), **options)
    augmented_images, mix = augment(images, labels, seed=0, positions=POSITIONS)
    assert augmented_images.shape == images.shape
    assert (mix is None) == ("mix" not in options)


CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "augment").glob("*.yaml"))


@pytest.mark.parametrize("node", CONFIGS, ids=lambda config: config.stem)
def test_a_config_builds_its_augmentation_and_its_values_are_allowed(node):
    config = OmegaConf.create({"dataset": {"mean": [0.5, 0.5, 0.5]}, "augment": OmegaConf.load(node)})
    plain = OmegaConf.to_container(config, resolve=True)
    assert check_values(plain) == []
    assert check_arguments(plain) == []
    augment = instantiate(plain["augment"], (3, 32, 32))
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augmented_images, mix = augment(images, torch.arange(4), seed=0, positions=np.arange(4))
    assert torch.equal(augmented_images, images) == (node.stem == "none")
    assert (mix is not None) == (node.stem in ("cifar_mixup", "cifar_cutmix"))


def test_window_constants_are_the_tensors_that_cut_windows_reads(monkeypatch):
    pixels = torch.zeros(5, 4, 6, 3, dtype=torch.uint8)
    constants = window_constants((3, 4, 6), 1, pixels.device, 5)
    monkeypatch.setattr("torch.arange", None)  # so they are not computed again
    cut_windows(pixels, torch.zeros(2, 5, dtype=torch.int64), 1)
    assert constants[0].tolist() == [48 * number for number in range(5)]  # of padded images of 6 x 8 pixels
    assert constants[1].shape == (2, 24)
