"""CUB-200-2011 (Wah et al. 2011) and NABirds (Van Horn et al., CVPR 2015): one layout of text files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ltr.data.source import ImageFiles, Source
from ltr.data.sources.archives import Archive, fetch
from ltr.data.sources.checks import (
    check_image_files,
    dataset_folder,
    read_mapping,
    read_table,
    refuse_empty,
    require,
    require_same_ids,
    to_number,
    warn_if_partial,
)
from ltr.errors import DataError
from ltr.identity import named
from ltr.names import canonical, list_first, unique_names

CUB_ARCHIVE = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
    "97eceeb196236b17998738112f37df78",
    "CUB_200_2011",
    max_bytes=8 * 2**30,
    max_files=100_000,
)
CUB_PUBLISHED = {"train": 5_994, "test": 5_794, "classes": 200}
NABIRDS_PUBLISHED = {"train": 23_929, "test": 24_633, "classes": 555}
FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "bounding_boxes.txt", "images")


@named("source/cub")
def cub(*, root: str, folder: str = "CUB_200_2011", roots: Sequence[str] = (), download: bool = False) -> Source:
    """Read CUB-200-2011: 5,994 training and 5,794 test images of 200 birds, without official validation images.

    Args:
        root: folder that relative ``folder`` starts from.
        folder: in ``root``, or an absolute path; holds ``images.txt``, ``image_class_labels.txt``,
            ``train_test_split.txt``, ``classes.txt``, ``bounding_boxes.txt`` and ``images/``.
        roots: further folders that may contain image files and link targets.
        download: True downloads the official archive (1.1 GB) if ``folder`` does not exist.

    Returns:
        Source with `ImageFiles`, parts ``train`` and ``test`` (each in the order of ``images.txt``), ``boxes``, and the
        files' class numbers 1..200 as ``class_ids``.

    Raises:
        DataError: files are missing, contradict each other, or could not be downloaded.
    """
    base = dataset_folder(root, folder)
    if download and not base.exists():
        fetch("cub", CUB_ARCHIVE, base.parent)
    instructions = f"add dataset.download=true; or unpack the official archive there ({CUB_ARCHIVE.url})"
    return _read("cub", base, roots, instructions, CUB_PUBLISHED)


@named("source/nabirds")
def nabirds(*, root: str, folder: str = "nabirds", roots: Sequence[str] = ()) -> Source:
    """Read NABirds: 23,929 training and 24,633 test images of 555 visual categories of birds.

    The class ids of the files are sparse, because they number a hierarchy of about a thousand nodes. Labels number the
    ids that occur in ascending order; ``class_ids`` has the ids. If ``hierarchy.txt`` exists, ``taxonomy`` has
    ``level1`` (below the root), ``level2`` and so on; below its own level, a class is its own ancestor.

    Args:
        root: folder that relative ``folder`` starts from.
        folder: in ``root``, or an absolute path; holds the same files as for `cub`, and ``hierarchy.txt``.
        roots: further folders that may contain image files and link targets.

    Returns:
        Source as in `cub`.

    Raises:
        DataError: files are missing or contradict each other. ltr cannot download them: the owners require a form.
    """
    base = dataset_folder(root, folder)
    instructions = f"ask for the archive at https://dl.allaboutbirds.org/nabirds and unpack it as {base}"
    return _read("nabirds", base, roots, instructions, NABIRDS_PUBLISHED)


def _read(name: str, base: Path, roots: Sequence[str], instructions: str, published: Mapping[str, int]) -> Source:
    require(name, base, FILES, instructions)
    paths = read_mapping(name, base / "images.txt", ("image_id", "path"))
    flags = _of_images(name, base, paths, "train_test_split.txt", "is_training")
    wrong = [f"{flag!r} of image {image}" for image, flag in flags.items() if flag not in ("0", "1")]
    if wrong:
        raise DataError(f"{name}: {base / 'train_test_split.txt'} may hold 0 and 1 only, not {list_first(wrong)}")
    class_of = _of_images(name, base, paths, "image_class_labels.txt", "class_id")
    names = read_mapping(name, base / "classes.txt", ("class_id", "class_name"))

    used = dict.fromkeys(class_of.values())
    unnamed = [number for number in used if number not in names]
    if unnamed:
        raise DataError(f"{name}: {base / 'classes.txt'} lacks the classes {list_first(unnamed)}, which images have")
    known = names if name == "cub" else used  # NABirds also names the inner nodes of its hierarchy
    class_ids = sorted(to_number(name, f"a class id in {base / 'classes.txt'}", number) for number in known)
    label_of = {str(number): label for label, number in enumerate(class_ids)}
    _refuse_contradictions(name, base, paths, class_of, names)

    train = [image for image in paths if flags[image] == "1"]
    order = train + [image for image in paths if flags[image] == "0"]
    labels = np.array([label_of[class_of[image]] for image in order], dtype=np.int64)
    refuse_empty(name, labels[: len(train)], class_ids, f"{base / 'train_test_split.txt'}, by class_id")
    files = ImageFiles.from_paths(base, ("images/" + paths[image] for image in order))
    parts = {"train": range(len(train)), "test": range(len(train), len(order))}
    warn_if_partial(name, parts, published, len(class_ids))
    return Source(
        name,
        check_image_files(name, files, named_in=str(base / "images.txt"), roots=roots),
        labels,
        unique_names([_plain(names[str(number)]) for number in class_ids], class_ids),
        parts,
        class_ids=np.array(class_ids, dtype=np.int64),
        taxonomy=_taxonomy(name, base, names, class_ids),
        boxes=_boxes(name, base, paths, order),
    )


def _refuse_contradictions(
    name: str, base: Path, paths: Mapping[str, str], class_of: Mapping[str, str], names: Mapping[str, str]
) -> None:
    """Raise DataError if a class name or a folder contradicts its class id.

    CUB's class names begin with their ids (``001.Black_footed_Albatross``) and name the folders of its images; NABirds'
    folders are named by the ids (``0817``).
    """
    contradictions = [
        f"class {number} is called {class_name}"
        for number, class_name in names.items()
        if "." in class_name and _number_of(class_name) not in (None, number)
    ]
    for image, path in paths.items():
        folder, number = path.rpartition("/")[0].rpartition("/")[2], class_of[image]
        folder_id = _number_of(folder)
        is_named = folder_id is not None and "." in folder and "." in names[number]
        if folder_id not in (None, number) or (is_named and canonical(folder) != canonical(names[number])):
            contradictions.append(f"{path} has class {number}, {names[number]}")
    if contradictions:
        raise DataError(
            f"{name}: images.txt, image_class_labels.txt and classes.txt in {base} contradict each other: "
            f"{list_first(contradictions)}. Fetch them again"
        )


def _number_of(name: str) -> str | None:
    """Return the id at the beginning of a class or folder name, without leading zeros; None without an id."""
    number = name.partition(".")[0]
    return str(int(number)) if number.isascii() and number.isdecimal() else None


def _of_images(name: str, base: Path, paths: Mapping[str, str], file: str, column: str) -> dict[str, str]:
    """Read a file with one value per image, by image id."""
    values = read_mapping(name, base / file, ("image_id", column))
    require_same_ids(name, base / "images.txt", paths, base / file, values)
    return values


def _plain(name: str) -> str:
    """Return ``001.Black_footed_Albatross`` as ``Black footed Albatross``."""
    number, dot, rest = name.partition(".")
    return (rest if dot and number.isdigit() else name).replace("_", " ")


def _boxes(name: str, base: Path, paths: Mapping[str, str], order: Sequence[str]) -> np.ndarray:
    file = base / "bounding_boxes.txt"
    rows = read_table(name, file, ("image_id", "left", "top", "width", "height"))
    box_of = {row[0]: row[1:] for row in rows}
    require_same_ids(name, base / "images.txt", paths, file, box_of)
    try:
        return np.array([box_of[image] for image in order], dtype=np.float32).reshape(-1, 4)
    except ValueError as error:
        raise DataError(f"{name}: {file} has values that are not numbers: {error}. Fetch it again") from error


def _taxonomy(name: str, base: Path, names: Mapping[str, str], class_ids: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """Read the ancestors of each class from ``hierarchy.txt`` (lines ``child parent``), top level first."""
    file = base / "hierarchy.txt"
    if not file.is_file():
        return {}
    parent_of = read_mapping(name, file, ("child", "parent"))
    lines = []
    for number in class_ids:
        line = [str(number)]
        while line[-1] in parent_of:
            if len(line) > len(parent_of):
                raise DataError(f"{name}: {file} has a cycle at class {number}. Fetch it again")
            line.append(parent_of[line[-1]])
        lines.append(line[-2::-1])  # without the root, which all classes share
    depth = max(map(len, lines), default=0)
    return {
        f"level{level + 1}": tuple(names.get(line[min(level, len(line) - 1)], "?") for line in lines)
        for level in range(depth - 1)
        if all(lines)
    }
