"""The device-resident loader: which images, in which batch, from where on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltr.data.augmentation.augment import Augmentation
from ltr.data.batch import Batch
from ltr.data.loaders.device import BlockOfNumbers, DeviceLoader, ResidentImages
from ltr.errors import DataError

N = 50
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
LABELS = torch.arange(N) % 7


def order(epoch: int) -> np.ndarray:
    return np.random.default_rng(epoch).permutation(N)[:23]


def loader(**changes) -> DeviceLoader:
    options = {"order": order, "batch_size": 5, "augment": Augmentation((3, 8, 8), pad=2)} | changes
    return DeviceLoader(ResidentImages(PIXELS), LABELS, **options)


def same(one: list[Batch], other: list[Batch]) -> bool:
    pairs = [(a.images, b.images) for a, b in zip(one, other)] + [(a.indices, b.indices) for a, b in zip(one, other)]
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in pairs)


def epoch_of(batches: DeviceLoader, epoch: int) -> list[Batch]:
    batches.sampler.set_epoch(epoch)
    return list(batches)


def test_batches_hold_the_images_and_labels_of_their_indices():
    for batch in loader(augment=None):
        assert torch.equal(batch.images.permute(0, 2, 3, 1), torch.from_numpy(PIXELS)[batch.indices])
        assert torch.equal(batch.labels, batch.indices % 7)
        assert batch.mix is None


def test_batches_follow_the_order_and_the_last_one_is_short():
    batches = list(loader(augment=None))
    assert torch.cat([batch.indices for batch in batches]).tolist() == order(0).tolist()
    assert [len(batch.indices) for batch in batches] == [5, 5, 5, 5, 3]


def test_length_is_the_number_of_batches_in_mid_epoch_too():
    batches = loader()
    assert len(batches) == 5
    batches.start_at(0, 3)
    assert len(batches) == 5


def test_images_are_uint8_in_channels_last_memory():
    batch = next(iter(loader()))
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_iterating_twice_gives_the_same_bits():
    batches = loader()
    assert same(list(batches), list(batches))


def test_an_epoch_does_not_depend_on_the_epochs_before():
    walked = loader()
    for epoch in range(3):
        last = epoch_of(walked, epoch)
    assert same(last, epoch_of(loader(), 2))
    assert not same(last, epoch_of(loader(), 1))


def test_the_epoch_set_before_the_first_batch_is_used():
    batches = loader()
    started = iter(batches)  # Lightning does so before it calls set_epoch
    batches.sampler.set_epoch(2)
    assert same(list(started), epoch_of(loader(), 2))


def test_starting_in_mid_epoch_gives_the_remaining_batches():
    whole = epoch_of(loader(), 1)
    resumed = loader()
    resumed.start_at(1, 3)
    assert same(epoch_of(resumed, 1), whole[3:])


def test_a_start_in_mid_epoch_is_used_once():
    batches = loader()
    batches.start_at(1, 3)
    epoch_of(batches, 1)
    assert same(epoch_of(batches, 1), epoch_of(loader(), 1))


def test_a_start_in_another_epoch_is_ignored():
    batches = loader()
    batches.start_at(1, 3)
    assert same(epoch_of(batches, 0), epoch_of(loader(), 0))


def test_a_stored_state_resumes_with_the_next_batch():
    first = loader()
    first.sampler.set_epoch(4)
    iterator = iter(first)
    for _ in range(2):
        next(iterator)
    rest = list(iterator)
    stopped = loader()
    stopped.sampler.set_epoch(4)
    iterator = iter(stopped)
    for _ in range(2):
        next(iterator)
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    assert same(epoch_of(resumed, 4), rest)


def test_start_at_overrides_a_stored_state():
    batches = loader()
    batches.start_at(0, 4)
    batches.load_state_dict({"epoch": 0, "batch": 1})
    assert len(list(batches)) == 1


def test_augmentation_is_keyed_by_positions():
    plain = next(iter(loader()))
    moved = next(iter(loader(positions=lambda epoch: np.arange(23) + 1)))
    assert torch.equal(plain.indices, moved.indices)
    assert not torch.equal(plain.images, moved.images)


def test_augmentation_takes_the_seed_of_the_epoch():
    fixed = loader(order=lambda epoch: order(0), seed_of_epoch=lambda epoch: 9)
    assert same(epoch_of(fixed, 0), epoch_of(fixed, 1))
    other = loader(order=lambda epoch: order(0), seed_of_epoch=lambda epoch: epoch)
    assert not same(epoch_of(other, 0), epoch_of(other, 1))


@pytest.mark.parametrize(
    "options",
    [{"pad": 2}, {"pad": 0}, {"policy": "randaugment", "cutout": 3}, {"mix": "cutmix"}, {"blur": 0.5, "jitter": 0.2}],
)
@pytest.mark.parametrize("images_at_once", [1, 7, 1000])
def test_random_numbers_computed_for_many_batches_equal_those_of_each_batch(monkeypatch, options, images_at_once):
    monkeypatch.setattr(BlockOfNumbers, "images", images_at_once)
    augment = Augmentation((3, 8, 8), **options)
    batches = loader(augment=augment)
    batches.start_at(1, 1)
    indices = order(1)
    for number, batch in enumerate(epoch_of(batches, 1), 1):
        rows = slice(5 * number, min(5 * number + 5, len(indices)))
        chosen = torch.from_numpy(indices[rows])
        plain = batches.images.take(chosen)
        images, mix = augment(plain, LABELS[chosen], seed=1, positions=np.arange(len(indices))[rows])
        assert torch.equal(batch.images, images)
        assert (mix is None) == (batch.mix is None)
        assert mix is None or torch.equal(mix.weight, batch.mix.weight)


def test_a_user_augmentation_gets_each_batch():
    class Doubled(Augmentation):
        def __call__(self, images, labels, *, seed, positions):
            return images // 2, None

    for batch in loader(augment=Doubled((3, 8, 8))):
        assert torch.equal(batch.images.permute(0, 2, 3, 1), torch.from_numpy(PIXELS)[batch.indices] // 2)


def test_an_order_of_another_length_than_announced_is_refused():
    with pytest.raises(DataError, match="23 images at 23 positions, but 30"):
        next(iter(loader(length=30)))


def test_on_a_cpu_the_images_share_the_memory_of_the_array():
    pixels = PIXELS.copy()
    resident = ResidentImages(pixels)
    pixels[3] = 7
    assert torch.all(resident.pixels[3] == 7)
    assert resident.image_shape == (3, 8, 8)


def test_batches_are_copies_of_the_images():
    resident = ResidentImages(PIXELS)
    resident.take(torch.tensor([0, 1])).zero_()
    assert np.array_equal(resident.pixels.numpy(), PIXELS)


def test_read_only_pixels_give_no_warning(recwarn):
    pixels = PIXELS.copy()
    pixels.flags.writeable = False
    ResidentImages(pixels)
    assert not recwarn.list


def test_more_images_than_the_limit_are_refused_with_advice():
    with pytest.raises(DataError, match=r"50 images of \[8, 8, 3\] take 0 MiB .* smaller images"):
        ResidentImages(PIXELS, max_bytes=PIXELS.nbytes - 1)


def test_images_are_resized_when_they_are_loaded():
    resident = ResidentImages(PIXELS, side=12)
    taken = resident.take(torch.tensor([3, 1]))
    assert resident.image_shape == (PIXELS.shape[3], 12, 12)
    assert taken.shape == (2, *resident.image_shape)
    assert taken.dtype == torch.uint8
    wide = torch.from_numpy(PIXELS[[3, 1]]).permute(0, 3, 1, 2).double()
    expected = torch.nn.functional.interpolate(wide, (12, 12), mode="bilinear", antialias=True)
    assert (taken.double() - expected).abs().max() <= 0.5 + 1e-4


def test_images_of_the_requested_size_are_not_resized():
    side = PIXELS.shape[1]
    assert ResidentImages(PIXELS, side=side).side is None


@pytest.mark.parametrize("augment", [Augmentation((3, 8, 8), pad=2), Augmentation((3, 8, 8), pad=0, flip=False), None])
def test_images_gathered_inside_a_step_equal_those_of_the_batches(augment):
    usual, pending = loader(augment=augment), loader(augment=augment)
    pending.defers_images = True
    assert pending.can_defer_images
    for start in (0, 3):
        usual.start_at(1, start)
        pending.start_at(1, start)
        taken = [pending.take(one) for one in epoch_of(pending, 1)]
        batches = epoch_of(usual, 1)
        assert same(taken, batches)
        assert all(torch.equal(a.labels, b.labels) for a, b in zip(taken, batches))
        assert all(a.images.stride() == b.images.stride() for a, b in zip(taken, batches))


@pytest.mark.parametrize("changes", [{"pad": 0}, {"cutout": 2}, {"policy": "autoaugment"}, {"mix": "mixup"}])
def test_an_augmentation_with_host_side_choices_runs_outside_of_a_step(changes):
    assert not loader(augment=Augmentation((3, 8, 8), **({"pad": 2} | changes))).can_defer_images


VIEW = Augmentation((3, 8, 8), pad=0, jitter=0.4)


def test_further_views_show_the_same_images_under_other_augmentations_and_random_numbers():
    batches = list(loader(views=(VIEW, VIEW)))
    assert same(batches, list(loader()))  # the first view is what it was
    for batch in batches:
        one, other = batch.views
        assert one.shape == other.shape == batch.images.shape
        assert not torch.equal(one, other)
    unchanged = list(loader(views=(Augmentation((3, 8, 8), pad=0, flip=False),)))
    assert all(torch.equal(batch.views[0], pixels_of(batch)) for batch in unchanged)


def test_views_depend_on_the_position_and_not_on_the_batch():
    whole, split = (
        torch.cat([batch.views[1] for batch in loader(views=(VIEW, VIEW), batch_size=size)]) for size in (23, 4)
    )
    assert torch.equal(whole, split)
    resumed = loader(views=(VIEW, VIEW))
    resumed.start_at(0, 2)
    assert torch.equal(next(iter(resumed)).views[1], whole[10:15])


def test_a_recorded_step_takes_no_views():
    assert loader(augment=None).can_defer_images
    assert not loader(augment=None, views=(VIEW,)).can_defer_images


def pixels_of(batch: Batch) -> torch.Tensor:
    return torch.from_numpy(PIXELS)[batch.indices].permute(0, 3, 1, 2)
