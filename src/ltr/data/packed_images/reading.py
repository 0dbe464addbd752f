"""Packed store: a source with decoded and resized images in one memory-mapped file.

The file is an uncompressed Arrow IPC file with random access to its images; the original image files are not needed.
Its fingerprint covers source, size, format, quality, decoder and content.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ltr.configuration.targets import instantiate
from ltr.data.images.crop import FileCrop
from ltr.data.label_warnings import warn_of_names
from ltr.data.packed_images.checks import FIRST_KIND, check_batches, check_metadata, paths_of
from ltr.data.packed_images.label_files import KEYS, check_label_files
from ltr.data.source import Decoding, Grouping, ImageFiles, Source, as_read_only
from ltr.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa  # imported when a packed file is opened, because most runs do not use one

_METADATA = b"ltr"  # key of the schema's metadata
# keys of a source's config with paths, which may change when files are moved; the content of `KEYS` is compared
_PLACES = ("root", "roots", "download", "folder", "file_sizes", *KEYS)


@dataclass(frozen=True, eq=False)
class PackedImages(ImageFiles):
    """Table of images in a packed file instead of image files; ``root`` is the packed file.

    Attributes:
        store: the open packed file.
    """

    store: PackedStore | None = None

    def open(self, index: int) -> Any:
        """Return a stream of the JPEG, or the decoded image if the file holds pixels."""
        assert self.store is not None
        return self.store.open(index)

    @property
    def short_side(self) -> int:
        """Upper bound of the short side of the images, in pixels."""
        assert self.store is not None
        return int(self.store.metadata["size"])


class PackedStore:
    """Packed file opened for random access; worker processes map it again instead of copying it.

    Args:
        path: the file.

    Raises:
        DataError: the file is missing, damaged or not a packed file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self._open()

    def _open(self) -> None:
        import pyarrow as pa

        what = f"the packed file {self.path}"
        if not os.path.isfile(self.path):
            raise DataError(f"{what} is not there. ltr-data pack makes one; dataset.packed=null reads the image files")
        try:
            reader = pa.ipc.open_file(pa.memory_map(self.path))
            self.metadata = read_metadata(reader.schema)
            check_metadata(self.metadata)
            self.batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            check_batches(self.metadata, reader.schema, self.batches)
        except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{what} is damaged or no packed file: {reason}. Make it again by ltr-data pack") from error
        self._images = [batch.column("image") for batch in self.batches]
        self._sides = [(batch.column("width"), batch.column("height")) for batch in self.batches]
        self._each = int(self.metadata["chunk"])

    def __getstate__(self) -> str:
        return self.path

    def __setstate__(self, path: str) -> None:
        self.path = path
        self._open()

    def open(self, index: int) -> Any:
        """Return a stream of image ``index``, or the decoded image if the file holds pixels."""
        chunk, row = divmod(index, self._each)
        content = self._images[chunk][row].as_buffer()
        if self.metadata["format"] == "jpeg":
            return io.BytesIO(content)
        from PIL import Image

        width, height = (column[row].as_py() for column in self._sides[chunk])
        return Image.frombuffer("RGB", (width, height), content, "raw", "RGB", 0, 1)


def read_metadata(schema: pa.Schema) -> dict[str, Any]:
    """Read the description of a packed file or of a part of one.

    Raises:
        ValueError: the Arrow file was not made by ltr-data pack.
    """
    metadata = json.loads((schema.metadata or {}).get(_METADATA, b"{}"))
    if not isinstance(metadata, dict):
        raise ValueError("it was not made by ltr-data pack")
    return metadata


def with_metadata(schema: pa.Schema, metadata: Mapping[str, Any]) -> pa.Schema:
    """Add a description to the metadata of a schema."""
    return schema.with_metadata({_METADATA: json.dumps(dict(metadata)).encode()})


def chunk_digest(batch: pa.RecordBatch) -> str:
    """Return the sha256 (hex) of the images of one chunk and their sizes."""
    digest = hashlib.sha256()
    for field in ("width", "height"):
        digest.update(np.ascontiguousarray(batch.column(field).to_numpy(), dtype="<i4").data)
    for image in batch.column("image"):
        content = image.as_buffer()
        digest.update(content.size.to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def packed_decoding(metadata: Mapping[str, Any]) -> Decoding:
    """Return the options with which the images of a packed file were decoded; EXIF orientation is already applied."""
    decoding = metadata.get("decoding") or {}
    matte = decoding.get("matte")
    return Decoding(matte=None if matte is None else tuple(matte), white_level=decoding.get("white_level"))


def identity_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a source's config that determine the packed content."""
    return {key: value for key, value in config.items() if key not in _PLACES}


def open_packed(path: str | os.PathLike[str]) -> Source:
    """Open a packed file as a source.

    Raises:
        DataError: the file is missing, damaged or not a packed file.
    """
    store = PackedStore(path)
    if store.metadata["kind"] == FIRST_KIND:
        warnings.warn(
            f"the packed file {store.path} was made by an earlier version: damage to its labels and paths cannot be "
            "detected. ltr-data pack makes it again",
            stacklevel=2,
        )
    try:
        return _source_of(store)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError, zlib.error) as error:
        raise DataError(
            f"the packed file {store.path} is damaged: its description cannot be used ({error}). Make it again by "
            "ltr-data pack"
        ) from error


