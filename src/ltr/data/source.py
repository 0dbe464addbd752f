"""`Source`, an immutable table of images with labels, and `ImageFiles` for images on disk."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from ltr.data.images.regions import BoxCrops
from ltr.errors import DataError, nearest
from ltr.names import canonical, group_name, list_first, missing_values

F = TypeVar("F", bound=Callable[..., Any])


def as_read_only(array: np.ndarray) -> np.ndarray:
    """Return a read-only view of ``array``."""
    view = array.view()
    view.flags.writeable = False
    return view


def fixed_content(function: F) -> F:
    """Mark a function whose source has the same content on every machine.

    The data are part of an installed package, or the function checks every file against its published digest.
    """
    function.fixed_content = True  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True)
class Decoding:
    """Options of the conversion of image files to RGB; all are part of the fingerprint.

    Attributes:
        exif: True applies the EXIF orientation. Published data sets are read without it.
        matte: background colour (red, green, blue in 0..255) of transparent pixels; None drops the alpha channel, as
            for published data sets.
        white_level: value of 16-bit grey images that becomes white; None: 65535.
    """

    exif: bool = False
    matte: tuple[int, int, int] | None = None
    white_level: int | None = None


PLAIN = Decoding()


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Table of image files as one bytes object and one offset array, instead of millions of Python strings.

    Forked worker processes share both arrays: reference counts of one object per path would copy the memory.

    Attributes:
        root: folder of relative paths; not part of the fingerprint, so that a data set may be moved.
        blob: all paths concatenated, in UTF-8 (undecodable bytes kept by ``surrogateescape``).
        offsets: int64 [N + 1]; path i is ``blob[offsets[i]:offsets[i + 1]]``.
        sizes: int64 [N] file sizes in bytes, or None if unknown.
        decoding: options of the conversion to RGB.
        crops: box of each row; several rows may name one file. None: whole images.
    """

    root: str
    blob: bytes
    offsets: np.ndarray
    sizes: np.ndarray | None = None
    decoding: Decoding = PLAIN
    crops: BoxCrops | None = None

    @classmethod
    def from_paths(
        cls,
        root: str | os.PathLike[str],
        paths: Iterable[str],
        sizes: np.ndarray | None = None,
        *,
        decoding: Decoding = PLAIN,
        crops: BoxCrops | None = None,
    ) -> ImageFiles:
        """Pack ``paths`` (relative to ``root``, or absolute)."""
        encoded = [os.fsencode(path) for path in paths]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), out=offsets[1:])
        if sizes is not None:
            sizes = as_read_only(np.array(sizes, dtype=np.int64))
            if sizes.shape != (len(encoded),):
                raise DataError(
                    f"{sizes.shape[0]} file sizes were given for {len(encoded)} image files; pass one for each"
                )
        return cls(os.fspath(root), b"".join(encoded), as_read_only(offsets), sizes, decoding, crops)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def path(self, index: int) -> str:
        """Return the full path of image ``index`` (0 <= index < N)."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)} image files")
        return os.path.join(self.root, self.relative(index))

    def relative(self, index: int) -> str:
        """Return the path of image ``index`` relative to the root, as the data set spells it."""
        return os.fsdecode(self.blob[self.offsets[index] : self.offsets[index + 1]])

    def open(self, index: int) -> Any:
        """Return a path or stream of image ``index`` for Pillow, a decoded image, or the `Region` of a file."""
        return self.path(index) if self.crops is None else self.crops.region(index, self.path(index))


@dataclass(frozen=True, eq=False)
class Grouping:
    """Group of each image, such as the camera that took it.

    Attributes:
        codes: int32 [N] (read-only), the number of each image's group; -1 if it is unknown.
        values: names of the groups.
    """

    codes: np.ndarray
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        set_field(self, "codes", as_read_only(np.array(self.codes, dtype=np.int32)))

    @classmethod
    def of_values(cls, codes: np.ndarray, values: Sequence[str]) -> Grouping:
        """Return the grouping by values of a file, in order of their appearance.

        Values that differ only in space beside them or in Unicode's form are one group, as `ltr.names.group_name` has
        it. Blank values, and those that programs write where a value is missing, are unknown.

        Args:
            codes: int [N], index into ``values``; -1 if it is unknown.
        """
        names = [group_name(value) for value in values]
        missing = {"", *missing_values(names)}
        number_of: dict[str, int] = {}
        numbers = [-1 if name in missing else number_of.setdefault(name, len(number_of)) for name in names]
        return cls(np.array([*numbers, -1], dtype=np.int32)[codes], tuple(number_of))

    def take(self, rows: np.ndarray) -> Grouping:
        """Return the groups of the images ``rows``, int64 [n], with the same names."""
        return Grouping(self.codes[rows], self.values)


@dataclass(frozen=True, eq=False)
class Source:
    """Immutable table of images with labels; access to labels never decodes an image.

    Attributes:
        name: short name of the data set, such as ``cifar10``.
        images: uint8 [N, H, W, C] (read-only), or `ImageFiles` of length N.
        labels: int64 [N] (read-only), each in [0, number of class names).
        class_names: one name per class, in Unicode's composed form; no two classes have the same.
        parts: index ranges of the parts in order, which cover 0 .. N-1 without gap or overlap.
        fingerprint: sha256 (hex) over name, parts, class names, labels and pixels (or paths and sizes); computed if
            empty.
        class_ids: int64 [classes], ids of the classes in the data set's files, if published lists refer to them.
        taxonomy: rank to one name per class, such as ``supercategory`` or ``family``; {} if unknown.
        boxes: float32 [N, 4] bounding boxes (left, top, width, height in pixels of the file), used only to evaluate
            locations.
        groupings: groups of the images by name, such as ``location`` or ``seq_id``; {} if unknown.
        group: key of ``groupings`` whose groups no split divides; None: images are independent.
        left_out: paths of images that the files name and the source excludes, by reason.
        remarks: sentences about the files, for ``ltr-data describe``.

    Raises:
        DataError: fields contradict each other, or a label is outside its range.
    """

    name: str
    images: np.ndarray | ImageFiles
    labels: np.ndarray
    class_names: tuple[str, ...]
    parts: Mapping[str, range]
    fingerprint: str = ""
    class_ids: np.ndarray | None = None
    taxonomy: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    boxes: np.ndarray | None = None
    groupings: Mapping[str, Grouping] = field(default_factory=dict)
    group: str | None = None
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # a copy, so that the caller's array cannot change the table afterwards; pixels are too large to copy
        set_field(self, "labels", _checked_labels(self.name, self.labels, len(self.class_names)))
        set_field(self, "class_names", _checked_names(self.name, self.class_names))
        set_field(self, "parts", dict(self.parts))
        if isinstance(self.images, np.ndarray):
            if self.images.dtype != np.uint8 or self.images.ndim != 4:
                raise DataError(
                    f"source '{self.name}': images must be uint8 [N, H, W, C], not {self.images.dtype} "
                    f"{list(self.images.shape)}"
                )
            set_field(self, "images", as_read_only(np.ascontiguousarray(self.images)))
        if len(self.images) != len(self.labels):
            raise DataError(f"source '{self.name}': {len(self.images)} images but {len(self.labels)} labels")
        _check_parts(self.name, self.parts, len(self.labels))
        self._check_extras()
        if not self.fingerprint:
            set_field(self, "fingerprint", _fingerprint(self))

    def _check_extras(self) -> None:
        set_field(self, "taxonomy", {rank: tuple(names) for rank, names in self.taxonomy.items()})
        per_class = {f"taxonomy '{rank}'": len(names) for rank, names in self.taxonomy.items()}
        if self.class_ids is not None:
            set_field(self, "class_ids", as_read_only(np.array(self.class_ids, dtype=np.int64)))
            per_class["class_ids"] = len(self.class_ids)
        for what, length in per_class.items():
            if length != self.num_classes:
                raise DataError(f"source '{self.name}': {what} has {length} entries for {self.num_classes} classes")
        if self.boxes is not None:
            set_field(self, "boxes", as_read_only(np.array(self.boxes, dtype=np.float32)))
            if self.boxes.shape != (len(self.labels), 4):
                raise DataError(f"source '{self.name}': boxes must be [N, 4], not {list(self.boxes.shape)}")
        for name, grouping in self.groupings.items():
            if grouping.codes.shape != (len(self.labels),):
                raise DataError(
                    f"source '{self.name}': the groups '{name}' must be [N], not {list(grouping.codes.shape)}"
                )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes of the data set, including classes without images."""
        return len(self.class_names)

    @property
    def decoding(self) -> Decoding:
        """Options of the conversion of image files to RGB; `PLAIN` for arrays."""
        return self.images.decoding if isinstance(self.images, ImageFiles) else PLAIN

    def metadata_digests(self) -> dict[str, str]:
        """Return the SHA-256 in hex of each field that results may depend on and the fingerprint leaves out.

        These are ``class_ids`` (published lists refer to them), ``taxonomy``, ``boxes`` and ``group`` (its groups
        decide which images are held out together). Fields without a value are left out.
        """
        digests: dict[str, str] = {}
        if self.class_ids is not None:
            digests["class_ids"] = _sha256(np.ascontiguousarray(self.class_ids, dtype="<i8"))
        if self.taxonomy:
            digests["taxonomy"] = _sha256(repr(sorted(self.taxonomy.items())).encode("utf-8", "surrogateescape"))
        if self.boxes is not None:
            digests["boxes"] = _sha256(np.ascontiguousarray(self.boxes, dtype="<f4"))
        if self.group is not None:
            grouping = self.groupings[self.group]
            names = repr((self.group, grouping.values)).encode("utf-8", "surrogateescape")
            digests["group"] = _sha256(names, np.ascontiguousarray(grouping.codes, dtype="<i4"))
        return digests

    def part(self, name: str) -> range:
        """Return the indices of part ``name``; raise DataError that lists the parts if it is missing."""
        if name not in self.parts:
            raise DataError(
                f"source '{self.name}' has no part '{name}'; it has {', '.join(self.parts)}{nearest(name, self.parts)}"
            )
        return self.parts[name]


