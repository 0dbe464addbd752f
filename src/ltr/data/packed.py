"""A packed store: a whole source with its images decoded and resized once, in one file that is memory-mapped.

The file is an uncompressed Arrow IPC file, so that image ``i`` is found and read without anything before it. It needs
no image file any more. What it was made from and how is in its fingerprint: size, format, quality, decoder, content.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ltr.configuration.targets import instantiate
from ltr.data.crop import FileCrop
from ltr.data.doubts import warn_of_names
from ltr.data.packed_checks import FIRST_KIND, check_about, check_batches, paths_of
from ltr.data.source import Decoding, ImageFiles, Source, read_only
from ltr.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa  # imported where a packed file is opened: most runs have none

_ABOUT = b"ltr"  # key of the schema's metadata
# of a source's config: where things lie, which a packed file does not depend on
_PLACES = ("root", "roots", "download", "folder", "lists", "file", "file_sizes")


@dataclass(frozen=True, eq=False)
class PackedImages(ImageFiles):
    """A table of images in a packed file, in the place of one of image files; ``root`` is the packed file.

    Attributes:
        store: the memory-mapped file.
    """

    store: PackedStore | None = None

    def open(self, index: int) -> Any:
        """A stream of the JPEG, or the image itself where pixels are kept."""
        assert self.store is not None
        return self.store.open(index)

    @property
    def short_side(self) -> int:
        """Pixels that the short side of an image has at most."""
        assert self.store is not None
        return int(self.store.about["size"])


class PackedStore:
    """A packed file, opened for random access; worker processes map it anew instead of copying it.

    Args:
        path: the file.

    Raises:
        DataError: it is missing, damaged or something else.
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
            self.about = about_of(reader.schema)
            check_about(self.about)
            self.batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            check_batches(self.about, reader.schema, self.batches)
        except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
            said = " ".join(str(error).split())
            raise DataError(f"{what} is damaged or no packed file: {said}. Make it again by ltr-data pack") from error
        self._images = [batch.column("image") for batch in self.batches]
        self._sides = [(batch.column("width"), batch.column("height")) for batch in self.batches]
        self._each = int(self.about["chunk"])

    def __getstate__(self) -> str:
        return self.path

    def __setstate__(self, path: str) -> None:
        self.path = path
        self._open()

    def open(self, index: int) -> Any:
        """What Pillow opens image ``index`` from; an image where pixels are kept."""
        chunk, row = divmod(index, self._each)
        content = self._images[chunk][row].as_buffer()
        if self.about["format"] == "jpeg":
            return io.BytesIO(content)
        from PIL import Image

        width, height = (column[row].as_py() for column in self._sides[chunk])
        return Image.frombuffer("RGB", (width, height), content, "raw", "RGB", 0, 1)


def about_of(schema: pa.Schema) -> dict[str, Any]:
    """What a packed file, or a part of one, says of itself.

    Raises:
        ValueError: it is an Arrow file of something else.
    """
    about = json.loads((schema.metadata or {}).get(_ABOUT, b"{}"))
    if not isinstance(about, dict):
        raise ValueError("it was not made by ltr-data pack")
    return about


def with_about(schema: pa.Schema, about: Mapping[str, Any]) -> pa.Schema:
    """``schema`` with `about_of` in its metadata."""
    return schema.with_metadata({_ABOUT: json.dumps(dict(about)).encode()})


def chunk_digest(batch: pa.RecordBatch) -> str:
    """sha256 (hex) of the images of one chunk and their sizes."""
    digest = hashlib.sha256()
    for field in ("width", "height"):
        digest.update(np.ascontiguousarray(batch.column(field).to_numpy(), dtype="<i4").data)
    for image in batch.column("image"):
        content = image.as_buffer()
        digest.update(content.size.to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def packed_decoding(about: Mapping[str, Any]) -> Decoding:
    """How the images of a packed file became RGB; they are upright already."""
    how = about.get("decoding") or {}
    matte = how.get("matte")
    return Decoding(matte=None if matte is None else tuple(matte), white_level=how.get("white_level"))


def identity_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a source's config that decides what is packed."""
    return {key: value for key, value in config.items() if key not in _PLACES}


def open_packed(path: str | os.PathLike[str]) -> Source:
    """The source that a packed file holds, whole.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    store = PackedStore(path)
    if store.about["kind"] == FIRST_KIND:
        warnings.warn(
            f"the packed file {store.path} was made by an earlier version: damage to its labels and paths cannot be "
            "noticed. ltr-data pack makes it again",
            stacklevel=2,
        )
    try:
        return _source_of(store)
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"the packed file {store.path} is damaged: its description cannot be used ({error}). Make it again by "
            "ltr-data pack"
        ) from error


def _source_of(store: PackedStore) -> Source:
    about, batches = store.about, store.batches
    labels = [batch.column("label").to_numpy() for batch in batches]
    blobs, offsets = [], [np.zeros(1, dtype=np.int64)]
    for batch in batches:
        blob, ends = paths_of(batch)
        blobs.append(blob)
        offsets.append(ends[1:] + offsets[-1][-1])
    how = packed_decoding(about)
    boxes = None
    if about["boxes"]:
        boxes = np.concatenate([batch.column("box").flatten().to_numpy() for batch in batches]).reshape(-1, 4)
    # of either kind: a store that is made again of the same images is the same source
    made = (FIRST_KIND, *(about[key] for key in ("source", "size", "format", "quality", "decoder", "content")))
    return Source(
        about["name"],
        PackedImages(store.path, b"".join(blobs), read_only(np.concatenate(offsets)), decoding=how, store=store),
        np.concatenate(labels) if labels else np.empty(0, dtype=np.int64),
        tuple(about["class_names"]),
        {part: range(start, stop) for part, (start, stop) in about["parts"].items()},
        fingerprint=hashlib.sha256(repr(made).encode()).hexdigest(),
        class_ids=None if about["class_ids"] is None else np.array(about["class_ids"], dtype=np.int64),
        taxonomy={rank: tuple(names) for rank, names in about["taxonomy"].items()},
        boxes=boxes,
    )


def read_source(dataset: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Source] = instantiate) -> Source:
    """The source of a data set's config: from ``packed`` where it names a packed file, else from its own files.

    Args:
        dataset: the config, resolved.
        read: the config of a source to the source.

    Raises:
        ConfigError: the packed file was made of another source, or holds fewer pixels than the config needs.
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
    made_of, wanted = source.images.store.about["page"], json.loads(json.dumps(identity_of(dataset["source"])))
    different = [key for key in {**made_of, **wanted} if made_of.get(key) != wanted.get(key)]
    if different:
        lines = [f"{key}: {made_of.get(key)} in the file, {wanted.get(key)} in the configuration" for key in different]
        raise ConfigError(
            f"dataset.packed={packed} was made of another source:\n  " + "\n  ".join(lines) + "\nPack again, or use "
            "dataset.packed=null"
        )
    if dataset.get("image_size"):
        refuse_too_few_pixels(source.images, FileCrop(dataset["image_size"], resize=dataset.get("image_resize")).resize)
    return source


def refuse_too_few_pixels(images: ImageFiles, short_side: int) -> None:
    """Raise ConfigError where images are packed, and smaller than ``short_side`` pixels."""
    if isinstance(images, PackedImages) and short_side > images.short_side:
        raise ConfigError(
            f"dataset.packed={images.root} holds images of a short side of {images.short_side} pixels, and "
            f"dataset.image_size and image_resize ask for {short_side}. Pack again with --size {short_side}, use "
            f"dataset.image_resize={images.short_side} or less, or read the files with dataset.packed=null"
        )
