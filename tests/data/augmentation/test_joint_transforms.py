"""Joint transformations: their order, what each does to pixels, and which images are refused."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr.data.augmentation.joint_transforms import TRANSFORMS, joint_transforms
from ltr.errors import ConfigError

SIZES = {
    "none": 1, "rotation2": 2, "rotation": 4, "colour3": 3, "colour": 6, "rotation2_colour3": 6, "rotation2_colour": 12,
    "rotation_colour3": 12, "rotation_colour": 24,
}  # fmt: skip


def images(batch: int = 3, channels: int = 3, side: int = 5, floating: bool = False) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, channels, side, side), dtype=torch.uint8, generator=random)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    return pixels.float() / 255 if floating else pixels


def naive(image: np.ndarray, name: str) -> list[np.ndarray]:
    """The transformations of one image [C, H, W], one after the other."""
    turns = {"rotation": range(4), "rotation2": (0, 2)}.get(name.split("_")[0], (0,))
    orders = {"colour": list(permutations((0, 1, 2))), "colour3": [(0, 1, 2), (1, 2, 0), (2, 0, 1)]}
    return [
        np.rot90(image, turn, (1, 2))[list(order)]
        for turn in turns
        for order in orders.get(name.split("_")[-1], [tuple(range(len(image)))])
    ]


def test_the_sets_have_the_published_sizes():
    assert {name: len(transforms_of_name) for name, transforms_of_name in TRANSFORMS.items()} == SIZES


@pytest.mark.parametrize("floating", [False, True], ids=["uint8", "float32"])
@pytest.mark.parametrize("name", SIZES)
def test_row_i_times_m_plus_j_is_image_i_under_transformation_j(name, floating):
    originals = images(floating=floating)
    rows = joint_transforms(name)(originals)
    expected = np.stack([view for image in originals.numpy() for view in naive(image, name)])
    assert np.array_equal(rows.numpy(), expected)
    assert rows.dtype == originals.dtype
    assert rows.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", SIZES)
def test_a_single_transformation_equals_its_rows_of_all(name):
    transforms, originals = joint_transforms(name), images()
    rows = transforms(originals)
    for number in range(len(transforms)):
        one = transforms.one(originals, number)
        assert torch.equal(one, rows[number :: len(transforms)])
        assert one.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", SIZES)
def test_the_transformations_differ_and_the_first_is_the_identity(name):
    rows = joint_transforms(name)(images(batch=1))
    assert torch.equal(rows[0], images(batch=1)[0])
    assert len({row.numpy().tobytes() for row in rows.contiguous()}) == SIZES[name]


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from([n for n in SIZES if n != "none"]), seed=st.integers(0, 2**31), numbers=st.data())
def test_transformations_are_closed_under_composition(name, seed, numbers):
    transforms = joint_transforms(name)
    first, second = (numbers.draw(st.integers(0, len(transforms) - 1)) for _ in range(2))
    image = torch.randint(0, 256, (1, 3, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    twice = transforms.one(transforms.one(image, first), second)
    assert any(torch.equal(twice, transforms.one(image, number)) for number in range(len(transforms)))


def test_no_transformation_gives_the_images_themselves():
    originals = images()
    assert joint_transforms("none")(originals) is originals


def test_oblong_images_can_be_rotated_by_180_degrees():
    originals = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).view(2, 3, 4, 6)
    joint_transforms("rotation2").check((3, 4, 6))
    assert torch.equal(joint_transforms("rotation2")(originals)[1::2], originals.flip((2, 3)))


@pytest.mark.parametrize("name", ["rotation", "rotation_colour3"])
def test_quarter_turns_of_oblong_images_are_refused(name):
    with pytest.raises(ConfigError, match=r"32 x 24.*rotation2"):
        joint_transforms(name).check((3, 32, 24))


@pytest.mark.parametrize("name", [name for name in SIZES if "colour" in name])
def test_colour_orders_of_grey_images_are_refused(name):
    with pytest.raises(ConfigError, match=r"have 1.*rotation"):
        joint_transforms(name).check((1, 8, 8))


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match="Did you mean 'rotation'"):
        joint_transforms("rotations")
