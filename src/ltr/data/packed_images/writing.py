"""Creation of a packed store: parallel decoding and resizing in chunks; a killed command resumes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image, __version__, features

from ltr.data.images.checking import BadImage, collect_failures, describe_error
from ltr.data.images.decode import MAX_PIXELS, Notes, decode_image, to_image
from ltr.data.images.tally import Tally, constant_value
from ltr.data.packed_images.checks import KIND, metadata_digest, schema, table_digest
from ltr.data.packed_images.label_files import label_digests
from ltr.data.packed_images.reading import (
    PackedImages,
    PackedStore,
    chunk_digest,
    identity_of,
    read_metadata,
    with_metadata,
)
from ltr.data.parallel import map_in_parallel
from ltr.data.source import Decoding, ImageFiles, Source
from ltr.errors import ConfigError, DataError
from ltr.files import write_json, written_atomically

CHUNK = 1024
_PIECE = 32
_SHOWN = 10


class Resized(NamedTuple):
    """Resized image for the store, or the reason why it cannot be packed."""

    content: bytes
    width: int
    height: int
    scale: float  # relative to the original size
    reason: str | None = None
    notes: Notes | None = None


def pack(
    source: Source,
    config: Mapping[str, Any],
    to: Path,
    *,
    size: int,
    format: str = "jpeg",
    quality: int = 90,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int], object] = lambda number: None,
    tally: Tally | None = None,
) -> bool:
    """Write ``source`` as a packed file.

    Finished chunks are kept in ``<to>.parts`` until the file is complete; the same call resumes from them.

    Args:
        config: the source's config.
        to: path of the file, which exists only once it is complete.
        size: short side in pixels to which images are resized; smaller images are not enlarged.
        format: ``jpeg`` or ``raw``.
        quality: JPEG quality, 1 to 100 (with Pillow's chroma subsampling); ignored for ``raw``.
        workers, max_pixels: as in `ltr.data.images.checking.find_bad_images`.
        progress: called with the number of images packed since the last call.
        tally: counts peculiarities of the images that this call packs.

    Returns:
        False if the file exists already with the same content.

    Raises:
        ConfigError: the source has no image files, or an existing file was made in another way.
        DataError: images cannot be read; the message has their number in a chunk and the first ten.
    """
    files = source.images
    if not isinstance(files, ImageFiles) or isinstance(files, PackedImages):
        raise ConfigError(f"{source.name} has no image files to pack: its images are kept in memory or packed already")
    metadata = _metadata(source, config, size, format, quality)
    if to.exists():
        _refuse_other_contents(PackedStore(to).metadata, metadata, to)
        return False
    parts = to.with_name(f"{to.name}.parts")
    _begin(parts, metadata)
    count = math.ceil(len(source) / CHUNK)
    finished = [number for number in range(count) if _part(parts, number).is_file()]
    progress(sum(len(_rows(source, number)) for number in finished))
    missing = sorted(set(range(count)) - set(finished))
    pieces = (
        [files.open(row) for row in rows[start : start + _PIECE]]
        for rows in (_rows(source, number) for number in missing)
        for start in range(0, len(rows), _PIECE)
    )
    work = partial(_resize_all, decoding=files.decoding, size=size, quality=quality if format == "jpeg" else None,
                   max_pixels=max_pixels)  # fmt: skip
    results = map_in_parallel(work, pieces, workers)
    for number in missing:
        rows = _rows(source, number)
        images: list[Resized] = []
        for piece in islice(results, math.ceil(len(rows) / _PIECE)):
            images += piece
            progress(len(piece))
        _refuse_bad(source.name, files, rows, images)
        if tally is not None:
            for row, image in zip(rows, images):
                tally.add(files.relative(row), image.notes or Notes())
        batch = _batch(source, rows, images)
        _write(_part(parts, number), [batch], {**metadata, "digest": chunk_digest(batch), "table": table_digest(batch)})
    _join(parts, count, metadata, to, _group_table(source) if source.group is not None else None)
    shutil.rmtree(parts)
    return True


def find_bad_packed_images(
    images: PackedImages, *, workers: int = 1, progress: Callable[[int], object], tally: Tally | None = None
) -> list[BadImage]:
    """Return the images of a packed file that cannot be decoded, or whose chunk has a wrong digest."""
    assert images.store is not None
    chunks = range(len(images.store.batches))
    return collect_failures(
        map_in_parallel(partial(_inspect_chunk, images.store.path), chunks, workers), images, progress, tally
    )


def _inspect_chunk(path: str, chunk: int) -> list[str | Notes]:
    store = PackedStore(path)
    batch = store.batches[chunk]
    if chunk_digest(batch) != store.metadata["digests"][chunk]:
        return [f"the digest of chunk {chunk} is not the one that was written"] * batch.num_rows
    results: list[str | Notes] = []
    for row in range(batch.num_rows):
        try:
            opened = store.open(chunk * int(store.metadata["chunk"]) + row)
            results.append(Notes(constant=constant_value(np.asarray(to_image(opened)))))
        except Exception as error:  # decoders raise errors of any type
            results.append(describe_error(error))
    return results


def _metadata(source: Source, config: Mapping[str, Any], size: int, format: str, quality: int) -> dict[str, Any]:
    turbo = features.version("libjpeg_turbo") if features.check("libjpeg_turbo") else "none"
    metadata = {
        "kind": KIND,
        "name": source.name,
        "page": identity_of(config),  # the key that stores have had since their first version
        "source": source.fingerprint,
        "size": size,
        "format": format,
        "quality": quality if format == "jpeg" else None,
        "decoder": f"Pillow {__version__}, libjpeg-turbo {turbo}, bilinear",
        "chunk": CHUNK,
        "parts": {part: [indices.start, indices.stop] for part, indices in source.parts.items()},
        "class_names": list(source.class_names),
        "class_ids": None if source.class_ids is None else source.class_ids.tolist(),
        "taxonomy": {rank: list(names) for rank, names in source.taxonomy.items()},
        "boxes": source.boxes is not None,
    }
    if files := label_digests(config):
        metadata["files"] = files
    if source.group is not None:  # a digest, because the table would be written with every chunk
        metadata["group"] = [source.group, hashlib.sha256(_group_table(source).encode()).hexdigest()]
    decoding = source.decoding
    if decoding.matte is not None or decoding.white_level is not None:
        metadata["decoding"] = {"matte": decoding.matte, "white_level": decoding.white_level}
    return json.loads(json.dumps(metadata))


def _refuse_other_contents(existing: Mapping[str, Any], metadata: Mapping[str, Any], path: Path) -> None:
    different = [key for key in metadata if existing.get(key) != metadata[key]]
    if different:
        changes = [f"{key}: {str(existing.get(key))[:80]} there, {str(metadata[key])[:80]} now" for key in different]
        raise ConfigError(
            f"{path} is there and was made in another way:\n  " + "\n  ".join(changes) + "\nDelete it, or pack to "
            "another file"
        )


def _begin(parts: Path, metadata: Mapping[str, Any]) -> None:
    manifest = parts / "manifest.json"
    if manifest.is_file():
        _refuse_other_contents(json.loads(manifest.read_text(encoding="utf-8")), metadata, parts)
    elif parts.exists() and any(parts.iterdir()):
        raise ConfigError(f"{parts} is in the way: unfinished chunks are kept there. Delete it, or pack elsewhere")
    else:
        write_json(manifest, metadata)


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.arrow"


def _rows(source: Source, number: int) -> range:
    return range(number * CHUNK, min((number + 1) * CHUNK, len(source)))


def _resize_all(
    opened: list[Any], *, decoding: Decoding, size: int, quality: int | None, max_pixels: int
) -> list[Resized]:
    return [_resize_one(one, decoding, size, quality, max_pixels) for one in opened]


def _resize_one(opened: Any, decoding: Decoding, size: int, quality: int | None, max_pixels: int) -> Resized:
    try:
        notes = Notes()
        image = decode_image(opened, decoding, max_pixels=max_pixels, notes=notes)
        scale = min(size / min(image.size), 1.0)
        if scale < 1:
            image = image.resize([max(round(side * scale), 1) for side in image.size], Image.Resampling.BILINEAR)
        if quality is None:
            return Resized(image.tobytes(), *image.size, scale, notes=notes)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Resized(stream.getvalue(), *image.size, scale, notes=notes)
    except Exception as error:  # decoders raise errors of any type for damaged files
        return Resized(b"", 0, 0, 0.0, describe_error(error))


def _refuse_bad(name: str, files: ImageFiles, rows: range, images: list[Resized]) -> None:
    bad = [f"{files.path(row)}: {image.reason}" for row, image in zip(rows, images) if image.reason is not None]
    if bad:
        raise DataError(
            f"{name}: {len(bad):,} images of the {len(rows):,} looked at last cannot be packed"
            f"{', the first ten' if len(bad) > _SHOWN else ''}:\n  " + "\n  ".join(bad[:_SHOWN]) + "\nltr-data check "
            "lists all. Fetch them again, or remove them from the data set; the same command then continues"
        )


def _batch(source: Source, rows: range, images: list[Resized]) -> pa.RecordBatch:
    files = source.images
    assert isinstance(files, ImageFiles)
    part = slice(rows.start, rows.stop)
    boxes = None
    if source.boxes is not None:  # boxes are in pixels of the resized image
        boxes = (source.boxes[part] * np.array([image.scale for image in images], dtype=np.float32)[:, None]).tolist()
    columns = [
        [image.content for image in images],
        [image.width for image in images],
        [image.height for image in images],
        source.labels[part],
        [files.blob[files.offsets[row] : files.offsets[row + 1]] for row in rows],
        boxes if boxes is not None else [None] * len(rows),
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema())]
    return pa.RecordBatch.from_arrays(arrays, schema=schema())


def _write(path: Path, batches: list[pa.RecordBatch] | Iterator[pa.RecordBatch], metadata: Mapping[str, Any]) -> None:
    columns = with_metadata(schema(), metadata)
    with written_atomically(path) as temporary, pa.ipc.new_file(str(temporary), columns) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _group_table(source: Source) -> str:
    """Return the groups of the source's images, as `ltr.data.packed_images.reading` reads them."""
    assert source.group is not None
    grouping = source.groupings[source.group]
    used, codes = np.unique(grouping.codes, return_inverse=True)
    names = [grouping.values[code] if code >= 0 else None for code in used.tolist()]
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(codes, dtype="<i4").tobytes())).decode()
    return json.dumps({"names": names, "codes": packed})


