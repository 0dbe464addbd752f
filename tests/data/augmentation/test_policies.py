"""AutoAugment and RandAugment against Pillow and torchvision, one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms import AutoAugmentPolicy
from torchvision.transforms import RandAugment as TorchvisionRandAugment

from ltr.data.augmentation import pixel_operations as pixel
from ltr.data.augmentation.policies import (
    CIFAR10_POLICY,
    OPERATIONS,
    AutoAugment,
    RandAugment,
    Rotation,
    Step,
    apply_steps,
    fill_colour,
    value_of,
)

SIZE = 32
BLACK = torch.zeros(3, dtype=torch.uint8)


@pytest.fixture
def photos() -> np.ndarray:
    """uint8 [24, 32, 32, 3]: noise, smooth gradients, few levels, one flat image."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (24, SIZE, SIZE, 3))
    ramp = np.add.outer(np.arange(SIZE), 2 * np.arange(SIZE))[None, :, :, None] + random.integers(0, 60, (24, 1, 1, 3))
    images = np.where(np.arange(24)[:, None, None, None] < 12, noise, ramp + noise // 16).clip(0, 255)
    images[20:22] = 40 + images[20:22] // 100
    images[23] = 77
    return images.astype(np.uint8)


def pillow(name: str, image: np.ndarray, value: float) -> np.ndarray:
    """The operation as the papers' codes write it."""
    photo = Image.fromarray(image.squeeze())
    size = photo.size
    maps = {
        "shear_x": (1, value, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, value, 1, 0),
        "translate_x": (1, 0, value, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, value),
    }
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "colour": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in maps:
        done = photo.transform(size, Image.Transform.AFFINE, maps[name])
    elif name == "rotate":
        done = photo.rotate(value)
    elif name in enhancers:
        done = enhancers[name](photo).enhance(value)
    elif name == "posterize":
        done = ImageOps.posterize(photo, int(value))
    elif name == "solarize":
        done = ImageOps.solarize(photo, value)
    else:
        done = getattr(ImageOps, name)(photo)
    return np.asarray(done).reshape(image.shape)


def run(name: str, images: np.ndarray, values: np.ndarray, fill: torch.Tensor = BLACK) -> np.ndarray:
    operations = np.full(len(images), OPERATIONS.index(name))
    return apply_steps(torch.from_numpy(images.copy()), [Step(operations, values)], fill[: images.shape[-1]]).numpy()


VALUES = {
    "shear_x": np.linspace(-0.3, 0.3, 24),
    "shear_y": np.linspace(-0.3, 0.3, 24),
    "translate_x": np.arange(-12.0, 12),
    "translate_y": np.arange(-12.0, 12),
    "rotate": np.linspace(-30, 30, 24),
    "brightness": np.linspace(0.1, 1.9, 24),
    "colour": np.linspace(0.1, 1.9, 24),
    "contrast": np.linspace(0.1, 1.9, 24),
    "sharpness": np.linspace(0.1, 1.9, 24),
    "posterize": np.arange(24.0) % 5 + 4,
    "solarize": np.linspace(0, 255, 24),
    "autocontrast": np.zeros(24),
    "equalize": np.zeros(24),
    "invert": np.zeros(24),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_operation_on_a_batch_equals_pillow_on_each_image(name, channels, photos):
    images = np.ascontiguousarray(photos[..., :channels])
    expected = np.stack([pillow(name, image, value) for image, value in zip(images, VALUES[name])])
    result = run(name, images, VALUES[name])
    # Pillow multiplies by a float 255 / (high - low) and cuts, which may end a level below the exact quotient
    allowed = 1 if name == "autocontrast" else 0
    assert np.abs(result.astype(int) - expected).max() <= allowed
    unchanged = name == "colour" and channels == 1
    assert np.array_equal(result, images) == unchanged


def test_every_operation_but_identity_is_compared_with_pillow():
    of_colour_jitter = {"hue", "grey"}  # compared with torchvision in test_colour_jitter.py
    assert set(VALUES) == set(OPERATIONS) - {"identity"} - of_colour_jitter


def test_pixels_that_a_rotation_leaves_empty_take_the_fill_colour(photos):
    fill = fill_colour([0.5, 0.25, 1.0], torch.device("cpu"))
    corner = run("rotate", photos, np.full(24, 30.0), fill)[:, 0, 0]
    assert corner.tolist() == [[128, 64, 255]] * 24


def test_a_step_changes_only_the_images_with_a_sampled_operation(photos):
    operations = np.full(24, OPERATIONS.index("identity"))
    operations[5] = OPERATIONS.index("invert")
    result = apply_steps(torch.from_numpy(photos.copy()), [Step(operations, np.zeros(24))], BLACK).numpy()
    changed = np.flatnonzero((result != photos).any((1, 2, 3)))
    assert changed.tolist() == [5]


def test_steps_run_in_order(photos):
    first, second = (np.full(24, OPERATIONS.index(name)) for name in ("posterize", "invert"))
    result = apply_steps(
        torch.from_numpy(photos.copy()), [Step(first, np.full(24, 4.0)), Step(second, np.zeros(24))], BLACK
    )
    assert np.array_equal(result.numpy(), 255 - (photos & 0xF0))


def test_operations_do_not_modify_their_input(photos):
    images = torch.from_numpy(photos)
    before = images.clone()
    factors = torch.full((24,), 1.5)
    for name in ("brightness", "colour", "contrast", "sharpness"):
        getattr(pixel, name)(images, factors)
    for name in ("autocontrast", "equalize", "invert"):
        getattr(pixel, name)(images)
    assert torch.equal(images, before)


TORCHVISION_NAMES = {
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "colour": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
    "identity": "Identity",
}
ENHANCERS = ("brightness", "colour", "contrast", "sharpness")


def test_the_cifar_policy_is_that_of_torchvision():
    expected = TorchvisionAutoAugment(AutoAugmentPolicy.CIFAR10).policies
    actual = [tuple((TORCHVISION_NAMES[name], share, level) for name, share, level in pair) for pair in CIFAR10_POLICY]
    assert actual == [tuple((name, share, level or 0) for name, share, level in pair) for pair in expected]


@pytest.mark.parametrize("name", [name for name in VALUES if name not in ("autocontrast", "equalize", "invert")])
@pytest.mark.parametrize("bins", [10, 31])
def test_levels_have_the_magnitudes_of_torchvision(name, bins):
    space = TorchvisionRandAugment()._augmentation_space(bins, (SIZE, SIZE))
    magnitudes, signed = space[TORCHVISION_NAMES[name]]
    for sign in (-1, 1) if signed else (1,):
        expected = sign * magnitudes.double().numpy()
        expected = expected + 1 if name in ENHANCERS else np.trunc(expected) if "translate" in name else expected
        result = [value_of(name, level / (bins - 1), sign, SIZE) for level in range(bins)]
        assert result == pytest.approx(expected, abs=1e-4)


def test_autoaugment_applies_each_operation_as_often_as_its_probability():
    uniform = np.random.default_rng(0).random((200_000, 5))
    uniform[:, 0] = 2.5 / 25  # sub-policy 2: sharpness 0.8, then sharpness 0.9
    steps = AutoAugment().steps(uniform, SIZE)
    shares = [(step.operations == OPERATIONS.index("sharpness")).mean() for step in steps]
    assert shares == pytest.approx([0.8, 0.9], abs=0.005)
    strengths = np.unique(steps[1].values.round(6))
    assert strengths.tolist() == [0.7, 1.3]


def test_autoaugment_samples_all_sub_policies_equally_often():
    uniform = np.zeros((25, 5))
    uniform[:, 0] = (np.arange(25) + 0.5) / 25
    first, second = AutoAugment().steps(uniform, SIZE)
    # uniform number 0 lies below every probability but invert's 0.0
    assert [OPERATIONS[number] for number in first.operations] == [pair[0][0] for pair in CIFAR10_POLICY]
    never = ["identity" if pair[1][1] == 0 else pair[1][0] for pair in CIFAR10_POLICY]
    assert [OPERATIONS[number] for number in second.operations] == never


def test_randaugment_samples_its_fourteen_operations_equally_often_at_its_magnitude():
    policy = RandAugment(num_ops=3, magnitude=15)
    steps = policy.steps(np.random.default_rng(1).random((70_000, policy.draws)), SIZE)
    assert len(steps) == 3
    for step in steps:
        counts = np.bincount(step.operations, minlength=len(OPERATIONS))
        assert counts[OPERATIONS.index("invert")] == 0
        assert counts[counts > 0] / 70_000 == pytest.approx(1 / 14, rel=0.06)
        assert (counts > 0).sum() == 14
        assert set(step.values[step.operations == OPERATIONS.index("rotate")]) == {-15.0, 15.0}


def test_a_random_rotation_turns_by_a_uniform_angle():
    uniform = np.array([[0.0], [0.25], [0.5], [0.9]])
    (step,) = Rotation(15).steps(uniform, 32)
    assert {OPERATIONS[number] for number in step.operations} == {"rotate"}
    np.testing.assert_allclose(step.values, [-15, -7.5, 0, 12])
