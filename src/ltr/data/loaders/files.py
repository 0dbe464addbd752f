"""Loader of large images: worker processes decode and crop files to uint8, the device augments them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ltr.data.batch import Batch, to_device
from ltr.data.images.crop import ATTEMPTS, FileCrop
from ltr.data.loaders.device import EpochLoader, view_seed
from ltr.data.loaders.readers import iterate_batches, unchanged
from ltr.data.loaders.replacement import Failure, Replacements, Skipped
from ltr.data.packed_images.reading import refuse_too_few_pixels
from ltr.data.source import ImageFiles
from ltr.errors import DataError
from ltr.randomness import derive_seed, uniforms

if TYPE_CHECKING:
    from ltr.data.augmentation.augment import Augmentation


class Task(NamedTuple):
    """Work of a worker for one batch."""

    indices: np.ndarray  # int64 [B]
    positions: np.ndarray  # int64 [B]
    seed: int | None  # seed of the epoch's random crops; None: the evaluation crop
    replace_seed: int | None = None  # seed of the replacements of unreadable images; None: no replacement
    view: int = 0  # the first view of the images, or a further one


class _Files(Dataset):
    """Dataset of the workers that maps tasks to pixels."""

    def __init__(self, files: ImageFiles, crops: Sequence[FileCrop], replacements: Replacements | None) -> None:
        self.files = files
        self.crops = tuple(crops)  # of each view
        self.replacements = replacements

    def __getitem__(self, task: Task) -> tuple[Task, Tensor | Failure, list[Failure]]:
        """Return the task (with replaced indices), the pixels or a failure, and all failures that were replaced."""
        crop = self.crops[task.view]
        size = crop.size
        pixels = np.empty((len(task.indices), size, size, 3), dtype=np.uint8)
        uniform = None if task.seed is None else uniforms(task.seed, task.positions, 4 * ATTEMPTS)
        skipped: list[Failure] = []
        for row, index in enumerate(task.indices):
            row_uniform = None if uniform is None else uniform[row]
            failure = self._read(crop, int(index), row_uniform, pixels[row])
            if failure is None:
                continue
            if self.replacements is None or task.replace_seed is None:
                return task, failure, skipped
            skipped.append(failure)
            for candidate in self.replacements.candidates(int(index), task.replace_seed, int(task.positions[row])):
                if self._read(crop, int(candidate), row_uniform, pixels[row]) is None:
                    task.indices[row] = candidate
                    break
            else:
                return task, failure, skipped
        return task, torch.from_numpy(pixels), skipped

    def _read(self, crop: FileCrop, index: int, uniform: np.ndarray | None, output: np.ndarray) -> Failure | None:
        """Decode one image into ``output`` [size, size, 3]; return a failure if that is impossible."""
        try:
            output[:] = crop.read(self.files.open(index), uniform, self.files.decoding)
        except Exception as error:  # decoders raise errors of any type for damaged files
            return Failure(index, self.files.path(index), f"{type(error).__name__}: {error}")
        return None


class FileLoader(EpochLoader):
    """Loader of image files, with the interface of `ltr.data.loaders.device.DeviceLoader`.

    A worker builds whole batches. Crops follow from (seed, position) and do not depend on the number of workers. All
    other augmentation runs on the device.

    Args:
        files: all image files of the source.
        crop: crop of the files.
        device: device of the batches.
        num_workers: number of worker processes; 0 decodes in this process.
        train: True takes random crops if ``crop.random`` is set, False the evaluation crop.
        replacements: source of replacements for unreadable training images; None: such an image is an error. The
            attribute ``replaced_images`` has their number in this epoch, from its first batch in this process.
        augment, views: as in `DeviceLoader`. A file is decoded once for each view, with the crop of its augmentation if
            that has one.
        labels, options: see `EpochLoader`.

    Raises:
        ConfigError: packed images have fewer pixels than ``crop`` needs.
        DataError: raised during iteration if a file cannot be read, or more files than ``replacements`` allow; it names
            path and index.
    """

    def __init__(
        self,
        files: ImageFiles,
        labels: Tensor,
        *,
        crop: FileCrop,
        device: torch.device,
        augment: Augmentation | None = None,
        views: Sequence[Augmentation] = (),
        num_workers: int = 0,
        train: bool = False,
        replacements: Replacements | None = None,
        **options: Any,
    ) -> None:
        super().__init__(labels, **options)
        crops = [crop, *(view.file_crop or crop for view in views)]
        for one in crops:
            refuse_too_few_pixels(files, one.resize)
        self.device = device
        self.augment = augment
        self.views = tuple(views)
        self.train = train
        self.random = [train and one.random for one in crops]  # of each view
        self.replacements = replacements if train else None  # evaluation never replaces an image
        self.replaced_images: int | None = None if self.replacements is None else 0  # of the epoch, up to this batch
        self._tasks: list[Task] = []  # of the current epoch, read by torch's loader
        self._workers = DataLoader(
            _Files(files, crops, self.replacements),
            batch_size=None,
            sampler=self._tasks,
            num_workers=num_workers,
            collate_fn=unchanged,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # without it torch's loader uses the global generator
        )

    def __iter__(self) -> Iterator[Batch]:
        epoch, first, indices, positions = self._begin()
        seed = self.seed_of_epoch(epoch)
        seeds = [seed, *(view_seed(seed, number) for number in range(1, len(self.random)))]
        crop_seeds = [derive_seed(one, "crop") if random else None for one, random in zip(seeds, self.random)]
        parts = [self.rows(number) for number in range(first, len(self))]
        replace_seed = seed if self.replacements is not None else None
        self._tasks[:] = [
            Task(indices[part].copy(), positions[part], crop_seed, replace_seed, view)
            for part in parts
            for view, crop_seed in reversed(list(enumerate(crop_seeds)))  # the first view comes last
        ]
        skipped = Skipped(len(indices), self.replacements.most if self.replacements else 0.0)
        failure = None
        number = first
        views: list[Tensor] = []  # of the batch at hand
        for task, pixels, failed in iterate_batches(self._workers):
            if task.view == 0:  # each view replaces the same images
                skipped.add(failed)
                self.replaced_images = None if self.replacements is None else len(skipped.failures)
            if isinstance(pixels, Failure):
                failure = pixels
                break  # raise after the loop, so that the workers end now and not when the traceback is collected
            images = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
            chosen = to_device(task.indices, self.device)
            labels = self.labels.index_select(0, chosen)
            if task.view:
                view = self.views[task.view - 1]
                views.insert(0, view(images, labels, seed=seeds[task.view], positions=task.positions)[0])
                continue
            mix = None
            if self.augment is not None:
                images, mix = self.augment(images, labels, seed=seed, positions=task.positions)
            number += 1
            self._next_batch = number
            if number == len(self):
                skipped.warn()  # before the last yield, because a trainer that knows the length does not resume
            yield Batch(images, labels, chosen, mix, tuple(views))
            views = []
        if failure is not None:
            raise DataError(self._describe(failure, indices))

    def _describe(self, failure: Failure, indices: np.ndarray) -> str:
        """Return a message that names an unreadable image and the options of the user."""
        labels = self.labels.cpu().numpy()
        readable = np.unique(indices[labels[indices] == labels[failure.image]])
        reason, hint = "", ""
        if not self.train:
            reason = "It is an evaluation image, so no other image can replace it. "
        elif self.replacements is not None or len(readable) == 1:
            reason = "No other image of its class could be read to replace it. "
        else:
            hint = "; trainer.on_error=skip takes another image of the class"
        return (
            f"image {failure.image}, {failure.path}, cannot be read: {failure.reason}. {reason}"
            "Fetch the file again, or leave it out: ltr-data check finds all of them and writes the list for "
            f"dataset.exclude=FILE{hint}"
        )