def set_field(instance: object, field: str, value: object) -> None:
    """Set a field of a frozen dataclass while it is being built."""
    object.__setattr__(instance, field, value)


def _checked_names(name: str, class_names: Sequence[object]) -> tuple[str, ...]:
    names = tuple(canonical(str(class_name)) for class_name in class_names)
    if len(set(names)) < len(names):
        repeated = sorted(class_name for class_name, count in Counter(names).items() if count > 1)
        raise DataError(
            f"source '{name}': several classes have the same name: {list_first(map(ascii, repeated))}. Commands, "
            "tables and reports name classes by it: give each class another name, or make them one class"
        )
    return names


def _checked_labels(name: str, labels: np.ndarray, num_classes: int) -> np.ndarray:
    values = np.asarray(labels)
    if values.ndim != 1 or not (np.issubdtype(values.dtype, np.integer) or values.size == 0):
        raise DataError(f"source '{name}': labels must be integers [N], not {values.dtype} {list(values.shape)}")
    bad = np.flatnonzero((values < 0) | (values >= num_classes))
    if bad.size:
        first = bad[0]
        raise DataError(
            f"source '{name}': label {values[first]} of image {first} is outside 0..{num_classes - 1} "
            f"({bad.size} of {values.size} labels are). Check the label file, or the number of class names"
        )
    return as_read_only(np.array(values, dtype=np.int64))


