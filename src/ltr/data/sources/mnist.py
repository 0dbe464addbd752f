"""MNIST (LeCun et al. 1998), read by torchvision from the official idx files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from ltr.data.source import Source
from ltr.data.sources.archives import download_by
from ltr.data.sources.checks import require
from ltr.errors import DataError
from ltr.identity import named


@named("source/mnist")
def mnist(*, root: str, download: bool = False, rgb: bool = False) -> Source:
    """Read MNIST: 60,000 training and 10,000 test images, 28x28 grey, 10 classes.

    Args:
        root: folder that holds ``MNIST/raw`` with the four unpacked idx files.
        download: True downloads the files into ``root`` if they are missing.
        rgb: True repeats the grey channel three times, as the code of ARPL (Chen et al., TPAMI 2021) does.

    Returns:
        Source with images [70000, 28, 28, 1] (3 channels with ``rgb``) and parts ``train``, ``test``, both in the
        files' order.

    Raises:
        DataError: files are missing, damaged, or could not be downloaded.
    """
    from torchvision.datasets import MNIST
    from torchvision.datasets.mnist import read_image_file, read_label_file

    base = Path(root).expanduser().absolute()
    folder = base / "MNIST" / "raw"
    if download:
        download_by("mnist", MNIST.mirrors[0], folder, lambda: MNIST(str(base), download=True))
    files = [Path(resource).stem for resource, _ in MNIST.resources]
    require(
        "mnist",
        folder,
        files,
        "add dataset.download=true; or put the official, unpacked files there",
        holds="MNIST/raw",
    )
    train_images, test_images = (_read(folder / file, read_image_file) for file in files[::2])
    train_labels, test_labels = (_read(folder / file, read_label_file) for file in files[1::2])
    num_train = len(train_labels)
    images = np.concatenate([train_images, test_images])[..., None]
    return Source(
        name="mnist",
        images=np.repeat(images, 3, axis=3) if rgb else images,
        labels=np.concatenate([train_labels, test_labels]),
        class_names=tuple(str(digit) for digit in range(10)),
        parts={"train": range(num_train), "test": range(num_train, num_train + len(test_labels))},
    )


def _read(file: Path, read: Callable[[str], Tensor]) -> np.ndarray:
    try:
        return read(str(file)).numpy()
    except Exception as error:  # torchvision checks these files by assertions, key look-ups and tensor shapes
        raise DataError(
            f"mnist: {file} is damaged or only half downloaded ({file.stat().st_size:,} bytes): {error!r}. Delete it "
            "and run again with dataset.download=true, or copy the official file there"
        ) from error
