"""The DataModule: sampling, processes, resuming, and its use by Lightning."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from ltr.data.augmentation.augment import Augmentation
from ltr.data.batch import Batch
from ltr.data.loaders.device import ResidentImages
from ltr.data.module import DataModule
from ltr.data.sampling.class_index import ClassIndex
from ltr.data.sampling.samplers import ClassBalanced, Instance
from ltr.data.source import ImageFiles, Source
from ltr.data.split import Split
from ltr.errors import ConfigError

N, CLASSES, SIZE = 90, 3, 8
LABELS = np.arange(N) % CLASSES


def make_source(images: np.ndarray | ImageFiles | None = None) -> Source:
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (N, SIZE, SIZE, 3), dtype=np.uint8)
    return Source("toy", images, LABELS, ("a", "b", "c"), {"train": range(60), "test": range(60, N)})


def make_split(val: int = 7) -> Split:
    """Labels are reversed, and class 2 has fewer training images."""
    train = np.array([i for i in range(50) if LABELS[i] != 2 or i < 20])
    label_map = np.array([2, 1, 0])
    return Split(
        name="toy-split",
        train=train,
        val=np.arange(50, 50 + val),
        test=np.arange(60, 80),
        unknown=np.arange(80, N),
        label_map=label_map,
        class_names=("c", "b", "a"),
        class_counts=np.bincount(label_map[LABELS[train]]),
    )


def make(**changes) -> DataModule:
    source = changes.pop("source", None) or make_source()
    options = {
        "sampler": ClassBalanced(),
        "augment": Augmentation((3, SIZE, SIZE), pad=2, cutout=3),
        "batch_size": 12,
        "eval_batch_size": 6,
        "seed": 0,
        "role": "representation",
        "epochs": 4,
    } | changes
    split = options.pop("split", None) or make_split()
    return DataModule(source, split, **options)


def as_rank(rank: int, world_size: int, **changes) -> DataModule:
    """The DataModule as process ``rank`` of ``world_size`` sees it."""
    data = make(**changes)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(strategy=strategy, world_size=world_size, global_rank=rank)  # type: ignore[assignment]
    return data


def iterate_batches(data: DataModule, epoch: int) -> list[Batch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.indices, b.indices)
        for a, b in zip(one, other)
    )


# -- the draw ---------------------------------------------------------------------------------------------------------


def test_two_modules_give_the_same_bits():
    assert same(iterate_batches(make(), 2), iterate_batches(make(), 2))


def test_an_epoch_does_not_depend_on_the_epochs_before():
    data = make()
    for epoch in range(3):
        last = iterate_batches(data, epoch)
    assert same(last, iterate_batches(make(), 2))


@pytest.mark.parametrize("change", [{"seed": 1}, {"role": "generator"}])
def test_order_and_augmentation_depend_on_seed_and_role(change):
    one, other = iterate_batches(make(), 0), iterate_batches(make(**change), 0)
    assert not torch.equal(one[0].indices, other[0].indices)
    assert make()._augmentation_seed(0) != make(**change)._augmentation_seed(0)


def test_epochs_differ_in_order():
    data = make(sampler=Instance())
    assert not np.array_equal(data.epoch_sample(0), data.epoch_sample(1))


def test_epochs_differ_in_augmentation_where_the_order_is_the_same():
    class InOrder(Instance):
        def epoch(self, index: ClassIndex, *, seed: int, epoch: int, epochs: int) -> np.ndarray:
            return np.arange(len(index))

    one, other = (iterate_batches(make(sampler=InOrder()), epoch)[0] for epoch in (0, 1))
    assert torch.equal(one.indices, other.indices)
    assert not torch.equal(one.images, other.images)


def test_global_generators_have_no_effect_and_are_not_advanced():
    before = torch.get_rng_state()
    first = iterate_batches(make(), 0)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert same(iterate_batches(make(), 0), first)


def test_training_images_and_labels_are_those_of_the_split():
    split = make_split()
    for batch in iterate_batches(make(), 0):
        assert np.array_equal(batch.labels.numpy(), split.label_map[LABELS[batch.indices.numpy()]])
        assert np.isin(batch.indices.numpy(), split.train).all()


def test_without_augmentation_the_pixels_are_the_sources():
    data = make(augment=None)
    for batch in iterate_batches(data, 0):
        expected = data.source.images[batch.indices.numpy()]
        assert np.array_equal(batch.images.permute(0, 2, 3, 1).numpy(), expected)


def test_indices_of_a_step_are_those_of_its_batch():
    data = make()
    for step, batch in enumerate(iterate_batches(data, 1)):
        assert data.indices_of_step(1, step).tolist() == batch.indices.tolist()


def test_a_start_in_mid_epoch_gives_the_remaining_batches():
    whole = iterate_batches(make(), 1)
    resumed = make()
    resumed.start_at(1, 2)
    assert same(iterate_batches(resumed, 1), whole[2:])


def test_steps_per_epoch_is_the_number_of_batches():
    data = make(batch_size=7)
    assert data.steps_per_epoch == len(data.train_dataloader()) == len(iterate_batches(data, 0))
    assert data.steps_per_epoch == -(-len(make_split().train) // 7)


# -- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("sampler", [Instance(), ClassBalanced()])
def test_the_batches_of_all_processes_form_the_global_batch_to_the_bit(world_size, sampler):
    alone = iterate_batches(make(sampler=sampler), 1)
    shared = [iterate_batches(as_rank(rank, world_size, sampler=sampler), 1) for rank in range(world_size)]
    assert {len(part) for part in shared} == {len(alone)}
    for step, batch in enumerate(alone):
        parts = [part[step] for part in shared]
        assert len({len(part.indices) for part in parts}) == 1
        for rank, part in enumerate(parts):
            count = len(part.indices)
            assert torch.equal(part.indices, batch.indices[rank::world_size][:count])
            assert torch.equal(part.images, batch.images[rank::world_size][:count])
            assert torch.equal(part.labels, batch.labels[rank::world_size][:count])
        # an epoch that does not divide loses fewer images than there are processes, in its last step
        missing = len(batch.indices) - sum(len(part.indices) for part in parts)
        assert missing == (len(batch.indices) % world_size if step == len(alone) - 1 else 0)


def test_a_batch_size_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size=12 is not a multiple of the number of processes, 5.*such as 10"):
        as_rank(0, 5).train_dataloader()


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("part", ["train", "val", "test", "unknown"])
def test_evaluation_covers_every_image_exactly_once(part, world_size):
    seen: list[int] = []
    for rank in range(world_size):
        loader = as_rank(rank, world_size).evaluation_loader(part)
        batches = list(loader)
        assert len(loader) == len(batches)
        seen += [int(index) for batch in batches for index in batch.indices]
    assert sorted(seen) == getattr(make_split(), part).tolist()


def test_evaluation_is_in_order_unaugmented_and_labels_unknowns_minus_one():
    split = make_split()
    no_label = Split(
        name="x",
        train=split.train,
        val=split.val,
        test=split.test,
        unknown=split.unknown,
        label_map=np.array([0, -1, 1]),
        class_names=("a", "c"),
        class_counts=np.array([1, 1]),
    )
    data = make(split=no_label)
    batches = list(data.evaluation_loader("unknown"))
    indices = torch.cat([batch.indices for batch in batches])
    assert indices.tolist() == split.unknown.tolist()
    assert torch.cat([batch.labels for batch in batches]).tolist() == [[0, -1, 1][LABELS[i]] for i in indices]
    pixels = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(pixels, data.source.images[split.unknown])


def test_an_unknown_part_is_refused_with_a_hint():
    with pytest.raises(ConfigError, match=r"no part 'tset'.*Did you mean 'test'"):
        make().evaluation_loader("tset")


def test_pixels_are_shared_between_stages_and_with_the_source():
    source = make_source()
    images = ResidentImages(source.images)
    one, other = make(source=source, images=images), make(source=source, images=images)
    assert one.images is other.images is images
    assert np.shares_memory(images.pixels.numpy(), source.images)


# -- Lightning --------------------------------------------------------------------------------------------------------


class Recorder(pl.LightningModule):
    """Network of one weight that records its inputs."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[tuple[int, int], Batch] = {}
        self.validated: list[int] = []
        self.stop_after = stop_after

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        self.seen[self.current_epoch, batch_index] = batch
        return self.weight * batch.labels.float().mean() + self.weight**2

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_index: int) -> None:
        if len(self.seen) == self.stop_after:
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/stopped.ckpt")
            raise KeyboardInterrupt

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self.validated += batch.indices.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=0.1)


