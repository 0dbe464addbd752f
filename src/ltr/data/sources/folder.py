"""A user's own images: a folder for each class, with or without folders for train, val and test."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltr.data.decode import decoding
from ltr.data.source import ImageFiles, Source
from ltr.data.sources.checks import shown
from ltr.data.sources.division import divided_name, held_for_test, warn_of_untested
from ltr.data.sources.same_files import ListedFiles, unnamed
from ltr.errors import DataError, nearest
from ltr.files import is_file, is_folder
from ltr.identity import named
from ltr.names import canonical

PARTS = ("train", "val", "test")
# other names that people give to the folders of parts, without case
_OTHER_PARTS = ("training", "valid", "validation", "dev", "testing", "eval", "evaluation")
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# images by their name, of formats that are not read
_UNREAD = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".pbm", ".pnm", ".tga", ".svg", ".psd", ".dng", ".cr2", ".cr3",
           ".nef", ".arw", ".exr", ".dcm")  # fmt: skip


class Image(NamedTuple):
    """An image of a class: its path from the root, and what the disk says of it.

    Attributes:
        size: in bytes; 0 where it is not asked for.
        inode: its number on its disk; of a link, 0.
        real: what a link leads to; '' of a plain file.
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
    test_fraction: float = 0.2,
    split_seed: int = 0,
    exif: bool = True,
    matte: str | None = "white",
    white_level: int | None = None,
    file_sizes: bool = True,
) -> Source:
    """Images in ``root/CLASS/...``, or in ``root/train/CLASS/...``, ``root/val/CLASS/...``, ``root/test/CLASS/...``.

    Classes are the names of the (training) folders in sorted order; folders below a class belong to it. Hidden files
    and folders are passed over, and so are files that are no images by their name. With ``train`` and ``val`` alone,
    ``val`` is the test set; with one part alone, a share of each class is held for testing. Either way the source's
    name says so.

    Args:
        name: the data set's name.
        root: the folder.
        roots: more folders in which links may lead.
        test_fraction: share of each class that is held for testing where there is no test part, in (0, 1).
        split_seed: of that division, see `ltr.data.sources.division`.
        exif: turn images as their EXIF orientation says.
        matte: the colour under transparent pixels, by name or as #rrggbb; None drops the alpha channel.
        white_level: the value of 16-bit grey images that becomes white; None is 65535.
        file_sizes: make the files' sizes part of the fingerprint, so that a replaced image is noticed. It asks the file
            system for each file, which is slow for millions of files on a network.

    Raises:
        DataError: no such folder, no class, a class without an image, a class that is tested and not trained on, a link
            that leads outside or to an image that is there anyway, or a folder beside train, val and test.
    """
    how = decoding(exif=exif, matte=matte, white_level=white_level)
    base = Path(root).expanduser().absolute()
    if not base.is_dir():
        raise DataError(
            f"{name} was not found: {base} is {'a file' if base.exists() else 'not there'}. dataset.root must be a "
            "folder with one folder of images per class, or with folders train, val and test of such folders"
        )
    walk = _Walk(name, base, roots, file_sizes)
    given_name, found = name, walk.parts()
    class_names = _class_names(name, base, found)
    for part, classes in found.items():
        if not any(classes.values()):
            raise DataError(
                f"{name}: there is no image in {base / part}. Put images into it, in a folder for each class, or take "
                f"the folder {part} away"
            )
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
        name += "-val_as_test"

    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    images: list[Image] = []
    labels: list[int] = []
    parts: dict[str, range] = {}
    for part in PARTS:
        if part not in found:
            continue
        start = len(images)
        for class_name, entries in sorted(found[part].items()):
            images += entries
            labels += [label_of[class_name]] * len(entries)
        parts[part] = range(start, len(images))
    table, order = np.array(labels, dtype=np.int64), np.arange(len(images))
    if "test" in parts:
        warn_of_untested(name, table[parts["test"].start : parts["test"].stop], class_names)
    else:
        paths = [image.path for image in images]
        is_test = held_for_test(name, paths, table, class_names, fraction=test_fraction, seed=split_seed)
        order = np.argsort(is_test, kind="stable")
        num_train = len(images) - int(is_test.sum())
        parts = {"train": range(num_train), "test": range(num_train, len(images))}
        name = divided_name(name, test_fraction, split_seed)
    ordered = [images[row] for row in order]
    sizes = np.array([image.size for image in ordered], dtype=np.int64) if file_sizes else None
    files = ImageFiles.from_paths(base, (image.path for image in ordered), sizes, decoding=how)
    _refuse_twice(given_name, files, ordered, walk.real)
    return Source(name, files, table[order], class_names, parts)


def _refuse_twice(name: str, files: ImageFiles, images: Sequence[Image], real: Mapping[str, str]) -> None:
    """Refuse images that are one file: a link beside what it leads to, or two links to one place."""
    listed = ListedFiles(files, lambda row: os.fsencode(os.path.basename(images[row].path)))
    rows_of: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        if image.real:
            listed.add_link(os.fsencode(image.real), row)
        else:
            rows_of.setdefault(os.path.dirname(image.path), []).append(row)
    for folder, rows in rows_of.items():
        listed.add_folder(os.fsencode(real[folder]), rows, [images[row].inode for row in rows])
    listed.refuse_twice(name, unnamed)


