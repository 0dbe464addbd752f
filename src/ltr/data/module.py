"""The DataModule: batches of one stage from a source, a split and a sampler, for any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from ltr.data.augmentation.augment import Augmentation
from ltr.data.batch import Batch, to_device, with_device_index
from ltr.data.images.crop import FileCrop
from ltr.data.loaders.device import DeviceLoader, ResidentImages, batch_bounds
from ltr.data.loaders.features import FeatureLoader, StoredFeatures
from ltr.data.loaders.files import FileLoader
from ltr.data.loaders.replacement import Replacements
from ltr.data.options import Interpolation
from ltr.data.sampling.class_index import ClassIndex
from ltr.data.sampling.samplers import Instance, Sampler, shard
from ltr.data.source import ImageFiles, Source
from ltr.data.split import SPLIT_PARTS, Split
from ltr.errors import ConfigError, nearest
from ltr.randomness import derive_seed

Loader = DeviceLoader | FileLoader | FeatureLoader


class DataModule(pl.LightningDataModule):
    """Training and evaluation data of one stage.

    In each epoch the sampler returns one global sample of training images, which is sharded over the processes; the
    random numbers of an image follow from its position in that sample. Everything follows from (seed, role, epoch):
    there is no state between epochs, and no dependence on the number of processes or workers.

    Args:
        source: table of all images.
        split: training and evaluation images, as indices into ``source``.
        sampler: order of the training images in an epoch.
        augment: augmentation of training images, or None.
        views: augmentations of further views of each training image, see `Batch.views`.
        batch_size: images per step over all processes.
        eval_batch_size: images per evaluation batch of one process.
        seed: seed of the run.
        role: role of the stage; stages with the same role get the same samples.
        epochs: epochs of the stage, for samplers whose probabilities change during training.
        device: device of the batches without a Trainer; None: the CPU.
        num_workers: number of processes that decode image files.
        images: the source's images on the device, if another stage has loaded them.
        image_size: side in pixels to which image files are resized; None: that of ``augment``.
        image_resize: size of image files before evaluation's crop, unless ``augment`` sets it, see
            `ltr.data.images.crop.FileCrop`.
        array_size: side in pixels to which arrays are resized; None: no resizing.
        interpolation: interpolation of both resizings, unless ``augment`` sets it; None: bilinear.
        features: stored features, which the batches contain instead of images.
        max_skipped: largest share of an epoch's training images, in [0, 1], that may be unreadable; other images of
            their class replace them. None: an unreadable file is an error.

    Raises:
        ConfigError: the number of processes does not divide ``batch_size`` (raised once it is known).
    """

    def __init__(
        self,
        source: Source,
        split: Split,
        *,
        sampler: Sampler,
        augment: Augmentation | None,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        role: str,
        epochs: int,
        device: torch.device | str | None = None,
        num_workers: int = 0,
        images: ResidentImages | None = None,
        image_size: int | None = None,
        image_resize: int | Sequence[int] | None = None,
        interpolation: Interpolation | None = None,
        max_skipped: float | None = None,
        views: Sequence[Augmentation] = (),
        array_size: int | None = None,
        features: StoredFeatures | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.split = split
        self.sampler = sampler
        self.augment = augment
        self.views = tuple(views)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.role = role
        self.epochs = epochs
        self.num_workers = num_workers
        self.image_size = image_size
        self.image_resize = image_resize
        self.interpolation = interpolation
        self.max_skipped = max_skipped
        self.array_size = array_size
        self.features = features
        self._device = with_device_index(device or "cpu")
        self._images = images
        self._labels = split.labels(source)
        self._labels_on: dict[torch.device, Tensor] = {}
        self._class_index: ClassIndex | None = None
        self._last_sample: tuple[int, np.ndarray] | None = None
        self._known_bounds: tuple[tuple[int, int, bool], np.ndarray] | None = None
        self._start: tuple[int, int] | None = None
        self.join_single = False  # True appends a last training batch of one image to the batch before it
        self.monitored_part: str | None = "val"  # part of the split that a Trainer evaluates during training
        self.processes = (0, 1)  # (rank, world size) without a Trainer

    # -- device and processes -------------------------------------------------------------------------------------

    @classmethod
    def for_evaluation(
        cls,
        source: Source,
        split: Split,
        dataset: Mapping[str, Any],
        batch_size: int,
        *,
        device: torch.device | str | None = None,
        num_workers: int = 0,
        images: ResidentImages | None = None,
    ) -> DataModule:
        """Build a DataModule for evaluation only, with the image size of a dataset config."""
        return cls(
            source,
            split,
            sampler=Instance(),
            augment=None,
            batch_size=batch_size,
            eval_batch_size=batch_size,
            seed=0,
            role="evaluation",
            epochs=1,
            device=device,
            num_workers=num_workers,
            images=images,
            image_size=dataset.get("image_size"),
            image_resize=dataset.get("image_resize"),
            interpolation=dataset.get("interpolation"),
        )

    @property
    def device(self) -> torch.device:
        """Device of the Trainer, or the device of the constructor without one."""
        return with_device_index(self.trainer.strategy.root_device) if self.trainer is not None else self._device

    @property
    def world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else self.processes[1]

    @property
    def rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else self.processes[0]

    @property
    def images(self) -> ResidentImages | None:
        """Images of the source on the device, copied on first use; None for image files."""
        if isinstance(self.source.images, ImageFiles):
            return None
        if self._images is None or self._images.device != self.device:
            self._images = ResidentImages(
                self.source.images, self.device, side=self.array_size, interpolation=self.interpolation
            )
        return self._images

    # -- training -----------------------------------------------------------------------------------------------

    @property
    def images_per_epoch(self) -> int:
        """Training images per epoch of each process."""
        return int(self._bounds()[-1])

    @property
    def steps_per_epoch(self) -> int:
        """Training batches per epoch of each process."""
        return len(self._bounds()) - 1

    def epoch_sample(self, epoch: int) -> np.ndarray:
        """Return the global sample of an epoch: source indices int64 [T], over all processes."""
        if self._last_sample is None or self._last_sample[0] != epoch:
            seed = derive_seed(self.seed, self.role, "sampler")
            positions = self.sampler.epoch(self.class_index, seed=seed, epoch=epoch, epochs=self.epochs)
            self._last_sample = (epoch, self.split.train[positions])
        return self._last_sample[1]

    def indices_of_step(self, epoch: int, step: int) -> np.ndarray:
        """Return the source indices of this process's training batch ``step`` of an epoch."""
        bounds = self._bounds()
        return self._order(epoch)[bounds[step] : bounds[step + 1]]

    def images_of_step(self, step: int) -> int:
        """Return the number of images in training batch ``step`` of each process, the same in every epoch."""
        bounds = self._bounds()
        return int(bounds[step + 1] - bounds[step])

    def positions_of_step(self, step: int) -> slice:
        """Return the slice of an epoch's global sample that forms training batch ``step`` of all processes.

        Up to (world size - 1) images at the end of an epoch are dropped, see `ltr.data.sampling.samplers.shard`.
        """
        bounds, world = self._bounds(), self.world_size
        return slice(int(bounds[step]) * world, int(bounds[step + 1]) * world)

    def start_at(self, epoch: int, batch: int) -> None:
        """Start the next training in the middle of an epoch, at batch ``batch`` of each process."""
        self._start = (epoch, batch)

    def train_dataloader(self) -> Loader:
        """Return the loader of this process's augmented batches; ``loader.sampler.set_epoch`` sets the epoch."""
        loader = self._loader(self._order, len(self._positions(0)), self._batch_size_here(), train=True)
        if self._start is not None:
            loader.start_at(*self._start)
            self._start = None
        return loader

    @property
    def class_index(self) -> ClassIndex:
        """The training images by class."""
        if self._class_index is None:
            self._class_index = ClassIndex.from_labels(self._labels[self.split.train], len(self.split.class_names))
        return self._class_index

    def _batch_size_here(self) -> int:
        if self.batch_size % self.world_size:
            raise ConfigError(
                f"batch_size={self.batch_size} is not a multiple of the number of processes, {self.world_size}. Use a "
                f"multiple of {self.world_size}, such as {max(1, self.batch_size // self.world_size) * self.world_size}"
            )
        return self.batch_size // self.world_size

    def _bounds(self) -> np.ndarray:
        key = (self.rank, self.world_size, self.join_single)
        if self._known_bounds is None or self._known_bounds[0] != key:
            bounds = batch_bounds(len(self._positions(0)), self._batch_size_here(), self.join_single)
            self._known_bounds = (key, bounds)
        return self._known_bounds[1]

    def _positions(self, epoch: int) -> np.ndarray:
        length = self.sampler.length(self.class_index)
        self._batch_size_here()
        return shard(np.arange(length), self.rank, self.world_size, self.batch_size)

    def _order(self, epoch: int) -> np.ndarray:
        return self.epoch_sample(epoch)[self._positions(epoch)]

    def _augmentation_seed(self, epoch: int) -> int:
        return derive_seed(self.seed, self.role, "augment", epoch)

    # -- evaluation ---------------------------------------------------------------------------------------------

    def val_dataloader(self) -> Loader | list:
        """Return the loader of the part ``monitored_part``, or an empty list if it is None or has no images."""
        if self.monitored_part is None or not len(getattr(self.split, self.monitored_part)):
            return []
        return self.evaluation_loader(self.monitored_part)

    def evaluation_loader(self, part: str | np.ndarray) -> Loader:
        """Return a loader of the images of a part in order, without augmentation, sharded over the processes.

        Args:
            part: ``train``, ``val``, ``test`` or ``unknown``; or int64 [n] indices into the source, which are not
                sharded: the calling process gets all of them.
        """
        if isinstance(part, str) and part not in SPLIT_PARTS:
            raise ConfigError(
                f"a split has no part '{part}'; it has {', '.join(SPLIT_PARTS)}{nearest(part, SPLIT_PARTS)}"
            )
        # strided and not padded, so that the processes' last batches may differ in length
        indices = getattr(self.split, part)[self.rank :: self.world_size] if isinstance(part, str) else part
        return self._loader(lambda epoch: indices, len(indices), self.eval_batch_size, train=False)

    def plain_features(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the stored features of source indices, without augmentation, in blocks float32 [b, *shape]."""
        assert self.features is not None
        rows = self.features.plain.block_rows
        for first in range(0, len(indices), rows):
            yield self.features.plain.take(indices[first : first + rows])

    def ordered_loader(self, indices: np.ndarray, batch_size: int, seed: int | None = None) -> Loader:
        """Return an unsharded loader of source indices int64 [n] in order.

        Args:
            seed: seed of the augmentation, whose random numbers follow from (seed, source index); None: no
                augmentation.
        """
        return self._loader(lambda epoch: indices, len(indices), batch_size, train=False, seed=seed)

    # -- common -------------------------------------------------------------------------------------------------

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return the batch unchanged: it is on the device already."""
        return (
            batch if batch.images.device == device else super().transfer_batch_to_device(batch, device, dataloader_idx)
        )

    def _loader(
        self,
        order: Callable[[int], np.ndarray],
        length: int,
        batch_size: int,
        *,
        train: bool,
        seed: int | None = None,
    ) -> Loader:
        common: dict[str, Any] = {"order": order, "length": length, "batch_size": batch_size}
        if train:
            common |= {"positions": self._positions, "seed_of_epoch": self._augmentation_seed}
            common["join_single"] = self.join_single
        if self.features is not None:
            tables = (train and self.features.views) or (self.features.plain,)
            return FeatureLoader(tables, self._labels_on_device(), device=self.device, **common)
        if train:
            if self.augment is not None:
                self.augment.class_counts = self.class_index.counts
            common |= {"augment": self.augment, "views": self.views}
        elif seed is not None:
            common |= {"positions": order, "augment": self.augment, "seed_of_epoch": lambda epoch: seed}
        if self.images is not None:
            return DeviceLoader(self.images, self._labels_on_device(), **common)
        assert isinstance(self.source.images, ImageFiles)
        return FileLoader(
            self.source.images,
            self._labels_on_device(),
            crop=self.file_crop,
            device=self.device,
            num_workers=self.num_workers,
            train=train or seed is not None,
            replacements=self._replacements() if train and self.max_skipped is not None else None,
            **common,
        )

    def _replacements(self) -> Replacements:
        index = self.class_index
        assert self.max_skipped is not None
        return Replacements(self._labels, self.split.train[index.order], index.starts, index.counts, self.max_skipped)

    @property
    def file_crop(self) -> FileCrop:
        """Crop of image files.

        Raises:
            ConfigError: neither ``augment`` nor ``image_size`` sets the size.
        """
        if self.augment is not None and self.augment.file_crop is not None:
            return self.augment.file_crop
        size = self.image_size
        if size is None and self.augment is not None:
            size = self.augment.image_shape[1]
        if size is None:
            raise ConfigError(f"source '{self.source.name}' has image files and no size for them. Set image_size")
        return FileCrop(size, resize=self.image_resize, interpolation=self.interpolation)

    def _labels_on_device(self) -> Tensor:
        if self.device not in self._labels_on:
            self._labels_on[self.device] = to_device(self._labels, self.device)
        return self._labels_on[self.device]
