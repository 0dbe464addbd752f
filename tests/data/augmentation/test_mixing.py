"""Mixup, Remix and cutmix: weights, areas, and what they depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltr.data.augmentation.augment import Augmentation
from ltr.data.augmentation.mixing import cutmix, mix_batch, mixup, remix_weights


def batch(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=random)
    return images.contiguous(memory_format=torch.channels_last), torch.arange(size)


def mixed(kind: str, *, seed: int = 1, first: int = 0, alpha: float = 1.0, probability: float = 1.0):
    images, labels = batch()
    return mix_batch(images, labels, kind=kind, alpha=alpha, probability=probability, seed=seed, first_position=first)


def test_mixup_is_the_weighted_mean_of_an_image_and_its_partner():
    images, _ = batch()
    mixed_images, mix = mixed("mixup")
    unit = images.float() / 255
    share = mix.weight.view(-1, 1, 1, 1)
    # the labels are the image numbers, so they tell the partner
    assert torch.allclose(mixed_images, share * unit + (1 - share) * unit[mix.labels], atol=1e-6)
    assert 0 < mix.weight[0] < 1


def test_partners_are_a_permutation_of_the_batch():
    _, mix = mixed("mixup")
    assert sorted(mix.labels.tolist()) == list(range(16))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_are_float32_in_the_unit_interval_and_channels_last(kind):
    images, _ = mixed(kind)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_weight_is_the_share_of_pixels_of_the_first_image(seed):
    images, _ = batch()
    mixed_images, mix = mixed("cutmix", seed=seed)
    unit = images.float().mul_(1 / 255)
    row = int(torch.nonzero(mix.labels != torch.arange(16))[0])  # an image with another one for partner
    own = (mixed_images[row] == unit[row]).all(0)
    pasted = (mixed_images[row] == unit[mix.labels[row]]).all(0)
    assert torch.all(own | pasted)
    assert float(own.float().mean()) == pytest.approx(float(mix.weight[row]), abs=1e-6)


def test_cutmix_box_is_clipped_at_the_border():
    images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    # sides int(8 * sqrt(1 - 0.75)) = 4 about pixel (0, 7): rows -2..1, columns 5..8
    mixed_images, weight = cutmix(images, torch.tensor([1, 0]), 0.75, np.array([0.0, 0.99]))
    assert torch.nonzero(mixed_images[0, 0]).tolist() == [[row, column] for row in (0, 1) for column in (5, 6, 7)]
    assert weight == 1 - 6 / 64


def test_mixup_with_weight_one_changes_nothing():
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(mixup(images, torch.tensor([3, 2, 1, 0]), 1.0), images)


def test_an_unmixed_batch_keeps_its_pixels_with_weight_one():
    images, _ = batch()
    mixed_images, mix = mixed("cutmix", probability=0.0)
    assert torch.equal(mixed_images, images.float().mul_(1 / 255))
    assert torch.all(mix.weight == 1)


def test_the_weight_follows_its_beta_law():
    weights = np.array([float(mixed("mixup", first=first, alpha=0.2)[1].weight[0]) for first in range(400)])
    # Beta(0.2, 0.2) has mean 1/2 and variance 1 / (4 (2 * 0.2 + 1))
    assert weights.mean() == pytest.approx(0.5, abs=0.07)
    assert weights.var() == pytest.approx(1 / 5.6, rel=0.15)


def test_share_of_mixed_batches_is_the_probability():
    shares = [float(mixed("mixup", first=first, probability=0.25)[1].weight[0]) < 1 for first in range(400)]
    assert np.mean(shares) == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize(("change", "same"), [({}, True), ({"seed": 2}, False), ({"first": 16}, False)])
def test_mixing_depends_on_seed_and_first_position_only(change, same):
    torch.manual_seed(len(change))  # the global generator has no say
    one, other = mixed("mixup"), mixed("mixup", **change)
    assert torch.equal(one[0], other[0]) == same


def remix_by_definition(weight, first, other, kappa, tau):
    if first / other >= kappa and weight < tau:
        return 0.0
    if first / other <= 1 / kappa and 1 - weight < tau:
        return 1.0
    return weight


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_remix_weights_are_their_definition(weight):
    counts = torch.tensor([600.0, 200.0, 199.0, 20.0, 1.0])
    first, other = (part.flatten() for part in torch.meshgrid(counts, counts, indexing="ij"))
    for kappa, tau in ((3.0, 0.5), (1.0, 0.8), (10.0, 0.2)):
        weights = remix_weights(weight, first, other, kappa, tau)
        pairs = zip(first.tolist(), other.tolist(), strict=True)
        assert weights.tolist() == pytest.approx([remix_by_definition(weight, i, j, kappa, tau) for i, j in pairs])


def test_remix_mixes_images_as_mixup_and_favours_the_small_class():
    plain_images, plain = mixed("mixup")
    augment = Augmentation((3, 8, 8), pad=0, flip=False, mix="remix")
    augment.class_counts = np.array([100] * 8 + [1] * 8)
    images, labels = batch()
    remixed_images, mix = augment(images, labels, seed=1, positions=np.arange(16))
    assert torch.equal(remixed_images, plain_images)
    weight = float(plain.weight[0])
    large_first = (labels < 8) & (mix.labels >= 8)
    large_other = (labels >= 8) & (mix.labels < 8)
    assert set(mix.weight[large_first].tolist()) == {0.0 if weight < 0.5 else plain.weight[0].item()}
    assert set(mix.weight[large_other].tolist()) == {1.0 if 1 - weight < 0.5 else plain.weight[0].item()}
    assert torch.equal(mix.weight[~(large_first | large_other)], plain.weight[~(large_first | large_other)])


def test_remix_without_counts_is_refused():
    with pytest.raises(ValueError, match="class_counts"):
        Augmentation((3, 8, 8), mix="remix")(*batch(), seed=1, positions=np.arange(16))
