"""Identical images: in files, arrays and packed files; across parts, across labels, and within a class."""

from __future__ import annotations

import numpy as np
import pytest

import trees
from ltr.data.deduplication import duplicates
from ltr.data.deduplication.duplicates import find_identical_images
from ltr.data.images.regions import BoxCrops
from ltr.data.packed_images.reading import open_packed
from ltr.data.packed_images.writing import pack
from ltr.data.source import ImageFiles, Source
from ltr.data.sources.folder import image_folder

PATHS = ("train/a/0.jpg", "train/a/1.jpg", "train/b/2.jpg", "train/b/3.jpg", "test/a/4.jpg", "test/b/5.jpg")
CONTENT = (0, 1, 0, 2, 1, 1)  # 0 under both labels, 1 in training and test and under both labels


def files_source(tmp_path, content=CONTENT) -> Source:
    for path, number in zip(PATHS, content):
        trees.put(tmp_path / path, number)
    return image_folder(name="own", root=str(tmp_path))


def array_source() -> Source:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)[list(CONTENT)]
    return Source("toy", images, np.array([0, 0, 1, 1, 0, 1]), ("a", "b"), {"train": range(4), "test": range(4, 6)})


def packed_source(tmp_path) -> Source:
    pack(files_source(tmp_path / "files"), {}, tmp_path / "packed", size=8)
    return open_packed(tmp_path / "packed")


@pytest.mark.parametrize("kind", ["files", "without sizes", "arrays", "packed"])
def test_identical_images_are_found_in_every_kind_of_source(tmp_path, kind):
    if kind == "packed":
        source = packed_source(tmp_path)
    elif kind == "arrays":
        source = array_source()
    else:
        source = files_source(tmp_path)
    if kind == "without sizes":
        files = ImageFiles.from_paths(tmp_path, PATHS)
        source = Source("own", files, source.labels, source.class_names, source.parts)
    seen: list[int] = []
    same = find_identical_images(source, progress=seen.append)
    assert same.groups == ((0, 2), (1, 4, 5))
    assert sum(seen) == len(source)


def test_the_message_names_the_positions_of_duplicates(tmp_path):
    source = files_source(tmp_path)
    lines = list(find_identical_images(source).lines(source))
    assert lines[0].startswith("3 images are byte for byte the same in different parts")
    assert lines[1] == "  train/a/1.jpg (train, a) = test/a/4.jpg (test, a) = test/b/5.jpg (test, b)"
    assert lines[2].startswith("5 images are byte for byte the same under different labels")
    assert lines[3] == "  train/a/0.jpg (train, a) = train/b/2.jpg (train, b)"


def test_duplicates_within_a_class_are_reported_separately(tmp_path):
    source = files_source(tmp_path, (0, 0, 1, 2, 3, 4))
    lines = list(find_identical_images(source).lines(source))
    assert lines == [
        "2 images appear more than once in their class:",
        "  train/a/0.jpg (train, a) = train/a/1.jpg (train, a)",
    ]


def test_images_in_memory_are_named_by_their_index(tmp_path):
    source = array_source()
    assert "  image 1 of train (a) = image 0 of test (a) = image 1 of test (b)" in find_identical_images(source).lines(
        source
    )


def test_files_of_the_same_size_are_compared_by_content(tmp_path):
    for path, content in zip(PATHS, b"abcdef"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(bytes([content]) * 100)
    assert find_identical_images(image_folder(name="own", root=str(tmp_path))).groups == ()


def test_missing_files_have_no_duplicates(tmp_path):
    source = files_source(tmp_path)
    for path in PATHS:
        (tmp_path / path).unlink()
    assert find_identical_images(source).groups == ()


def test_a_file_of_several_crops_is_read_once_and_equal_crops_are_found(tmp_path, monkeypatch):
    for name, number in (("a.jpg", 0), ("b.jpg", 1), ("c.jpg", 0)):
        trees.put(tmp_path / name, number)
    paths = ["a.jpg", "a.jpg", "b.jpg", "c.jpg", "c.jpg", "a.jpg"]
    boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 0.5, 1], [0, 0, 0.5, 1], [0.5, 0, 0.5, 1], [0, 0, 1, 1], [0, 0, 0.5, 1]])
    files = ImageFiles.from_paths(tmp_path, paths, crops=BoxCrops(boxes.astype(np.float32), 0.1, True))
    source = Source("crops", files, np.zeros(6, dtype=np.int64), ("x",), {"train": range(6)})
    read: list[str] = []
    monkeypatch.setattr(
        duplicates, "file_digest", lambda path, digest=duplicates.file_digest: read.append(path) or digest(path)
    )
    seen: list[int] = []
    assert find_identical_images(source, progress=seen.append).groups == ((0, 5), (1, 3))
    assert sum(seen) == 6
    assert sorted(path.rsplit("/", 1)[1] for path in read) == sorted({path.rsplit("/", 1)[1] for path in read})