def trainer(folder, **options) -> pl.Trainer:
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
        **silent,
        **options,
    )


def test_lightning_sets_the_epoch_and_trains_on_every_batch_of_it(tmp_path):
    module, data = Recorder(), make()
    trainer(tmp_path).fit(module, datamodule=data)
    expected = {(epoch, i): batch for epoch in range(3) for i, batch in enumerate(iterate_batches(make(), epoch))}
    assert list(module.seen) == list(expected)
    assert same(list(module.seen.values()), list(expected.values()))
    assert len(expected) == 3 * data.steps_per_epoch
    assert module.validated == 3 * make_split().val.tolist()


@pytest.mark.filterwarnings("ignore:Total length of `list`")
def test_a_split_without_validation_trains_without(tmp_path):
    module, data = Recorder(), make(split=make_split(val=0))
    trainer(tmp_path).fit(module, datamodule=data)
    assert data.val_dataloader() == []
    assert module.validated == []
    assert len(module.seen) == 3 * data.steps_per_epoch


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_a_training_stopped_in_mid_epoch_resumes_with_the_remaining_batches(by_hand, tmp_path):
    whole = Recorder()
    trainer(tmp_path).fit(whole, datamodule=make())
    stopped = Recorder(stop_after=make().steps_per_epoch + 2)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer(tmp_path).fit(stopped, datamodule=make())
    resumed, data = Recorder(), make()
    if by_hand:
        data.start_at(1, 2)
    trainer(tmp_path).fit(resumed, datamodule=data, ckpt_path=str(tmp_path / "stopped.ckpt"))
    rest = {key: batch for key, batch in whole.seen.items() if key not in stopped.seen}
    assert list(resumed.seen) == list(rest)
    assert same(list(resumed.seen.values()), list(rest.values()))
    assert torch.equal(resumed.weight, whole.weight)


