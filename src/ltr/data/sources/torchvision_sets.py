"""SVHN, Stanford Cars and FGVC-Aircraft, read by torchvision from the official files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ltr.configuration.ranges import check_option
from ltr.data.source import ImageFiles, Source, fixed_content
from ltr.data.sources.archives import Archive, download_by, fetch
from ltr.data.sources.checks import check_image_files, dataset_folder, refuse_empty, require, warn_if_partial
from ltr.errors import DataError
from ltr.identity import named

SVHN_PUBLISHED = {"train": 73_257, "test": 26_032}
CARS_PUBLISHED = {"train": 8_144, "test": 8_041, "classes": 196}
AIRCRAFT_PUBLISHED = {"train": 6_667, "test": 3_333, "classes": 100}
AIRCRAFT_ARCHIVE = Archive(
    "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
    "d4acdd33327262359767eeaa97a4f732",
    "fgvc-aircraft-2013b",
    max_bytes=8 * 2**30,
    max_files=50_000,
)
LEVELS = ("family", "manufacturer")
TrainPart = Literal["trainval", "train"]


@named("source/svhn")
@fixed_content
def svhn(*, root: str, download: bool = False) -> Source:
    """Read SVHN (Netzer et al. 2011) without ``extra``: 73,257 training and 26,032 test images, 32x32 RGB, 10 digits.

    Args:
        root: folder that holds ``train_32x32.mat`` and ``test_32x32.mat``.
        download: True downloads them (250 MB) if they are missing.

    Returns:
        Source with images [N, 32, 32, 3] and parts ``train``, ``test``, both in the files' order.

    Raises:
        DataError: files are missing, damaged (by md5), or could not be downloaded.
    """
    from torchvision.datasets import SVHN

    base = Path(root).expanduser().absolute()
    entries = {part: SVHN.split_list[part] for part in ("train", "test")}
    readers = []
    for part, (url, file, _) in entries.items():
        if download:
            download_by("svhn", url, base, lambda part=part: SVHN(str(base), split=part, download=True))  # type: ignore[misc]
        require("svhn", base, [file], f"add dataset.download=true; or put the official file there ({url})", holds=file)
        readers.append(_reader("svhn", base / file, lambda part=part: SVHN(str(base), split=part)))  # type: ignore[misc]
    num_train = len(readers[0].labels)
    labels = np.concatenate([reader.labels for reader in readers])
    parts = {"train": range(num_train), "test": range(num_train, len(labels))}
    warn_if_partial("svhn", parts, SVHN_PUBLISHED)
    images = np.concatenate([reader.data.transpose(0, 2, 3, 1) for reader in readers])
    return Source("svhn", images, labels, tuple(str(digit) for digit in range(10)), parts)


@named("source/cars")
def cars(*, root: str, roots: Sequence[str] = ()) -> Source:
    """Read Stanford Cars (Krause et al. 2013): 8,144 training and 8,041 test images of 196 models.

    Args:
        root: folder that holds ``stanford_cars`` in torchvision's layout: ``devkit/cars_meta.mat``,
            ``devkit/cars_train_annos.mat``, ``cars_test_annos_withlabels.mat``, ``cars_train/``, ``cars_test/``.
        roots: further folders that may contain image files and link targets.

    Returns:
        Source with `ImageFiles` and parts ``train``, ``test``.

    Raises:
        DataError: files are missing or damaged. ltr cannot download them: the official address no longer exists.
    """
    from torchvision.datasets import StanfordCars

    base = dataset_folder(root, "stanford_cars")
    annotations = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    wanted = ["devkit/cars_meta.mat", *annotations.values(), "cars_train", "cars_test"]
    require(
        "cars",
        base,
        wanted,
        "the official address no longer exists: get the files from another copy, as " + str(base),
        holds=base.name,
    )
    paths: list[str] = []
    labels: list[int] = []
    parts = {}
    for part, file in annotations.items():
        reader = _reader("cars", base / file, lambda part=part: StanfordCars(str(base.parent), split=part))  # type: ignore[misc]
        parts[part] = range(len(paths), len(paths) + len(reader._samples))
        paths += [str(Path(path).relative_to(base)) for path, _ in reader._samples]
        labels += [int(label) for _, label in reader._samples]
        names = tuple(str(name) for name in reader.classes)
    refuse_empty(
        "cars", np.array(labels[: parts["train"].stop], dtype=np.int64), names, str(base / annotations["train"])
    )
    warn_if_partial("cars", parts, CARS_PUBLISHED, len(names))
    files = check_image_files(
        "cars", ImageFiles.from_paths(base, paths), named_in=" and ".join(annotations), roots=roots
    )
    return Source("cars", files, np.array(labels, dtype=np.int64), names, parts)


@named("source/aircraft")
def aircraft(
    *, root: str, train_part: TrainPart = "trainval", roots: Sequence[str] = (), download: bool = False
) -> Source:
    """Read FGVC-Aircraft 2013b (Maji et al. 2013): 3,334, 3,333, 3,333 training, validation, test images, 100 variants.

    Args:
        root: folder that holds ``fgvc-aircraft-2013b``.
        train_part: ``trainval`` trains on training and validation images, as published results do; ``train`` keeps the
            validation images as the part ``val``.
        roots: further folders that may contain image files and link targets.
        download: True downloads the official archive (2.6 GB) if it is missing.

    Returns:
        Source with `ImageFiles` in the files' order, and the taxonomy ``family`` and ``manufacturer``.

    Raises:
        DataError: files are missing, damaged, or could not be downloaded.
    """
    from torchvision.datasets import FGVCAircraft

    check_option("dataset.train_part", train_part, TrainPart)
    base = dataset_folder(root, "fgvc-aircraft-2013b")
    if download:
        fetch("aircraft", AIRCRAFT_ARCHIVE, base.parent)
    official = (
        {"train": "trainval", "test": "test"} if train_part == "trainval" else {p: p for p in ("train", "val", "test")}
    )
    wanted = [f"data/images_{level}_{part}.txt" for level in ("variant", *LEVELS) for part in official.values()]
    lists = ["data/variants.txt", "data/families.txt", "data/manufacturers.txt"]
    instructions = f"add dataset.download=true; or unpack the official archive there ({AIRCRAFT_ARCHIVE.url})"
    require("aircraft", base, [*lists, *wanted, "data/images"], instructions, holds=base.name)

    def read(part: str, level: str) -> Any:
        file = base / "data" / f"images_{level}_{part}.txt"
        return _reader("aircraft", file, lambda: FGVCAircraft(str(base.parent), split=part, annotation_level=level))

    paths: list[str] = []
    labels: list[int] = []
    parts = {}
    for part, of_files in official.items():
        reader = read(of_files, "variant")
        parts[part] = range(len(paths), len(paths) + len(reader._image_files))
        paths += [str(Path(path).relative_to(base)) for path in reader._image_files]
        labels += reader._labels
    names = tuple(reader.classes)
    train_labels = labels[: parts["train"].stop]
    where = f"images_variant_{official['train']}.txt in {base / 'data'}"
    refuse_empty("aircraft", np.array(train_labels, dtype=np.int64), names, where)
    taxonomy = {level: _coarser_classes(read(official["train"], level), level, train_labels) for level in LEVELS}
    published = AIRCRAFT_PUBLISHED | {"train": 6_667 if train_part == "trainval" else 3_334}
    warn_if_partial("aircraft", parts, published, len(names))
    files = check_image_files(
        "aircraft", ImageFiles.from_paths(base, paths), named_in="images_variant_*.txt", roots=roots
    )
    return Source("aircraft", files, np.array(labels, dtype=np.int64), names, parts, taxonomy=taxonomy)


def _coarser_classes(reader: Any, level: str, labels: Sequence[int]) -> tuple[str, ...]:
    """Return the class of a coarser level for each variant, by its first training image."""
    if len(reader) != len(labels):
        raise DataError(
            f"aircraft: {len(labels)} training images have a variant, and {len(reader)} a {level}. Unpack the archive "
            "again"
        )
    coarse: dict[int, str] = {}
    for label, number in zip(labels, reader._labels):
        name = reader.classes[number]
        if coarse.setdefault(label, name) != name:
            raise DataError(
                f"aircraft: training images of one variant are of two classes of {level}, {coarse[label]} and {name}: "
                f"images_variant_*.txt and images_{level}_*.txt contradict each other. Unpack the archive again"
            )
    return tuple(coarse[label] for label in range(len(coarse)))


def _reader(name: str, file: Path, make: Callable[[], Any]) -> Any:
    """Build torchvision's reader; convert any error for a damaged file to a DataError."""
    try:
        return make()
    except Exception as error:
        raise DataError(
            f"{name}: {file} is damaged or only half downloaded ({file.stat().st_size:,} bytes): {error!r}. Delete it "
            "and fetch it again"
        ) from error
