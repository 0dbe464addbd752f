"""Unreadable training images: others of their class replace them, counted and up to a limit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from ltr.data.images.crop import FileCrop
from ltr.data.loaders.files import FileLoader
from ltr.data.loaders.replacement import Replacements
from ltr.data.sampling.class_index import ClassIndex
from ltr.data.source import ImageFiles
from ltr.errors import DataError

LABELS = np.array([0, 0, 0, 1, 1, 1, 2])
BROKEN = (1, 4)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Seven images of different brightness; two of them are truncated, and every class keeps an image."""
    root = tmp_path_factory.mktemp("images")
    for number in range(len(LABELS)):
        path = root / f"{number}.png"
        Image.new("RGB", (20, 20), (10 * number,) * 3).save(path)
        if number in BROKEN:
            path.write_bytes(path.read_bytes()[:40])
    return ImageFiles.from_paths(root, [f"{number}.png" for number in range(len(LABELS))])


def loader(files, most=1.0, members=None, **changes) -> FileLoader:
    members = np.arange(len(LABELS)) if members is None else np.array(members)
    index = ClassIndex.from_labels(LABELS[members], 3)
    options = {
        "crop": FileCrop(8, random=True),
        "device": torch.device("cpu"),
        "order": lambda epoch: np.tile(np.arange(len(LABELS)), 3),
        "batch_size": 4,
        "train": True,
        "replacements": Replacements(LABELS, members[index.order], index.starts, index.counts, most),
    } | changes
    return FileLoader(files, torch.from_numpy(LABELS), **options)


def images_read(batches) -> list[int]:
    """Return the numbers of an epoch's images by their brightness."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [round(float(image.float().mean()) / 10) for batch in batches for image in batch.images]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_another_image_of_the_class_replaces_it(files, num_workers):
    read_images = images_read(loader(files, num_workers=num_workers))
    assert not set(read_images) & set(BROKEN)
    assert [LABELS[number] for number in read_images] == LABELS.tolist() * 3
    kept = [number for number in np.tile(np.arange(7), 3) if number not in BROKEN]
    assert [n for n, drawn in zip(read_images, np.tile(np.arange(7), 3)) if drawn not in BROKEN] == kept


def test_the_batch_has_the_index_of_the_replacement(files):
    with pytest.warns(UserWarning, match="replace them"):
        batches = list(loader(files))
    for batch in batches:
        assert [round(float(image.float().mean()) / 10) for image in batch.images] == batch.indices.tolist()


def test_replacements_do_not_depend_on_workers_or_the_start_of_the_epoch(files):
    alone, helped = images_read(loader(files)), images_read(loader(files, num_workers=2))
    resumed = loader(files)
    resumed.start_at(0, 2)
    assert alone == helped
    assert images_read(resumed) == alone[8:]


def test_replacements_come_from_the_training_images_of_the_class(files):
    read_images = images_read(loader(files, members=[0, 1, 2, 3, 4, 6]))  # 5 is no training image
    drawn = np.tile(np.arange(7), 3)
    assert {n for n, d in zip(read_images, drawn) if d == 4} == {3}


def test_the_number_of_replacements_is_reported_after_the_epoch(files):
    with pytest.warns(UserWarning, match=r"6 of the epoch's 21 images cannot be read; others .*1\.png \(.*4\.png"):
        list(loader(files))


def test_too_many_are_an_error(files):
    with pytest.raises(DataError, match=r"images cannot be read, more than the share trainer\.max_skipped=0\.05"):
        list(loader(files, most=0.05))


def test_a_class_without_a_readable_image_is_an_error(files):
    with pytest.raises(DataError, match=r"image 1, .*1\.png, cannot be read") as caught:
        images_read(loader(files, members=[1, 3, 6]))
    assert "No other image of its class could be read" in str(caught.value)
    assert "on_error" not in str(caught.value)  # it is set already


def test_evaluation_never_skips(files):
    with pytest.raises(DataError, match="cannot be read") as caught:
        images_read(loader(files, train=False))
    assert "It is an evaluation image, so no other image can replace it" in str(caught.value)
    assert "on_error" not in str(caught.value)