def _class_names(name: str, base: Path, found: Mapping[str, Classes]) -> tuple[str, ...]:
    """Names of the training classes, sorted; other parts may have no others."""
    train = found["train"]
    if not train:
        raise DataError(
            f"{name}: there is no folder in {base / 'train' if len(found) > 1 else base}. It must hold one folder of "
            "images per class"
        )
    for part, classes in found.items():
        unknown = [class_name for class_name in sorted(classes) if class_name not in train]
        if unknown:
            raise DataError(
                f"{name}: {base / part} has classes that {base / 'train'} has not: {shown(unknown)}"
                f"{nearest(unknown[0], train)}. What is tested must be trained on; name the folders alike"
            )
    strange = [ascii(class_name) for class_name in sorted(train) if not class_name.isprintable()]
    if strange:
        raise DataError(
            f"{name}: folders in {base} whose names are no printable text (UTF-8): {shown(strange)}. Rename them"
        )
    empty = [class_name for class_name in sorted(train) if not train[class_name]]
    if empty:
        raise DataError(
            f"{name}: classes without an image in {base}: {shown(empty)}. Images are files whose names end in "
            f"{', '.join(SUFFIXES)}; add some, or take the folders away"
        )
    return tuple(sorted(train))


class _Walk:
    """Finds the images, one listing per folder, and follows links as far as they may lead.

    Args:
        base: the data set's folder.
        roots: more folders in which links may lead.
        file_sizes: ask for sizes.
    """

    def __init__(self, name: str, base: Path, roots: Sequence[str], file_sizes: bool) -> None:
        self.name = name
        self.base = base
        self.allowed = [Path(os.path.realpath(os.path.expanduser(path))) for path in (str(base), *roots)]
        self.file_sizes = file_sizes
        self.outside: list[str] = []
        self.real: dict[str, str] = {}  # the real path of each folder with images
        self.irregular: list[str] = []
        self.unread: list[str] = []

    def parts(self) -> dict[str, Classes]:
        """Every part's classes with their images, sorted by path.

        Raises:
            DataError: a folder beside train, val and test, a link that leads outside, or a folder that cannot be read.
        """
        top = self._folders("")
        if "train" in top:
            others = [entry for entry in top if entry not in PARTS]
            if others:
                raise DataError(
                    f"{self.name}: {self.base} has the folder train, and beside it {shown(others)}"
                    f"{nearest(others[0], PARTS)}. Beside train, only val and test have a meaning"
                )
            found = {part: self._classes(part) for part in PARTS if part in top}
        elif "test" in top or "val" in top:
            raise DataError(f"{self.name}: {self.base} has a folder test or val, but no folder train beside it")
        else:
            self._refuse_other_parts(top)
            found = {"train": self._classes("")}
        if self.outside:
            raise DataError(
                f"{self.name}: links lead outside {', '.join(map(str, self.allowed))}: {shown(self.outside)}. If that "
                "is meant, name the folder: dataset.roots=[FOLDER]"
            )
        if self.irregular:
            warnings.warn(
                f"{self.name}: {len(self.irregular):,} entries are named like images and are no regular files (broken "
                f"links, named pipes, devices); they are passed over: {shown(self.irregular)}",
                stacklevel=4,
            )
        if self.unread:
            warnings.warn(
                f"{self.name}: {len(self.unread):,} files are images of formats that are not read, and are passed "
                f"over: {shown(self.unread)}. Convert them to JPEG or PNG if they belong to the data set",
                stacklevel=4,
            )
        return found

    def _refuse_other_parts(self, top: Sequence[str]) -> None:
        """Refuse folders that are probably parts under another name, and would be taken for classes."""
        meant = [folder for folder in top if folder.casefold() in (*PARTS, *_OTHER_PARTS)]
        if len(meant) > 1 and len(meant) == len(top):
            raise DataError(
                f"{self.name}: the folders of {self.base} are called {shown(meant)}, which would be the classes. "
                f"Folders for parts of the data must be called {', '.join(PARTS)}; rename them"
            )

    def _classes(self, folder: str) -> Classes:
        """Each class's images; folders whose names differ in Unicode's form alone are one class."""
        classes: Classes = {}
        for entry in self._folders(folder):
            classes.setdefault(canonical(entry), []).extend(self._images(os.path.join(folder, entry)))
        return {class_name: sorted(images) for class_name, images in classes.items()}

    def _folders(self, folder: str) -> list[str]:
        return [entry.name for entry in self._entries(folder) if is_folder(entry)]

    def _images(self, folder: str) -> list[Image]:
        """Images in a folder and all folders below."""
        images: list[Image] = []
        waiting = [folder]
        seen = set()
        while waiting:
            here = waiting.pop()
            real = os.path.realpath(self.base / here)
            if real in seen:  # a link to a folder above
                continue
            seen.add(real)
            self.real[here] = real
            for entry in self._entries(here):
                path = os.path.join(here, entry.name)
                if is_folder(entry):
                    waiting.append(path)
                elif entry.name.lower().endswith(SUFFIXES):
                    if not is_file(entry):
                        self.irregular.append(entry.path)
                        continue
                    size = entry.stat().st_size if self.file_sizes else 0
                    is_link = entry.is_symlink()
                    target = os.path.realpath(self.base / path) if is_link else ""
                    images.append(Image(path, size, 0 if is_link else entry.inode(), target))
                elif entry.name.lower().endswith(_UNREAD):
                    self.unread.append(path)
        return images

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """What a folder holds, without what is hidden and what leads outside (which is noted)."""
        try:
            with os.scandir(self.base / folder) as scanned:
                entries = [entry for entry in scanned if not entry.name.startswith(".")]
        except OSError as error:
            raise DataError(f"{self.name}: {self.base / folder} cannot be listed: {error.strerror}") from error
        inside = [entry for entry in entries if not entry.is_symlink() or self._lies_inside(entry.path)]
        self.outside += [entry.path for entry in entries if entry not in inside] if len(inside) < len(entries) else []
        return sorted(inside, key=lambda entry: entry.name)

    def _lies_inside(self, path: str) -> bool:
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(root) for root in self.allowed)
