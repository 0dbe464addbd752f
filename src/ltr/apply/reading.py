"""Batches of image files for prediction: read as in evaluation, but unreadable files are listed, not errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ltr.apply.model import Model
from ltr.data.images.decode import Notes
from ltr.data.images.tally import Tally
from ltr.data.loaders.readers import iterate_batches
from ltr.data.source import ImageFiles
from ltr.errors import DataError, TrainingError


class UnreadableImage(NamedTuple):
    """Image that cannot be read: its index and path in the pool, and the reason."""

    position: int
    path: str
    reason: str


class PoolBatch(NamedTuple):
    """Batch of a pool.

    Attributes:
        indices: int64 [B], pool indices of the readable images.
        images: uint8 [B, C, H, W] in channels_last memory, on the device; or stored features float32, [B, D],
            or of maps and tokens [B, N, D].
        broken: the unreadable images.
    """

    indices: np.ndarray
    images: Tensor
    broken: list[UnreadableImage]


def batches(
    files: ImageFiles,
    model: Model,
    indices: np.ndarray | None = None,
    tally: Tally | None = None,
    tasks: Sequence[np.ndarray] | None = None,
) -> Iterator[PoolBatch]:
    """Yield the images of a pool in order, cropped as in the run's evaluation.

    Args:
        indices: int64 [n], pool indices to read; None: all.
        tally: counter of remarks on the images.
        tasks: the indices of each batch, instead of ``indices`` in batches of the model's size.
    """
    if tasks is None:
        chosen = np.arange(len(files)) if indices is None else indices
        size = model.batch_size
        tasks = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    loader = DataLoader(
        _Files(files, model),
        batch_size=None,
        sampler=tasks,
        num_workers=min(model.workers, len(tasks)) if len(tasks) > 1 else 0,
        collate_fn=_keep,
        pin_memory=model.device.type == "cuda",
        generator=torch.Generator(),  # without it, the loader uses the global generator
    )
    for read, pixels, broken, notes in iterate_batches(loader):
        if tally is not None:
            for path, remarks in notes:
                tally.add(path, remarks)
        images = pixels.to(model.device, non_blocking=True).permute(0, 3, 1, 2)
        yield PoolBatch(read, images, [UnreadableImage(*row) for row in broken])


def check_readable(broken: Sequence[UnreadableImage], images: int) -> None:
    """Raise DataError if none of a pool's images can be read."""
    if len(broken) == images:
        raise DataError(
            f"not one of the {images:,} images can be read; the first: {broken[0].path}: {broken[0].reason}. Check the "
            "files, or give other images"
        )


def check_finite(probabilities: np.ndarray) -> None:
    """Raise TrainingError if a probability is not finite."""
    if not np.isfinite(probabilities).all():
        raise TrainingError(
            "the network's scores are not finite: its weights have diverged or are damaged. Use another checkpoint"
        )


ReadPool = Callable[[np.ndarray, Tally], Iterator[PoolBatch]]  # yields the batches of some indices, in order

_Batch = tuple[np.ndarray, Tensor, list[tuple[int, str, str]], list[tuple[str, Notes]]]
_NO_NOTES = Notes()


class _Files(Dataset):
    """Dataset that maps pool indices to pixels; it does not refer to the network, because workers hold copies of it."""

    def __init__(self, files: ImageFiles, model: Model) -> None:
        self.files = files
        self.crop = model.crop
        self.decoding = model.decoding_of(files)
        self.channels = model.channels

    def __getitem__(self, indices: np.ndarray) -> _Batch:
        side = self.crop.size
        pixels = np.empty((len(indices), side, side, self.channels), dtype=np.uint8)
        read: list[int] = []
        broken, notes = [], []
        with warnings.catch_warnings():
            # Pillow warns at half of its limit, which only the limit itself enforces
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            for index in indices.tolist():
                try:
                    remarks = Notes()
                    pixels[len(read)] = self._one(index, remarks)
                    read.append(index)
                    if remarks != _NO_NOTES:
                        notes.append((self.files.relative(index), remarks))
                except Exception as error:  # decoders raise errors of many types for damaged files
                    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                    broken.append((index, self.files.relative(index), reason))
        return np.array(read, dtype=np.int64), torch.from_numpy(pixels[: len(read)]), broken, notes

    def _one(self, index: int, notes: Notes) -> np.ndarray:
        rgb = self.crop.read(self.files.open(index), None, self.decoding, notes=notes)
        if self.channels == 3:
            return rgb
        return np.asarray(Image.fromarray(rgb).convert("L"))[..., None]


def _keep(sample: Sequence[object]) -> Sequence[object]:
    return sample
