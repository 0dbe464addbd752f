"""iNaturalist 2017, 2018, 2019 and 2021, from the official annotation files (https://github.com/visipedia/inat_comp)."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ltr.data.annotations.records import Paths
from ltr.data.source import Source
from ltr.data.sources.archives import Archive, fetch
from ltr.data.sources.checks import (
    check_image_files,
    dataset_folder,
    refuse_empty,
    require,
    require_same_names,
    warn_if_partial,
)
from ltr.data.sources.json_arrays import read_arrays
from ltr.errors import DataError
from ltr.identity import named
from ltr.names import canonical, list_first, unique_names

BUCKET = "https://ml-inat-competition-datasets.s3.amazonaws.com/"
RANKS = ("supercategory", "kingdom", "phylum", "class", "order", "family", "genus", "common_name")


def _image_archive(path: str, md5: str, holds: str) -> Archive:
    return Archive(BUCKET + path, md5, holds, max_bytes=400 * 2**30, max_files=4_000_000)


@dataclass(frozen=True)
class Version:
    """Data set of one year: name, annotation files of train and validation, archives, published counts."""

    name: str
    train: str
    val: str
    archives: tuple[Archive, ...]
    published: dict[str, int]


VERSIONS = {
    "2017": Version(
        "inat17",
        "train2017.json",
        "val2017.json",
        (
            Archive(BUCKET + "2017/train_val2017.zip", None, "train2017.json"),
            _image_archive("2017/train_val_images.tar.gz", "7c784ea5e424efaec655bd392f87301f", "train_val_images"),
        ),
        {"train": 579_184, "test": 95_986, "classes": 5_089},
    ),
    "2018": Version(
        "inat18",
        "train2018.json",
        "val2018.json",
        (
            Archive(BUCKET + "2018/train2018.json.tar.gz", "bfa29d89d629cbf04d826a720c0a68b0", "train2018.json"),
            Archive(BUCKET + "2018/val2018.json.tar.gz", "f2ed8bfe3e9901cdefceb4e53cd3775d", "val2018.json"),
            _image_archive("2018/train_val2018.tar.gz", "b1c6952ce38f31868cc50ea72d066cc3", "train_val2018"),
        ),
        {"train": 437_513, "test": 24_426, "classes": 8_142},
    ),
    "2019": Version(
        "inat19",
        "train2019.json",
        "val2019.json",
        (
            Archive(BUCKET + "2019/train2019.json.tar.gz", "b06a6683537867c0d5c7a45f407a306d", "train2019.json"),
            Archive(BUCKET + "2019/val2019.json.tar.gz", "5cc5509b0fe495f1c8c1362612448497", "val2019.json"),
            _image_archive("2019/train_val2019.tar.gz", "c60a6e2962c9b8ccbd458d12c8582644", "train_val2019"),
        ),
        {"classes": 1_010},  # of the images only the total of both parts, 268,243, is published
    ),
    "2021": Version(
        "inat21",
        "train.json",
        "val.json",
        (
            Archive(BUCKET + "2021/train.json.tar.gz", "38a7bb733f7a09214d44293460ec0021", "train.json"),
            Archive(BUCKET + "2021/val.json.tar.gz", "4d761e0f6a86cc63e8f7afc91f6a8f0b", "val.json"),
            _image_archive("2021/train.tar.gz", "e0526d53c7f7b2e3167b2b43bb2690ed", "train"),
            _image_archive("2021/val.tar.gz", "f6f6e0e242e3d4c9569ba56400938afc", "val"),
        ),
        {"train": 2_686_843, "test": 100_000, "classes": 10_000},
    ),
    "2021_mini": Version(
        "inat21_mini",
        "train_mini.json",
        "val.json",
        (
            Archive(BUCKET + "2021/train_mini.json.tar.gz", "395a35be3651d86dc3b0d365b8ea5f92", "train_mini.json"),
            Archive(BUCKET + "2021/val.json.tar.gz", "4d761e0f6a86cc63e8f7afc91f6a8f0b", "val.json"),
            _image_archive("2021/train_mini.tar.gz", "db6ed8330e634445efc8fec83ae81442", "train_mini"),
            _image_archive("2021/val.tar.gz", "f6f6e0e242e3d4c9569ba56400938afc", "val"),
        ),
        {"train": 500_000, "test": 100_000, "classes": 10_000},
    ),
}


@named("source/inaturalist")
def inaturalist(
    *,
    root: str,
    version: Literal["2017", "2018", "2019", "2021", "2021_mini"],
    folder: str,
    roots: Sequence[str] = (),
    download: bool = False,
) -> Source:
    """Read iNaturalist of one year. **The part ``test`` has the official validation images**; test labels are secret.

    Images and labels are joined on ``image_id``. Labels number the category ids of the file in ascending order;
    ``class_ids`` has the ids, to which published lists for 2017 refer. 2018 and 2019 hide the class names;
    ``categories.json`` in the folder of the annotations restores them. A name that several categories have is followed
    by their ids, as in ``Iris (id 0)``.

    Args:
        root: folder that relative ``folder`` starts from.
        version: year of the data set; ``2021_mini`` has 50 training images per class.
        folder: in ``root``, or an absolute path; holds the annotation files and the image folders that they name
            (``train_val2018/...``).
        roots: further folders that may contain image files and link targets.
        download: True downloads missing archives (50 to 230 GB), except for the annotations of 2017, which have no
            published checksum.

    Returns:
        Source with `ImageFiles` in the order of the annotation files, parts ``train`` and ``test``, and the taxonomy
        that the files give (``supercategory``, ``kingdom`` ... ``genus``, ``common_name``).

    Raises:
        DataError: files are missing or truncated, contradict each other, or could not be downloaded.
    """
    about = VERSIONS[version]
    base = dataset_folder(root, folder)
    if download:
        for archive in about.archives:
            if not (base / _locate(base, archive.holds)).exists():
                fetch(about.name, archive, base)
    train, val = _locate(base, about.train), _locate(base, about.val)
    require(about.name, base, [train, val], f"add dataset.download=true; or unpack {_urls(about)} there")

    images = _Images()
    names: dict[int, dict[str, Any]] = {}
    parts: dict[str, range] = {}
    labels: list[np.ndarray] = []
    for part, file in (("train", train), ("test", val)):
        before = len(images.ids)
        categories = _Categories()
        annotations = _Annotations()
        handlers = {"images": images.add, "annotations": annotations.add, "categories": categories.add}
        read_arrays(about.name, base / file, handlers)
        if names and categories.by_id.keys() != names.keys():
            raise DataError(
                f"{about.name}: {base / train} and {base / val} have different categories "
                f"({len(names):,} and {len(categories.by_id):,}). Both must be of the same year"
            )
        require_same_names(about.name, base / train, _names(names), base / file, _names(categories.by_id))
        names = names or categories.by_id
        class_ids = np.array(sorted(names), dtype=np.int64)
        ids = np.array(images.ids, dtype=np.int64)[before:]
        labels.append(_join_labels(f"{about.name}: {base / file}", ids, annotations, class_ids))
        parts[part] = range(before, len(images.ids))

    names.update(_real_categories(about.name, base / "categories.json", base / train, names))
    refuse_empty(about.name, labels[0], class_ids.tolist(), f"{base / train}, by category id")
    files = check_image_files(about.name, images.paths.files(str(base)), named_in=f"{train} and {val}", roots=roots)
    classes = [names[int(number)] for number in class_ids]
    warn_if_partial(about.name, parts, about.published, len(classes))
    return Source(
        about.name,
        files,
        np.concatenate(labels),
        unique_names([str(entry["name"]) for entry in classes], class_ids.tolist()),
        parts,
        class_ids=class_ids,
        taxonomy={r: tuple(str(entry[r]) for entry in classes) for r in RANKS if all(r in entry for entry in classes)},
    )


@dataclass
class _Images:
    """Packed ids and paths of the images."""

    ids: array = field(default_factory=lambda: array("q"))
    paths: Paths = field(default_factory=Paths)

    def add(self, image: dict[str, Any]) -> None:
        self.ids.append(image["id"])
        self.paths.add(image["file_name"])


@dataclass
class _Annotations:
    """Packed pairs of image and category."""

    images: array = field(default_factory=lambda: array("q"))
    categories: array = field(default_factory=lambda: array("q"))

    def add(self, annotation: dict[str, Any]) -> None:
        self.images.append(annotation["image_id"])
        self.categories.append(annotation["category_id"])


@dataclass
class _Categories:
    by_id: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, category: dict[str, Any]) -> None:
        if category["id"] in self.by_id:
            raise ValueError(f"category id {category['id']} appears twice")
        self.by_id[int(category["id"])] = {key: category[key] for key in ("name", *RANKS) if key in category}
        if not isinstance(category["name"], (str, int)):  # some years replace names by numbers
            raise ValueError(f"the name of category {category['id']} is {category['name']!r}, not a text")


def _join_labels(what: str, ids: np.ndarray, annotations: _Annotations, class_ids: np.ndarray) -> np.ndarray:
    """Join images and annotations on the image id; return labels int64 [images]."""
    images = np.array(annotations.images, dtype=np.int64)
    categories = np.array(annotations.categories, dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]
    twice = ascending[1:][ascending[1:] == ascending[:-1]]
    if twice.size:
        raise DataError(f"{what} has images of the same id: {list_first(np.unique(twice).tolist())}. Fetch it again")
    rows = _find_positions(ascending, images)
    if (rows < 0).any():
        unknown = images[rows < 0].tolist()
        raise DataError(f"{what} has annotations of images that it does not list, by image_id: {list_first(unknown)}")
    rows = order[rows]
    times = np.bincount(rows, minlength=len(ids))
    for wrong, words in ((times == 0, "no annotation"), (times > 1, "more than one annotation")):
        if wrong.any():
            raise DataError(f"{what}: images with {words}, by id: {list_first(ids[wrong].tolist())}. Fetch it again")
    classes = _find_positions(class_ids, categories)
    if (classes < 0).any():
        unknown = np.unique(categories[classes < 0]).tolist()
        raise DataError(f"{what} has annotations of categories that it does not list, by id: {list_first(unknown)}")
    labels = np.empty(len(ids), dtype=np.int64)
    labels[rows] = classes
    return labels


def _find_positions(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the position of each value in ``ascending``, or -1."""
    positions = np.searchsorted(ascending, values)
    positions[positions == len(ascending)] = 0
    is_present = ascending[positions] == values if len(ascending) else np.zeros(len(values), dtype=bool)
    return np.where(is_present, positions, -1)


