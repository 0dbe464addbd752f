"""MNIST (LeCun et al. 1998), read by torchvision from the official idx files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.source import Source
from ltr.errors import DataError
from ltr.identity import named


@named("source/mnist")
def mnist(*, root: str, download: bool = False) -> Source:
    """Read MNIST: 60,000 training and 10,000 test images, 28x28 grey, 10 classes.

    Args:
        root: folder that holds ``MNIST/raw`` with the four unpacked idx files.
        download: True downloads the files into ``root`` if they are missing.

    Returns:
        Source with images [70000, 28, 28, 1] and parts ``train``, ``test``, both in the files' order.

    Raises:
        DataError: files are missing, damaged, or could not be downloaded.
    """
    from torchvision.datasets import MNIST

    base = Path(root).expanduser().absolute()
    folder = base / "MNIST" / "raw"
    files = [Path(resource).stem for resource, _ in MNIST.resources]
    if download:
        _download(MNIST, base, folder)
    _check_present(folder, files)
    for file in files:
        _check_length(folder / file)
    train, test = _read_part(MNIST, base, folder, "train"), _read_part(MNIST, base, folder, "test")
    num_train = len(train.targets)
    return Source(
        name="mnist",
        images=np.concatenate([train.data.numpy(), test.data.numpy()])[..., None],
        labels=np.concatenate([train.targets.numpy(), test.targets.numpy()]),
        class_names=tuple(str(digit) for digit in range(10)),
        parts={"train": range(num_train), "test": range(num_train, num_train + len(test.targets))},
    )


def _read_part(reader: Any, base: Path, folder: Path, part: str) -> Any:
    try:
        return reader(root=str(base), train=part == "train")
    except Exception as error:  # torchvision checks these files by assertions, key look-ups and tensor shapes
        raise DataError(f"mnist: the {part} files in {folder} cannot be read: {error!r}. {_REFETCH}") from error


def _download(reader: Any, base: Path, folder: Path) -> None:
    try:
        base.mkdir(parents=True, exist_ok=True)
        reader(root=str(base), train=False, download=True)
    except Exception as error:  # network, disk and archive errors have many types, but the advice is the same
        raise DataError(
            f"mnist could not be downloaded to {base}: {error}. Try again, or put the four official files, unpacked, "
            f"into {folder} yourself and leave dataset.download=false"
        ) from error


def _check_present(folder: Path, files: list[str]) -> None:
    missing = [file for file in files if not (folder / file).is_file()]
    if not missing:
        return
    reason = f"it lacks {', '.join(missing)}" if folder.is_dir() else "there is no such folder"
    raise DataError(
        f"mnist was not found: looked for {', '.join(files)} (unpacked, without .gz) in {folder}, but {reason}.\n"
        "What to do: add dataset.download=true; or say where the data are, by paths.data=FOLDER or the environment "
        "variable LTR_DATA (the folder that holds MNIST/raw); or put the official files there"
    )


def _check_length(file: Path) -> None:
    """Check the length of an idx file against its header: 2 zero bytes, type 8 (uint8), rank, 4 bytes per size."""
    with file.open("rb") as stream:
        head = stream.read(16)
    rank = head[3] if head[:3] == b"\0\0\x08" and len(head) > 3 else 0
    sizes = [int.from_bytes(head[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(rank)]
    expected = 4 + 4 * rank + math.prod(sizes)
    actual = file.stat().st_size
    if rank not in (1, 3) or actual != expected:
        expectation = f"{expected:,} by its header" if rank in (1, 3) else "the header of an idx file"
        raise DataError(
            f"mnist: {file} is damaged or only half downloaded ({actual:,} bytes; expected {expectation}). {_REFETCH}"
        )


_REFETCH = "Delete it and run again with dataset.download=true, or copy the official file there"