def _join(parts: Path, count: int, metadata: Mapping[str, Any], to: Path, groups: str | None) -> None:
    """Join all chunks into one file, after a check of their digests."""
    digests = [_read_part(_part(parts, number), check=False)[1] for number in range(count)]

    def chunks() -> Iterator[pa.RecordBatch]:
        for number in range(count):
            yield _read_part(_part(parts, number), check=True)[0]

    images, tables = [digest for digest, _ in digests], [table for _, table in digests]
    content = hashlib.sha256("".join(images).encode()).hexdigest()
    whole = {**metadata, "digests": images, "content": content, "tables": tables}
    if groups is not None:
        whole["groups"] = groups
    _write(to, chunks(), {**whole, "about": metadata_digest(whole)})


def _read_part(part: Path, *, check: bool) -> tuple[pa.RecordBatch, tuple[str, str]]:
    """Read a finished chunk and its digests; delete a damaged chunk, so that the next call makes it again."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(part)))
        metadata = read_metadata(reader.schema)
        batch = reader.get_batch(0)
        batch.validate(full=True)
        digests = (metadata["digest"], metadata["table"])
        is_damaged = check and (chunk_digest(batch), table_digest(batch)) != digests
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{part} is damaged ({error}) and is deleted now; run the command again") from error
    if is_damaged:
        part.unlink()
        raise DataError(f"{part} was damaged after it was written and is deleted now; run the command again")
    return batch, digests
