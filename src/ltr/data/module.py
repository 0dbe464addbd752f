"""The DataModule: a source, a split and a sampler become the batches of one stage, for any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from ltr.data.augment import Augmentation
from ltr.data.batch import Batch, to_device, with_device_index
from ltr.data.crop import FileCrop
from ltr.data.files import FileLoader
from ltr.data.loading import DeviceLoader, ResidentImages, batch_bounds
from ltr.data.replacement import Replacements
from ltr.data.samplers import ClassIndex, Instance, Sampler, shard
from ltr.data.source import ImageFiles, Source
from ltr.data.split import Split
from ltr.errors import ConfigError, nearest
from ltr.randomness import derive_seed

PARTS = ("train", "val", "test", "unknown")


class DataModule(pl.LightningDataModule):
    """What one stage trains on and is evaluated on.

    An epoch is one global draw of the sampler over the training images, shared out to the processes; an image's
    random numbers are keyed by its place in that draw. Everything follows from (seed, role, epoch): nothing is kept
    from one epoch to the next, and nothing depends on how many processes or workers there are.

    Args:
        source: the table of samples.
        split: which of them are trained on and evaluated.
        sampler: the draw of an epoch.
        augment: done to training images; None for nothing.
        batch_size: images per step over all processes.
        eval_batch_size: images per evaluation batch of one process.
        seed: of the run.
        role: of the stage; stages of the same role see the same draws.
        epochs: of the stage, for samplers whose law changes on the way.
        device: where batches are made, unless a Trainer says; None is the CPU.
        num_workers: processes that decode image files.
        images: the source's images on the device, if another stage has them already.
        image_size: side in pixels that image files are brought to; None takes that of ``augment``.
        image_resize: of image files before evaluation's crop, where ``augment`` does not say, see
            `ltr.data.crop.FileCrop`.
        max_skipped: share of an epoch's training images that may be replaced by others of their class because their
            files cannot be read, in [0, 1]; None: such a file is an error.

    Raises:
        ConfigError: (once the number of processes is known) it does not divide ``batch_size``.
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
        max_skipped: float | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.split = split
        self.sampler = sampler
        self.augment = augment
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.role = role
        self.epochs = epochs
        self.num_workers = num_workers
        self.image_size = image_size
        self.image_resize = image_resize
        self.max_skipped = max_skipped
        self._device = with_device_index(device or "cpu")
        self._images = images
        self._labels = split.labels(source)
        self._labels_on: dict[torch.device, Tensor] = {}
        self._class_index: ClassIndex | None = None
        self._last_draw: tuple[int, np.ndarray] | None = None
        self._known_bounds: tuple[tuple[int, int, bool], np.ndarray] | None = None
        self._start: tuple[int, int] | None = None
        self.join_single = False  # a last training batch of one image becomes part of the batch before it
        self.watched: str | None = "val"  # the part of the split that a Trainer evaluates while training
        self.processes = (0, 1)  # (rank, how many), unless a Trainer says

    # -- where we are -------------------------------------------------------------------------------------------

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
        """Data on which nothing is trained, as the config of a data set says that images are brought to one size."""
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
        )

    @property
    def device(self) -> torch.device:
        """The Trainer's device if there is one, else the one given."""
        return with_device_index(self.trainer.strategy.root_device) if self.trainer is not None else self._device

    @property
    def world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else self.processes[1]

    @property
    def rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else self.processes[0]

    @property
    def images(self) -> ResidentImages | None:
        """The source's images on the device, put there at the first use; None for image files."""
        if isinstance(self.source.images, ImageFiles):
            return None
        if self._images is None or self._images.device != self.device:
            self._images = ResidentImages(self.source.images, self.device)
        return self._images

    # -- training -----------------------------------------------------------------------------------------------

    @property
    def images_per_epoch(self) -> int:
        """Images that each process trains on in an epoch, by arithmetic."""
        return int(self._bounds()[-1])

    @property
    def steps_per_epoch(self) -> int:
        """Batches that each process trains on in an epoch, by arithmetic."""
        return len(self._bounds()) - 1

    def draw(self, epoch: int) -> np.ndarray:
        """The global draw of an epoch: source indices int64 [T], over all processes."""
        if self._last_draw is None or self._last_draw[0] != epoch:
            seed = derive_seed(self.seed, self.role, "sampler")
            positions = self.sampler.epoch(self.class_index, seed=seed, epoch=epoch, epochs=self.epochs)
            self._last_draw = (epoch, self.split.train[positions])
        return self._last_draw[1]

    def indices_of_step(self, epoch: int, step: int) -> np.ndarray:
        """Source indices of this process's training batch number ``step`` of an epoch."""
        bounds = self._bounds()
        return self._order(epoch)[bounds[step] : bounds[step + 1]]

    def images_of_step(self, step: int) -> int:
        """Images in this process's training batch number ``step``; the same in every process and epoch."""
        bounds = self._bounds()
        return int(bounds[step + 1] - bounds[step])

    def places_of_step(self, step: int) -> slice:
        """The places in an epoch's global draw that training batch number ``step`` of all processes has.

        Of its last images, fewer than there are processes are left out, see `ltr.data.samplers.shard`.
        """
        bounds, world = self._bounds(), self.world_size
        return slice(int(bounds[step]) * world, int(bounds[step + 1]) * world)

    def start_at(self, epoch: int, batch: int) -> None:
        """Let the next training begin in the middle of an epoch, at batch number ``batch`` of each process."""
        self._start = (epoch, batch)

    def train_dataloader(self) -> DeviceLoader | FileLoader:
        """Augmented batches of this process; ``loader.sampler.set_epoch`` chooses the epoch."""
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
                f"batch_size={self.batch_size} is shared by {self.world_size} processes and does not divide. Use a "
                f"multiple of {self.world_size}, such as {max(1, self.batch_size // self.world_size) * self.world_size}"
            )
        return self.batch_size // self.world_size

    def _bounds(self) -> np.ndarray:
        here = (self.rank, self.world_size, self.join_single)
        if self._known_bounds is None or self._known_bounds[0] != here:
            bounds = batch_bounds(len(self._positions(0)), self._batch_size_here(), self.join_single)
            self._known_bounds = (here, bounds)
        return self._known_bounds[1]

    def _positions(self, epoch: int) -> np.ndarray:
        length = self.sampler.length(self.class_index)
        self._batch_size_here()
        return shard(np.arange(length), self.rank, self.world_size, self.batch_size)

    def _order(self, epoch: int) -> np.ndarray:
        return self.draw(epoch)[self._positions(epoch)]

    def _augmentation_seed(self, epoch: int) -> int:
        return derive_seed(self.seed, self.role, "augment", epoch)

    # -- evaluation ---------------------------------------------------------------------------------------------

    def val_dataloader(self) -> DeviceLoader | FileLoader | list:
        """The images of the part that is ``watched``, or an empty list where it is None or has none."""
        if self.watched is None or not len(getattr(self.split, self.watched)):
            return []
        return self.evaluation_loader(self.watched)

    def evaluation_loader(self, part: str | np.ndarray) -> DeviceLoader | FileLoader:
        """The images of a part of the split in order, un-augmented; each image is in exactly one process.

        Args:
            part: ``train``, ``val``, ``test`` or ``unknown``; or int64 [n] indices into the source, which whoever asks
                for them gets all, whatever other processes ask for.
        """
        if isinstance(part, str) and part not in PARTS:
            raise ConfigError(f"a split has no part '{part}'; it has {', '.join(PARTS)}{nearest(part, PARTS)}")
        # every world_size-th, not padded: the processes' last batches may differ in length
        indices = getattr(self.split, part)[self.rank :: self.world_size] if isinstance(part, str) else part
        return self._loader(lambda epoch: indices, len(indices), self.eval_batch_size, train=False)

    # -- common -------------------------------------------------------------------------------------------------

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Nothing is left to transfer, which spares Lightning's walk through the batch."""
        return (
            batch if batch.images.device == device else super().transfer_batch_to_device(batch, device, dataloader_idx)
        )

    def _loader(
        self, order: Callable[[int], np.ndarray], length: int, batch_size: int, *, train: bool
    ) -> DeviceLoader | FileLoader:
        common: dict[str, Any] = {"order": order, "length": length, "batch_size": batch_size}
        if train:
            common |= {"positions": self._positions, "augment": self.augment, "seed_of_epoch": self._augmentation_seed}
            common["join_single"] = self.join_single
        if self.images is not None:
            return DeviceLoader(self.images, self._labels_on_device(), **common)
        assert isinstance(self.source.images, ImageFiles)
        return FileLoader(
            self.source.images,
            self._labels_on_device(),
            crop=self.file_crop,
            device=self.device,
            num_workers=self.num_workers,
            train=train,
            replacements=self._replacements() if train and self.max_skipped is not None else None,
            **common,
        )

    def _replacements(self) -> Replacements:
        index = self.class_index
        assert self.max_skipped is not None
        return Replacements(self._labels, self.split.train[index.order], index.starts, index.counts, self.max_skipped)

    @property
    def file_crop(self) -> FileCrop:
        """How image files are cropped.

        Raises:
            ConfigError: neither ``augment`` nor ``image_size`` says to which size.
        """
        if self.augment is not None and self.augment.file_crop is not None:
            return self.augment.file_crop
        size = self.image_size
        if size is None and self.augment is not None:
            size = self.augment.image_shape[1]
        if size is None:
            raise ConfigError(f"source '{self.source.name}' has image files: say to which size they go (image_size)")
        return FileCrop(size, resize=self.image_resize)

    def _labels_on_device(self) -> Tensor:
        if self.device not in self._labels_on:
            self._labels_on[self.device] = to_device(self._labels, self.device)
        return self._labels_on[self.device]