def _real_categories(
    name: str, file: Path, train: Path, hidden: dict[int, dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Read the categories of ``categories.json``, a list; {} if there is no such file.

    Args:
        train, hidden: annotation file, and its categories.
    """
    import json

    if not file.is_file():
        return {}
    categories = _Categories()
    try:
        for category in json.loads(file.read_text(encoding="utf-8")):
            categories.add(category)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{name}: {file} cannot be read as a list of categories: {error!r}. Fetch it again") from error
    if categories.by_id.keys() != hidden.keys():
        raise DataError(f"{name}: {file} has other category ids than the annotation files. It must be of the same year")
    # the placeholders of hidden names differ from all real names; a real name must have the same id in both files
    ids_of: dict[str, set[int]] = {}
    for number, real in _names(categories.by_id).items():
        ids_of.setdefault(canonical(real), set()).add(number)
    moved = {
        n: hidden_name for n, hidden_name in _names(hidden).items() if n not in ids_of.get(canonical(hidden_name), {n})
    }
    require_same_names(name, file, _names(categories.by_id), train, moved)
    return categories.by_id


def _names(categories: Mapping[int, Mapping[str, Any]]) -> dict[int, str]:
    return {number: str(category["name"]) for number, category in categories.items()}


def _locate(base: Path, file: str) -> str:
    """Return ``file``, or its path in 2017's archive."""
    inner = "train_val2017/" + file
    return inner if not (base / file).is_file() and (base / inner).is_file() else file


def _urls(about: Version) -> str:
    return ", ".join(archive.url for archive in about.archives)
