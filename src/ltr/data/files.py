"""The loader of large images: worker processes decode and crop files to uint8, the device does the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ltr.data.batch import Batch, to_device
from ltr.data.crop import ATTEMPTS, FileCrop
from ltr.data.loading import EpochLoader
from ltr.data.packed import refuse_too_few_pixels
from ltr.data.readers import batches_of
from ltr.data.replacement import Failure, Replacements, Skipped
from ltr.data.source import ImageFiles
from ltr.errors import DataError
from ltr.randomness import derive_seed, uniforms

if TYPE_CHECKING:
    from ltr.data.augment import Augmentation


class Task(NamedTuple):
    """One batch's worth of work for a worker."""

    indices: np.ndarray  # int64 [B]
    positions: np.ndarray  # int64 [B]
    seed: int | None  # of the epoch's random crops; None for evaluation's crop
    replace_seed: int | None = None  # of what takes the place of an image that cannot be read; None: nothing does


class _Files(Dataset):
    """Tasks to pixels; lives in the workers."""

    def __init__(self, files: ImageFiles, crop: FileCrop, replacements: Replacements | None) -> None:
        self.files = files
        self.crop = crop
        self.replacements = replacements

    def __getitem__(self, task: Task) -> tuple[Task, Tensor | Failure, list[Failure]]:
        """The task (with the images that were really read), their pixels, and those that could not be read."""
        size = self.crop.size
        pixels = np.empty((len(task.indices), size, size, 3), dtype=np.uint8)
        uniform = None if task.seed is None else uniforms(task.seed, task.positions, 4 * ATTEMPTS)
        skipped: list[Failure] = []
        for row, index in enumerate(task.indices):
            drawn = None if uniform is None else uniform[row]
            failure = self._read(int(index), drawn, pixels[row])
            if failure is None:
                continue
            if self.replacements is None or task.replace_seed is None:
                return task, failure, skipped
            skipped.append(failure)
            for other in self.replacements.candidates(int(index), task.replace_seed, int(task.positions[row])):
                if self._read(int(other), drawn, pixels[row]) is None:
                    task.indices[row] = other
                    break
            else:
                return task, failure, skipped
        return task, torch.from_numpy(pixels), skipped

    def _read(self, index: int, uniform: np.ndarray | None, into: np.ndarray) -> Failure | None:
        """Decode one image into ``into`` [size, size, 3], or say why that cannot be done."""
        try:
            into[:] = self.crop.read(self.files.open(index), uniform, self.files.decoding)
        except Exception as error:  # decoders raise whatever they like for a damaged file
            return Failure(index, self.files.path(index), f"{type(error).__name__}: {error}")
        return None


class _Tasks:
    """The sampler that torch's loader iterates over: the tasks of the epoch that begins."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


class FileLoader(EpochLoader):
    """Batches of image files, with the interface of `ltr.data.loading.DeviceLoader`.

    A worker makes whole batches; its crops follow from (seed, position), so the number of workers changes nothing.
    Flips, jitter and everything else of ``augment`` happen on the device.

    Args:
        files: the whole source.
        labels: int64 [N] on the device, of the whole source.
        crop: how files become squares.
        device: where batches go.
        num_workers: processes; 0 decodes in this one.
        train: random crops, where ``crop.random`` asks for them; else evaluation's.
        replacements: what takes the place of a training image that cannot be read; None: such an image is an error.
        order, batch_size, positions, length, join_single, augment, seed_of_epoch: as in `DeviceLoader`.

    Raises:
        ConfigError: packed images have fewer pixels than ``crop`` asks for.
        DataError: while iterating, for a file that cannot be read, or more of them than ``replacements`` allow; it
            names path and index.
    """

    def __init__(
        self,
        files: ImageFiles,
        labels: Tensor,
        *,
        crop: FileCrop,
        device: torch.device,
        order: Callable[[int], np.ndarray],
        batch_size: int,
        positions: Callable[[int], np.ndarray] | None = None,
        length: int | None = None,
        join_single: bool = False,
        augment: Augmentation | None = None,
        seed_of_epoch: Callable[[int], int] = lambda epoch: epoch,
        num_workers: int = 0,
        train: bool = False,
        replacements: Replacements | None = None,
    ) -> None:
        super().__init__(
            order=order, batch_size=batch_size, positions=positions, length=length, join_single=join_single
        )
        refuse_too_few_pixels(files, crop.resize)
        self.labels = labels
        self.device = device
        self.augment = augment
        self.seed_of_epoch = seed_of_epoch
        self.train = train
        self.random = train and crop.random
        self.replacements = replacements if train else None  # evaluation evaluates every image, or none
        self._tasks = _Tasks()
        self._workers = DataLoader(
            _Files(files, crop, self.replacements),
            batch_size=None,
            sampler=self._tasks,
            num_workers=num_workers,
            collate_fn=_as_it_is,  # without one, torch would make tensors of the task
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # its own: torch's loader would draw from the global one
        )

    def __iter__(self) -> Iterator[Batch]:
        epoch, first, indices, positions = self._begin()
        seed = self.seed_of_epoch(epoch)
        crop_seed = derive_seed(seed, "crop") if self.random else None
        parts = [self.rows(number) for number in range(first, len(self))]
        replace_seed = seed if self.replacements is not None else None
        self._tasks.tasks = [Task(indices[part].copy(), positions[part], crop_seed, replace_seed) for part in parts]
        skipped = Skipped(len(indices), self.replacements.most if self.replacements else 0.0)
        failure = None
        for number, (task, pixels, failed) in enumerate(batches_of(self._workers), start=first):
            skipped.add(failed)
            if isinstance(pixels, Failure):
                failure = pixels
                break  # and raise out of the loop: the workers end with it, and not when the traceback is collected
            images = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
            chosen = to_device(task.indices, self.device)
            labels = self.labels.index_select(0, chosen)
            mix = None
            if self.augment is not None:
                images, mix = self.augment(images, labels, seed=seed, positions=task.positions)
            self._next_batch = number + 1
            if number + 1 == len(self):
                skipped.tell()  # not after it: a trainer that knows the length does not come back
            yield Batch(images, labels, chosen, mix)
        if failure is not None:
            raise DataError(self._told(failure, indices))

    def _told(self, failure: Failure, indices: np.ndarray) -> str:
        """Name an image that cannot be read, and what can be done where it stands."""
        labels = self.labels.cpu().numpy()
        others = np.unique(indices[labels[indices] == labels[failure.image]])
        why, more = "", ""
        if not self.train:
            why = "It is evaluated, so nothing can take its place. "
        elif self.replacements is not None or len(others) == 1:
            why = "No other image of its class could be read in its place. "
        else:
            more = "; trainer.on_error=skip takes another image of the class"
        return (
            f"image {failure.image}, {failure.path}, cannot be read: {failure.reason}. {why}"
            "Fetch the file again, or leave it out: ltr-data check finds all of them and writes the list for "
            f"dataset.exclude=FILE{more}"
        )


def _as_it_is(sample: Any) -> Any:
    return sample
