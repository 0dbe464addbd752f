"""A split file numbers the files of one list; another list of the same classes is refused."""

from __future__ import annotations

import shutil

import pytest

import trees
from ltr.data.source import Source
from ltr.data.sources.folder import image_folder
from ltr.data.split import listing_digest, load_split_file, save_split
from ltr.data.splitting.exclusion import read_split
from ltr.errors import DataError

RULE = {"split": {"_target_": "ltr.data.splitting.closed_set.natural"}}


@pytest.fixture
def images(tmp_path):
    """A folder of images, whose split is saved beside it."""
    base = trees.folder(tmp_path)
    save_split(read_split(RULE, source_of(base)), tmp_path / "split.npz")
    return base


def source_of(base) -> Source:
    return image_folder(name="own", root=str(base))


def test_a_renamed_file_is_refused(images, tmp_path):
    (images / "cat" / "1.jpg").rename(images / "cat" / "7.jpg")
    with pytest.raises(DataError, match="made for other data: it numbers another list of image files than own"):
        load_split_file(tmp_path / "split.npz", source_of(images))


def test_moved_files_and_files_of_other_content_are_accepted(images, tmp_path):
    shutil.move(images, tmp_path / "moved")
    trees.put(tmp_path / "moved" / "cat" / "1.jpg", 2, size=(40, 40))
    split = load_split_file(tmp_path / "split.npz", source_of(tmp_path / "moved"))
    assert split.listing == listing_digest(source_of(tmp_path / "moved")) != ""


def test_a_run_is_not_said_to_be_evaluated_on_new_images_only_if_its_files_were_renamed(
    ltr_train, ltr_eval, images, tmp_path
):
    run = ltr_train(
        "dataset=folder", f"dataset.root={images}", "dataset.image_size=16", "backbone=digits_net",
        "trainer.max_epochs=1", "trainer.num_workers=0",
    ).directory  # fmt: skip
    assert "trained on" not in ltr_eval(run)[2]
    (images / "cat" / "1.jpg").rename(images / "cat" / "7.jpg")
    code, _, err = ltr_eval(run)
    assert code == 0
    assert "cannot determine whether evaluated images were trained on" in err
