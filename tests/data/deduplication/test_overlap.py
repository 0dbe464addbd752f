"""Overlap of training and evaluation images: by index, by real path, by pixels."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import trees
from ltr.data.deduplication.overlap import find_trained_images
from ltr.data.packed_images.reading import open_packed
from ltr.data.packed_images.writing import pack
from ltr.data.source import Source
from ltr.data.sources.folder import image_folder
from ltr.data.sources.table import image_table


def arrays(name: str, first: int, number: int = 6, side: int = 4) -> Source:
    images = np.random.default_rng(0).integers(0, 256, (40, side, side, 3), dtype=np.uint8)[first : first + number]
    return Source(name, images, np.zeros(number, np.int64), ("a",), {"train": range(number)})


def test_images_of_one_source_are_compared_by_index():
    source = arrays("toy", 0)
    assert find_trained_images(source, np.array([1, 3]), source, np.array([3, 4, 1])).tolist() == [True, False, True]


def test_images_of_two_arrays_are_compared_by_pixels():
    mask = find_trained_images(arrays("one", 0), np.array([2, 4]), arrays("other", 2), np.arange(6))
    assert mask.tolist() == [True, False, True, False, False, False]
    assert not find_trained_images(arrays("one", 0), np.arange(6), arrays("other", 0, side=2), np.arange(6)).any()


def distinct(root: Path) -> Path:
    """Make the files in ``root`` differ; those of a class are identical at first."""
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        path.write_bytes(path.read_bytes() + bytes([number]))
    return root


def test_image_files_are_compared_by_their_real_paths(tmp_path):
    root = distinct(trees.folder(tmp_path, each=4))
    folder = image_folder(name="one", root=str(root))
    (tmp_path / "link").symlink_to(root)
    paths = [f"link/{folder.images.relative(index)}" for index in range(len(folder))]
    rows = [f"{path},{path.split('/')[1]}" for path in paths]
    trees.lines(tmp_path / "t.csv", ["path,label", *rows])
    table = image_table(name="other", file=str(tmp_path / "t.csv"))
    train = np.array(folder.parts["train"])
    mask = find_trained_images(folder, train, table, np.arange(len(table)))
    expected = {os.path.realpath(folder.images.path(index)) for index in train}
    assert mask.sum() == len(train)
    assert mask.tolist() == [os.path.realpath(table.images.path(index)) in expected for index in range(len(table))]


def test_copies_of_image_files_are_found_by_their_bytes(tmp_path):
    source = image_folder(name="one", root=str(distinct(trees.folder(tmp_path, each=4))))
    train = np.array(source.parts["train"])
    other = tmp_path / "copies"
    for number, index in enumerate(range(len(source))):
        path = other / "cat" / f"renamed{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.images.path(index), path)
    copies = image_folder(name="other", root=str(other), test_fraction=0.5)
    mask = find_trained_images(source, train, copies, np.arange(len(copies)))
    expected = {Path(source.images.path(index)).read_bytes() for index in train}
    assert mask.tolist() == [Path(copies.images.path(row)).read_bytes() in expected for row in range(len(copies))]
    assert 0 < mask.sum() < len(copies)


def test_files_that_differ_only_in_the_middle_are_not_copies(tmp_path):
    for name, middle in (("one", b"a"), ("other", b"b")):
        folder = tmp_path / name / "cat"
        folder.mkdir(parents=True)
        for number in range(2):
            (folder / f"{number}.jpg").write_bytes(bytes([number]) * 5000 + middle + bytes(5000))
    sources = [image_folder(name=name, root=str(tmp_path / name)) for name in ("one", "other")]
    assert not find_trained_images(sources[0], np.arange(2), sources[1], np.arange(2)).any()


def test_a_packed_file_is_compared_as_the_files_that_it_was_made_from(tmp_path):
    source = image_folder(name="one", root=str(trees.folder(tmp_path, each=4)))
    pack(source, {}, tmp_path / "packed", size=16)
    packed = open_packed(tmp_path / "packed")
    assert packed.fingerprint != source.fingerprint
    train = np.array(source.parts["train"])
    assert find_trained_images(source, train, packed, train).all()
    assert not find_trained_images(packed, train, source, np.array(source.parts["test"])).any()
    assert find_trained_images(replace(source, name="x", fingerprint=""), train, packed, train) is None


@pytest.mark.parametrize("turned", [False, True])
def test_arrays_and_files_cannot_be_compared(tmp_path, turned):
    pair = [arrays("one", 0), image_folder(name="other", root=str(trees.folder(tmp_path, each=4)))]
    first, second = pair[::-1] if turned else pair
    assert find_trained_images(first, np.arange(3), second, np.arange(3)) is None
