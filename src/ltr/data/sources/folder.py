"""Custom images in one folder per class, with or without folders for train, val and test."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltr.configuration.ranges import NonNegativeInt, ProperFraction
from ltr.data.images.decode import WhiteLevel, build_decoding
from ltr.data.label_warnings import warn_of_groups
from ltr.data.part_names import are_only_parts, are_parts, are_parts_of_classes, role_of
from ltr.data.source import Grouping, ImageFiles, Source
from ltr.data.sources.checks import name_roots
from ltr.data.sources.custom_groups import check_groups, check_path_group, groups_of_paths
from ltr.data.sources.division import warn_of_untested
from ltr.data.sources.part_division import PARTS, divide_by_groups
from ltr.data.sources.same_files import ListedFiles, no_position
from ltr.errors import DataError, nearest
from ltr.files import is_file, is_folder
from ltr.identity import named
from ltr.names import canonical, counted, list_first

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# endings of files that usually lie beside images; a file with any other ending may be an image that cannot be read
_COMPANIONS = (
    ".txt", ".md", ".rst", ".rtf", ".pdf", ".doc", ".docx", ".odt", ".html", ".htm", ".json", ".jsonl",
    ".geojson", ".csv", ".tsv", ".xls", ".xlsx", ".ods", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg",
    ".xmp", ".aae", ".log", ".db", ".sqlite", ".dat", ".lnk", ".url", ".nfo", ".info", ".lst", ".list",
    ".py", ".ipynb", ".r", ".rmd", ".m", ".sh", ".bat", ".mat", ".npy", ".npz", ".pkl", ".pickle", ".h5",
    ".hdf5", ".parquet", ".pq", ".arrow", ".feather", ".lmdb", ".pt", ".pth", ".ckpt", ".onnx",
    ".safetensors", ".bin", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".md5", ".sha1",
    ".sha256", ".lock", ".mp4", ".mov", ".avi", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm", ".wav", ".mp3",
    ".flac", ".ogg", ".kml", ".gpx", ".shp", ".shx", ".dbf", ".prj", ".tfw", ".jgw", ".pgw", ".tex", ".bib",
)  # fmt: skip


class Image(NamedTuple):
    """Path of an image from the root, with file-system information.

    Attributes:
        size: file size in bytes; 0 if sizes are not read.
        inode: inode number; 0 for a link.
        real: target of a link; '' for a plain file.
    """

    path: str
    size: int
    inode: int
    real: str


Classes = dict[str, list[Image]]


@named("source/image_folder")
def image_folder(
    *,
    name: str,
    root: str,
    roots: Sequence[str] = (),
    test_fraction: ProperFraction = 0.2,
    split_seed: NonNegativeInt = 0,
    exif: bool = True,
    matte: str | None = "white",
    white_level: WhiteLevel | None = None,
    file_sizes: bool = True,
    group: int | str | None = None,
) -> Source:
    """Read images in ``root/CLASS/...``, or in ``root/PART/CLASS/...`` with the parts train, val and test.

    Classes are the sorted names of the (training) folders; images in subfolders of a class belong to it. Hidden files
    and folders, and files without an image suffix, are ignored. If there are only ``train`` and ``val``, ``val`` is the
    test set; if there is one part, a share of each class is held out for testing. In both cases the source's name shows
    it.

    Args:
        name: name of the data set.
        root: folder of the images.
        roots: further folders that may contain image files and link targets.
        test_fraction: share of each class that is held out for testing if there are no test (or val) images.
        split_seed: seed of that division, see `ltr.data.sources.division`.
        exif: True applies the EXIF orientation, which photographs from phones need.
        matte: background colour of transparent pixels, by name or as "#rrggbb"; None drops the alpha channel.
        white_level: value of 16-bit grey images that becomes white, such as 4095 for 12-bit cameras; None: 65535.
        file_sizes: True makes file sizes part of the fingerprint, to detect replaced images. This takes a system call
            per file, which is slow for millions of files on a network.
        group: groups of images that are not divided between training, validation and test images: a level of folders
            below the class (1, 2, ...), or a regular expression whose parentheses match the group's name in the path
            below the class. Equal names are one group in all classes. None: images are independent.

    Raises:
        ConfigError: ``group`` is neither a level nor such a pattern.
        DataError: the folder is missing, there is no class, a class has no training image, a link leads outside or to
            a listed image, or there is a folder besides train, val and test.
    """
    decoding = build_decoding(exif=exif, matte=matte, white_level=white_level)
    if group is not None:
        check_path_group(group)
    base = Path(root).expanduser().absolute()
    if not base.is_dir():
        raise DataError(
            f"{name} was not found: {base} is {'a file' if base.exists() else 'not there'}. dataset.root must be a "
            "folder with one folder of images per class, or with folders train, val and test of such folders"
        )
    walk = _Walk(name, base, roots, file_sizes)
    original_name, classes_of = name, walk.parts()
    class_names = _class_names(name, base, classes_of)
    for part, classes in classes_of.items():
        if not any(classes.values()):
            raise DataError(
                f"{name}: there is no image in {base / part}. Put images into it, in a folder for each class, or "
                f"remove the folder {part}"
            )
    if "test" not in classes_of and "val" in classes_of:
        classes_of["test"] = classes_of.pop("val")
        name += "-val_as_test"

    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    images: list[Image] = []
    labels: list[int] = []
    parts: dict[str, range] = {}
    for part in PARTS:
        if part not in classes_of:
            continue
        start = len(images)
        for class_name, entries in sorted(classes_of[part].items()):
            images += entries
            labels += [label_of[class_name]] * len(entries)
        parts[part] = range(start, len(images))
    table, order = np.array(labels, dtype=np.int64), np.arange(len(images))
    paths = [image.path for image in images]
    key: str | None = None
    groupings: dict[str, Grouping] = {}
    remarks: tuple[str, ...] = ()
    if group is not None:
        key, grouping = groups_of_paths(group, [path.split("/", walk.depth)[walk.depth] for path in paths])
        groupings = {key: grouping}
        warn_of_groups(name, key, grouping)
    if "test" in parts:
        warn_of_untested(name, table[parts["test"].start : parts["test"].stop], class_names)
        if key is not None:
            check_groups(name, key, grouping, ImageFiles.from_paths(base, paths), parts)
    else:
        divided = divide_by_groups(
            name,
            ImageFiles.from_paths(base, paths),
            table,
            class_names,
            key,
            groupings,
            fraction=test_fraction,
            seed=split_seed,
        )
        is_test, name, remarks = divided.part == PARTS.index("test"), f"{name}-{divided.name}", divided.remarks
        if key is not None:
            warn_of_untested(name, table[is_test], class_names)
        order = np.argsort(is_test, kind="stable")
        num_train = len(images) - int(is_test.sum())
        parts = {"train": range(num_train), "test": range(num_train, len(images))}
    ordered = [images[row] for row in order]
    sizes = np.array([image.size for image in ordered], dtype=np.int64) if file_sizes else None
    files = ImageFiles.from_paths(base, (image.path for image in ordered), sizes, decoding=decoding)
    _refuse_twice(original_name, files, ordered, walk.real)
    groupings = {key: grouping.take(order) for key, grouping in groupings.items()}
    return Source(name, files, table[order], class_names, parts, groupings=groupings, group=key, remarks=remarks)


def _refuse_twice(name: str, files: ImageFiles, images: Sequence[Image], real: Mapping[str, str]) -> None:
    """Refuse repeated images: a link and its target, or two links with one target."""
    listed = ListedFiles(files, lambda row: os.fsencode(os.path.basename(images[row].path)))
    rows_of: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        if image.real:
            listed.add_link(os.fsencode(image.real), row)
        else:
            rows_of.setdefault(os.path.dirname(image.path), []).append(row)
    for folder, rows in rows_of.items():
        listed.add_folder(os.fsencode(real[folder]), rows, [images[row].inode for row in rows])
    listed.refuse_twice(name, no_position)


def _class_names(name: str, base: Path, classes_of: Mapping[str, Classes]) -> tuple[str, ...]:
    """Return the sorted names of the training classes; other parts may not have further classes."""
    train = classes_of["train"]
    if not train:
        raise DataError(
            f"{name}: there is no folder in {base / 'train' if len(classes_of) > 1 else base}. It must hold one folder "
            "of images per class"
        )
    for part, classes in classes_of.items():
        unknown = [class_name for class_name in sorted(classes) if class_name not in train]
        if unknown:
            raise DataError(
                f"{name}: {base / part} has classes that are missing from {base / 'train'}: {list_first(unknown)}"
                f"{nearest(unknown[0], train) or '.'} Test classes must be training classes; rename the folders"
            )
    strange = [ascii(class_name) for class_name in sorted(train) if not class_name.isprintable()]
    if strange:
        raise DataError(
            f"{name}: folders in {base} whose names are not printable text (UTF-8): {list_first(strange)}. Rename them"
        )
    empty = [class_name for class_name in sorted(train) if not train[class_name]]
    if empty:
        raise DataError(
            f"{name}: classes without an image in {base}: {list_first(empty)}. Images are files whose names end in "
            f"{', '.join(SUFFIXES)}; add some, or remove the folders"
        )
    return tuple(sorted(train))


class _Walk:
    """Search for images with one listing per folder, which follows links inside the allowed folders.

    Args:
        base: folder of the data set.
        roots: further folders that may contain image files and link targets.
        file_sizes: True reads file sizes.
    """

    def __init__(self, name: str, base: Path, roots: Sequence[str], file_sizes: bool) -> None:
        self.name = name
        self.base = base
        self.depth = 1  # of the images in the folders of classes
        self.allowed = [Path(os.path.realpath(os.path.expanduser(path))) for path in (str(base), *roots)]
        self.file_sizes = file_sizes
        self.outside: list[str] = []
        self.real: dict[str, str] = {}  # real path of each folder with images
        self.irregular: list[str] = []
        self.unread: dict[str, list[str]] = {}  # paths by ending
        self.unnamed: list[str] = []  # files without an extension
        self.beside: set[str] = set()  # images in a folder that holds the folders of classes or parts

    def parts(self) -> dict[str, Classes]:
        """Return the classes of every part with their images, sorted by path.

        Raises:
            DataError: there is a folder besides train, val and test, a link leads outside, or a folder cannot be read.
        """
        folders = self._folders("")
        if "train" in folders and not self._is_class_train(folders):
            other_folders = [entry for entry in folders if entry not in PARTS]
            if other_folders:
                raise DataError(
                    f"{self.name}: {self.base} has the folder train and {list_first(other_folders)}"
                    f"{nearest(other_folders[0], PARTS) or '.'} Next to train, only val and test are allowed. "
                    "If train is a class, such as of vehicles, put the folders of all classes into a folder train"
                )
            self.depth = 2
            parts = {part: self._classes(part) for part in PARTS if part in folders}
        elif "test" in folders or "val" in folders:
            train_like = [one for one in folders if one.casefold() in ("train", "training")]
            advice = f"Rename {train_like[0]} to train" if train_like else "Put the training images into train/CLASS"
            raise DataError(f"{self.name}: {self.base} has a folder test or val, but no folder train. {advice}")
        else:
            self._refuse_other_parts(folders)
            parts = {"train": self._classes("")}
        for classes in parts.values():
            self._refuse_parts_of_classes(classes)
        if self.outside:
            raise DataError(
                f"{self.name}: links lead outside {', '.join(map(str, self.allowed))}: {list_first(self.outside)}. "
                + name_roots(os.path.realpath(path) for path in self.outside)
            )
        if self.irregular:
            warnings.warn(
                f"{self.name}: {len(self.irregular):,} entries are named like images and are not regular files (broken "
                f"links, named pipes, devices); they are skipped: {list_first(self.irregular)}",
                stacklevel=4,
            )
        if self.beside:
            warnings.warn(
                f"{self.name}: skipped {counted(len(self.beside), 'image')} beside the class folders, without a class: "
                f"{list_first(sorted(self.beside))}. Move them into the folder of their class",
                stacklevel=4,
            )
        if self.unread:
            endings = (f"{ending} ({list_first(paths, 3)})" for ending, paths in sorted(self.unread.items()))
            warnings.warn(
                f"{self.name}: skipped {counted(sum(map(len, self.unread.values())), 'file')} that may be images, with "
                f"endings that are not read: {list_first(endings)}. Images are files whose names end in "
                f"{', '.join(SUFFIXES)}; convert or rename those that belong to the data set",
                stacklevel=4,
            )
        if self.unnamed:
            warnings.warn(
                f"{self.name}: skipped {counted(len(self.unnamed), 'file')} without an extension: "
                f"{list_first(self.unnamed)}. Add the extension of their format (such as .jpg) if they are images",
                stacklevel=4,
            )
        return parts

    def _is_class_train(self, folders: Sequence[str]) -> bool:
        """Return whether the folder ``train`` is a class, of vehicles: it has images and other classes beside it."""
        if len(folders) == 1 or any(role_of(entry) is not None for entry in folders if entry != "train"):
            return False
        entries = self._entries("train")
        has_images = any(entry.name.lower().endswith(SUFFIXES) for entry in entries)
        return has_images and not any(map(is_folder, entries)) and not are_only_parts(folders, unused=True)

    def _refuse_other_parts(self, folders: Sequence[str]) -> None:
        """Refuse folders that are probably parts under another name and would be read as classes.

        Beside a folder of another name, such as ``car``, folders ``Train`` and ``Testing`` of images may be classes.
        """
        if len(folders) < 2 or not (are_only_parts(folders) or are_parts(folders)):
            self._refuse_parts_of_names(folders)
            return
        of_parts = [entry for entry in folders if role_of(entry) is not None]
        is_clear = are_only_parts(folders, unused=True)
        if is_clear or any(is_folder(entry) for folder in of_parts for entry in self._entries(folder)):
            raise DataError(
                f"{self.name}: the folders of {self.base} are called {list_first(folders)}, which would be the "
                f"classes. Folders for parts of the data must be called {', '.join(PARTS)}; rename them"
                f"{'' if are_only_parts(folders) else ', and move the others away'}"
            )

    def _refuse_parts_of_names(self, folders: Sequence[str]) -> None:
        """Refuse folders that are named by part and class, which would be as many classes."""
        if are_parts_of_classes(folders):
            raise DataError(
                f"{self.name}: the folders of {self.base} are called {list_first(folders)}, which would be the "
                f"classes. Move train_CLASS to train/CLASS, and the others likewise; parts are {', '.join(PARTS)}"
            )

    def _refuse_parts_of_classes(self, classes: Classes) -> None:
        """Refuse folders of parts at any level inside the folders of classes, whose images would be pooled."""
        for images in classes.values():
            inside: dict[int, set[str]] = {}  # names of folders by level
            for image in images:
                for level, folder in enumerate(image.path.split(os.sep)[self.depth : -1]):
                    inside.setdefault(level, set()).add(folder)
            for names in inside.values():
                if are_parts(names):
                    class_folder = os.sep.join(images[0].path.split(os.sep)[: self.depth])
                    raise DataError(
                        f"{self.name}: {self.base / class_folder} has the folders {list_first(sorted(names))}, which "
                        "are not read as parts. Parts come before classes: move the images into train/CLASS and "
                        "test/CLASS, or write a table with the columns path, label and split (dataset=table)"
                    )

    def _classes(self, folder: str) -> Classes:
        """Return the images of each class; folder names that differ only in Unicode form are one class."""
        classes: Classes = {}
        for entry in self._folders(folder):
            classes.setdefault(canonical(entry), []).extend(self._images(os.path.join(folder, entry)))
        return {class_name: sorted(images) for class_name, images in classes.items()}

    def _folders(self, folder: str) -> list[str]:
        """Return the folders in a folder of classes or parts, and note images that lie beside them."""
        folders = []
        for entry in self._entries(folder):
            if is_folder(entry):
                folders.append(entry.name)
            elif entry.name.lower().endswith(SUFFIXES):
                self.beside.add(os.path.join(folder, entry.name))
        return folders

    def _images(self, folder: str) -> list[Image]:
        """Return the images in a folder and its subfolders."""
        images: list[Image] = []
        pending = [folder]
        seen = set()
        while pending:
            current = pending.pop()
            real = os.path.realpath(self.base / current)
            if real in seen:  # a link to a folder above
                continue
            seen.add(real)
            self.real[current] = real
            for entry in self._entries(current):
                path = os.path.join(current, entry.name)
                if is_folder(entry):
                    pending.append(path)
                elif entry.name.lower().endswith(SUFFIXES):
                    if not is_file(entry):
                        self.irregular.append(entry.path)
                        continue
                    size = entry.stat().st_size if self.file_sizes else 0
                    is_link = entry.is_symlink()
                    target = os.path.realpath(self.base / path) if is_link else ""
                    images.append(Image(path, size, 0 if is_link else entry.inode(), target))
                elif is_file(entry):
                    ending = os.path.splitext(entry.name)[1].lower()
                    if "." not in entry.name:
                        self.unnamed.append(path)
                    elif ending not in _COMPANIONS:
                        self.unread.setdefault(ending, []).append(path)
        return images

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """Return the visible entries of a folder; links that lead outside are recorded and excluded."""
        try:
            with os.scandir(self.base / folder) as scanned:
                entries = [entry for entry in scanned if not entry.name.startswith(".")]
        except OSError as error:
            raise DataError(f"{self.name}: {self.base / folder} cannot be listed: {error.strerror}") from error
        inside = []
        for entry in entries:
            if not entry.is_symlink() or self._lies_inside(entry.path):
                inside.append(entry)
            else:
                self.outside.append(entry.path)
        return sorted(inside, key=lambda entry: entry.name)

    def _lies_inside(self, path: str) -> bool:
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(root) for root in self.allowed)