def test_limited_batches_start_at_the_beginning_of_every_epoch(tmp_path):
    module = Recorder()
    trainer(tmp_path, limit_train_batches=2).fit(module, datamodule=make())
    expected = [batch for epoch in range(3) for batch in iterate_batches(make(), epoch)[:2]]
    assert same(list(module.seen.values()), expected)


def test_the_device_is_that_of_the_trainer_if_there_is_one(tmp_path):
    data = make(device="meta")
    assert data.device == torch.device("meta")
    trainer(tmp_path, limit_train_batches=1).fit(Recorder(), datamodule=data)
    assert data.device == torch.device("cpu")


# -- image files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def file_source(tmp_path) -> Source:
    """The toy source's pixels as PNG files."""
    pixels = make_source().images
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    return make_source(ImageFiles.from_paths(tmp_path, [f"{number}.png" for number in range(N)]))


def test_files_and_arrays_give_the_same_batches_if_the_crop_is_the_whole_image(file_source):
    config = {"_target_": "ltr.data.images.crop.FileCrop", "resize": SIZE}
    augment = Augmentation((3, SIZE, SIZE), pad=2, cutout=3, files=config)
    assert same(iterate_batches(make(source=file_source, augment=augment), 1), iterate_batches(make(), 1))
    one, other = (make(source=s, augment=augment).evaluation_loader("test") for s in (file_source, make_source()))
    assert same(list(one), list(other))


def test_files_have_no_pixels_in_memory(file_source):
    assert make(source=file_source).images is None


def test_files_without_a_size_are_refused(file_source):
    with pytest.raises(ConfigError, match="image_size"):
        make(source=file_source, augment=None).evaluation_loader("test")


def test_random_crops_are_for_training_only(file_source):
    config = {"_target_": "ltr.data.images.crop.FileCrop", "random": True}
    data = make(source=file_source, augment=Augmentation((3, 6, 6), pad=0, flip=False, files=config))
    assert not same(iterate_batches(data, 0), iterate_batches(data, 1))
    assert same(list(data.evaluation_loader("test")), list(data.evaluation_loader("test")))
    assert same(iterate_batches(data, 0), iterate_batches(data, 0))