def _source_of(store: PackedStore) -> Source:
    metadata, batches = store.metadata, store.batches
    labels = [batch.column("label").to_numpy() for batch in batches]
    blobs, offsets = [], [np.zeros(1, dtype=np.int64)]
    for batch in batches:
        blob, ends = paths_of(batch)
        blobs.append(blob)
        offsets.append(ends[1:] + offsets[-1][-1])
    decoding = packed_decoding(metadata)
    boxes = None
    if metadata["boxes"]:
        boxes = np.concatenate([batch.column("box").flatten().to_numpy() for batch in batches]).reshape(-1, 4)
    # independent of the kind of store: packing the same images again must give the same source
    made = (FIRST_KIND, *(metadata[key] for key in ("source", "size", "format", "quality", "decoder", "content")))
    return Source(
        metadata["name"],
        PackedImages(
            store.path, b"".join(blobs), as_read_only(np.concatenate(offsets)), decoding=decoding, store=store
        ),
        np.concatenate(labels) if labels else np.empty(0, dtype=np.int64),
        tuple(metadata["class_names"]),
        {part: range(start, stop) for part, (start, stop) in metadata["parts"].items()},
        fingerprint=hashlib.sha256(repr(made).encode()).hexdigest(),
        class_ids=None if metadata["class_ids"] is None else np.array(metadata["class_ids"], dtype=np.int64),
        taxonomy={rank: tuple(names) for rank, names in metadata["taxonomy"].items()},
        boxes=boxes,
        **_groups(metadata),
    )


def _groups(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments ``groupings`` and ``group`` of a source; {} for independent images."""
    if "groups" not in metadata:
        return {}
    table = json.loads(metadata["groups"])
    numbers = np.frombuffer(zlib.decompress(base64.b64decode(table["codes"])), dtype="<i4")
    known = [number for number, name in enumerate(table["names"]) if name is not None]
    codes = np.full(len(table["names"]), -1, dtype=np.int32)
    codes[known] = np.arange(len(known))
    name = metadata["group"][0]
    return {"group": name, "groupings": {name: Grouping(codes[numbers], tuple(table["names"][n] for n in known))}}


def read_source(dataset: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Source] = instantiate) -> Source:
    """Read the source of a dataset config, from the packed file ``packed`` if one is set.

    Args:
        dataset: the resolved config.
        read: function that builds a source from its config.

    Raises:
        ConfigError: the packed file was made from another source or other labels, or has fewer pixels than the config
            needs.
        DataError: files are missing or damaged.
    """
    packed = dataset.get("packed")
    if packed is None:
        source = read(dataset["source"])
        warn_of_names(source)
        return source
    if not isinstance(packed, str):
        raise ConfigError(f"dataset.packed={packed}: the path of a file that ltr-data pack made is needed, or null")
    source = open_packed(packed)
    warn_of_names(source)
    assert isinstance(source.images, PackedImages)
    assert source.images.store is not None
    packed_from, configured = (
        source.images.store.metadata["page"],
        json.loads(json.dumps(identity_of(dataset["source"]))),
    )
    different = [key for key in {**packed_from, **configured} if packed_from.get(key) != configured.get(key)]
    if different:
        lines = [
            f"{key}: {packed_from.get(key)} in the file, {configured.get(key)} in the configuration"
            for key in different
        ]
        raise ConfigError(
            f"dataset.packed={packed} was made from another source:\n  " + "\n  ".join(lines) + "\nPack again, or use "
            "dataset.packed=null"
        )
    check_label_files(packed, source.images.store.metadata.get("files"), dataset["source"])
    if dataset.get("image_size"):
        refuse_too_few_pixels(source.images, FileCrop(dataset["image_size"], resize=dataset.get("image_resize")).resize)
    return source


def refuse_too_few_pixels(images: ImageFiles, short_side: int) -> None:
    """Raise ConfigError if packed images are smaller than ``short_side`` pixels."""
    if isinstance(images, PackedImages) and short_side > images.short_side:
        raise ConfigError(
            f"dataset.packed={images.root} holds images of a short side of {images.short_side} pixels, and "
            f"dataset.image_size and image_resize ask for {short_side}. Pack again with --size {short_side}, use "
            f"dataset.image_resize={images.short_side} or less, or read the files with dataset.packed=null"
        )
