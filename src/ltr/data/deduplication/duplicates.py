"""Search for byte-identical images of a data set: in training and test, or under two labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ltr.data.deduplication.overlap import file_digest, file_size, pixel_digest
from ltr.data.packed_images.reading import PackedImages, PackedStore
from ltr.data.parallel import map_in_parallel
from ltr.data.source import ImageFiles, Source

_AT_A_TIME = 32
_SHOWN = 10  # groups per kind of duplicate
_SHOWN_OF_GROUP = 4  # images per group


@dataclass(frozen=True)
class Duplicates:
    """Groups of identical images.

    Attributes:
        groups: source indices of each group, ascending, at least two; groups are ordered by their first image.
    """

    groups: tuple[tuple[int, ...], ...]

    def lines(self, source: Source) -> Iterator[str]:
        """Yield a report: duplicates across parts, across labels, and within one class of one part."""
        part_of = np.repeat(np.arange(len(source.parts)), [len(indices) for indices in source.parts.values()])
        across_parts = [group for group in self.groups if len({part_of[index] for index in group}) > 1]
        across_labels = [group for group in self.groups if len({source.labels[index] for index in group}) > 1]
        other_groups = {*across_parts, *across_labels}
        for groups, words in (
            (across_parts, "images are byte for byte the same in different parts (test images that are trained on)"),
            (across_labels, "images are byte for byte the same under different labels"),
            (
                [group for group in self.groups if group not in other_groups],
                "images appear more than once in their class",
            ),
        ):
            if groups:
                yield f"{sum(map(len, groups)):,} {words}{', the first ten' if len(groups) > _SHOWN else ''}:"
                yield from (_line(source, group) for group in groups[:_SHOWN])


def find_identical_images(
    source: Source, *, workers: int = 1, progress: Callable[[int], object] = lambda number: None
) -> Duplicates:
    """Find byte-identical images of a source.

    Each image file is read once, even if several images are crops of it, and only if another file has the same size;
    an unreadable file equals no other. Arrays are compared by their pixels, packed images by their bytes in the packed
    file.

    Args:
        workers: number of processes that read files.
        progress: called with the number of images checked since the last call.
    """
    images = source.images
    if isinstance(images, PackedImages) and images.store is not None:
        digests: Iterator[tuple[int, bytes | None]] = _packed_digests(images.store, len(source))
    elif isinstance(images, ImageFiles):
        candidates = _candidates_by_size(images)
        progress(len(source) - len(candidates))
        digests = _file_digests(images, candidates, workers)
        if images.crops is not None:  # equal crops have equal files and equal boxes
            digests = _with_regions(digests, images)
    else:
        digests = ((index, pixel_digest(images[index])) for index in range(len(source)))
    groups: dict[bytes, list[int]] = {}
    for index, digest in digests:
        if digest is not None:
            groups.setdefault(digest, []).append(index)
        progress(1)
    return Duplicates(tuple(sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)))


def _candidates_by_size(files: ImageFiles) -> list[int]:
    """Return the images whose file has the size of another file."""
    sizes = files.sizes
    if sizes is None:
        sizes = np.array([file_size(files.path(index)) for index in range(len(files))], dtype=np.int64)
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[inverse] > 1).tolist()


def _file_digests(files: ImageFiles, candidates: Sequence[int], workers: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield the digest of each candidate's file; crops of one file share it."""
    rows_of: dict[str, list[int]] = {}
    for index in candidates:
        rows_of.setdefault(files.path(index), []).append(index)
    paths = list(rows_of)
    pieces = (paths[start : start + _AT_A_TIME] for start in range(0, len(paths), _AT_A_TIME))
    digests = (digest for piece in map_in_parallel(_digests, pieces, workers) for digest in piece)
    for rows, digest in zip(rows_of.values(), digests):
        for index in rows:
            yield index, digest


def _with_regions(digests: Iterator[tuple[int, bytes | None]], files: ImageFiles) -> Iterator[tuple[int, bytes | None]]:
    assert files.crops is not None
    for index, digest in digests:
        yield index, None if digest is None else digest + files.crops.boxes[index].tobytes()


def _digests(paths: list[str]) -> list[bytes | None]:
    return [file_digest(path) for path in paths]


def _packed_digests(store: PackedStore, number: int) -> Iterator[tuple[int, bytes]]:
    index = 0
    for batch in store.batches:
        sides = zip(batch.column("width").to_pylist(), batch.column("height").to_pylist())
        for image, (width, height) in zip(batch.column("image"), sides):
            digest = hashlib.sha256(f"{width}x{height}".encode())
            digest.update(image.as_buffer())
            yield index, digest.digest()
            index += 1
    assert index == number


def _line(source: Source, group: Sequence[int]) -> str:
    more = f" = ... ({len(group):,} images)" if len(group) > _SHOWN_OF_GROUP else ""
    return "  " + " = ".join(describe_image(source, index) for index in group[:_SHOWN_OF_GROUP]) + more


def describe_image(source: Source, index: int) -> str:
    """Return a description of an image: its path and class, or its position in its part."""
    part = next(part for part, indices in source.parts.items() if index in indices)
    name = source.class_names[source.labels[index]]
    if isinstance(source.images, ImageFiles):
        return f"{source.images.relative(index)} ({part}, {name})"
    return f"image {index - source.parts[part].start} of {part} ({name})"
