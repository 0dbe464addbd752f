"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), read by torchvision from the official python files."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.source import Source, fixed_content
from ltr.data.sources.archives import download_by
from ltr.data.sources.checks import require
from ltr.errors import DataError
from ltr.identity import named

OFFICIAL_IMAGES = 60_000


@named("source/cifar10")
@fixed_content
def cifar10(*, root: str, download: bool = False) -> Source:
    """Read CIFAR-10: 50,000 training and 10,000 test images, 32x32 RGB, 10 classes.

    Args:
        root: folder that holds ``cifar-10-batches-py``.
        download: True downloads the official archive into ``root`` if the files are missing.

    Returns:
        Source with images [60000, 32, 32, 3] and parts ``train``, ``test``, both in torchvision's order.

    Raises:
        DataError: files are missing, damaged, or could not be downloaded.
    """
    from torchvision.datasets import CIFAR10

    return _read("cifar10", CIFAR10, root, download)


@named("source/cifar100")
@fixed_content
def cifar100(*, root: str, download: bool = False) -> Source:
    """Read CIFAR-100 with its 100 fine labels: 50,000 training and 10,000 test images, 32x32 RGB.

    Return value and errors are those of `cifar10`. The 20 coarse labels are the taxonomy ``supercategory``.

    Args:
        root: folder that holds ``cifar-100-python``.
        download: see `cifar10`.
    """
    from torchvision.datasets import CIFAR100

    source = _read("cifar100", CIFAR100, root, download)
    folder = Path(root).expanduser().absolute() / CIFAR100.base_folder
    return replace(source, taxonomy={"supercategory": _superclasses(folder, source.class_names)})


def _read(name: str, reader: Any, root: str, download: bool) -> Source:
    folder = Path(root).expanduser().absolute() / reader.base_folder
    if download:
        download_by(name, reader.url, folder.parent, lambda: reader(str(folder.parent), train=False, download=True))
    files = [file for file, _ in reader.train_list + reader.test_list] + [reader.meta["filename"]]
    instructions = f"add dataset.download=true; or unpack the official archive there ({reader.url})"
    require(name, folder, files, instructions, holds=folder.name)

    # one array for all parts, filled file by file; unwritten memory is not allocated
    images = np.empty((OFFICIAL_IMAGES, 32, 32, 3), dtype=np.uint8)
    labels: list[int] = []
    parts: dict[str, range] = {}
    class_names: list[str] = []
    for part, entries in (("train", reader.train_list), ("test", reader.test_list)):
        start = len(labels)
        for entry in entries:
            batch = _read_file(name, reader, folder, entry)
            images[len(labels) : len(labels) + len(batch.targets)] = batch.data
            labels += batch.targets
            class_names = batch.classes
        parts[part] = range(start, len(labels))
    return Source(name, images[: len(labels)], np.array(labels, np.int64), tuple(class_names), parts)


def _read_file(name: str, reader: Any, folder: Path, entry: list[str]) -> Any:
    """Read one official file by torchvision's reader, which checks its md5."""
    one_file = type(reader.__name__, (reader,), {"train_list": [entry], "test_list": []})
    try:
        return one_file(root=str(folder.parent), train=True)
    except OSError as error:
        raise DataError(f"{name}: a file in {folder} cannot be read: {error}") from error
    except (RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as error:
        raise DataError(_damaged(name, reader, folder, entry)) from error


def _superclasses(folder: Path, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the superclass of each class of CIFAR-100 from the test file, which has both labels of every image.

    `_read` has verified both files by their md5, so that unpickling them is safe.
    """
    with open(folder / "test", "rb") as test, open(folder / "meta", "rb") as meta:
        labels, names = pickle.load(test, encoding="latin1"), pickle.load(meta, encoding="latin1")
    pairs = sorted(set(zip(labels["fine_labels"], labels["coarse_labels"])))
    if [fine for fine, _ in pairs] != list(range(len(class_names))):
        raise DataError(
            f"cifar100: {folder / 'test'} does not give each of {len(class_names)} classes one superclass. Delete the "
            "folder and run again with dataset.download=true"
        )
    return tuple(names["coarse_label_names"][coarse] for _, coarse in pairs)


def _damaged(name: str, reader: Any, folder: Path, entry: list[str]) -> str:
    """Return a message that names the damaged one of two files: the batch, or the class names."""
    from torchvision.datasets.utils import check_integrity

    names_are_good = check_integrity(folder / reader.meta["filename"], reader.meta["md5"])
    file = folder / (entry[0] if names_are_good else reader.meta["filename"])
    return (
        f"{name}: {file} is damaged or only half downloaded ({file.stat().st_size:,} bytes, and its md5 is not the "
        "official one). Delete it and run again with dataset.download=true, or copy the official file there"
    )