def _check_parts(name: str, parts: Mapping[str, range], total: int) -> None:
    expected = 0
    for part, indices in parts.items():
        if indices.step != 1 or indices.start != expected or indices.stop < indices.start:
            raise DataError(f"source '{name}': part '{part}' is {indices}, but it must start at {expected} with step 1")
        expected = indices.stop
    if expected != total:
        raise DataError(f"source '{name}': its parts cover {expected} samples of {total}")


def _sha256(*parts: Any) -> str:
    """Return the SHA-256 in hex of bytes and contiguous arrays, one after another."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _fingerprint(source: Source) -> str:
    digest = hashlib.sha256()
    parts = [(part, indices.start, indices.stop) for part, indices in source.parts.items()]
    digest.update(repr(("source-1", source.name, parts, source.class_names)).encode("utf-8", "surrogateescape"))
    digest.update(source.labels.data)
    images = source.images
    if isinstance(images, ImageFiles):
        digest.update(np.ascontiguousarray(images.offsets).data)
        digest.update(images.blob)
        if images.sizes is not None:
            digest.update(np.ascontiguousarray(images.sizes).data)
        # options that change pixels; unset ones leave the fingerprint unchanged
        if images.decoding.exif:
            digest.update(b"exif")
        for key in ("matte", "white_level"):
            if (value := getattr(images.decoding, key)) is not None:
                digest.update(f"{key}={value}".encode())
        if images.crops is not None:
            digest.update(images.crops.identity())
    else:
        digest.update(repr(images.shape).encode())
        digest.update(images.data)
    return digest.hexdigest()
