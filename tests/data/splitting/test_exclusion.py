"""The split of a config: its rule, a file's indices, and images that a list leaves out."""

from __future__ import annotations

import os

import numpy as np
import pytest
from toy_source import toy_source

from ltr.data.source import ImageFiles, Source
from ltr.data.splitting.closed_set import natural
from ltr.data.splitting.exclusion import exclude_images, read_split
from ltr.errors import ConfigError, DataError


def file_source() -> Source:
    paths = [f"{'ab'[number // 4 % 2]}/{number}.jpg" for number in range(16)]
    labels = np.arange(16) // 4 % 2
    return Source(
        "toy", ImageFiles.from_paths("/", paths), labels, ("a", "b"), {"train": range(8), "test": range(8, 16)}
    )


def written(folder, *paths):
    file = folder / "bad.txt"
    file.write_text("".join(f"{path}\n" for path in paths))
    return file


def test_listed_images_are_excluded_from_every_part(tmp_path):
    source = file_source()
    split = exclude_images(natural(source), source, written(tmp_path, "a/1.jpg", "b/13.jpg"))
    assert split.train.tolist() == [0, 2, 3, 4, 5, 6, 7]
    assert 13 not in split.test
    assert split.class_counts.tolist() == [3, 4]
    assert split.name.endswith("-without2")
    assert split.digest() != natural(source).digest()


def test_a_config_without_a_list_gives_the_whole_split():
    source = file_source()
    config = {"split": {"_target_": "ltr.data.splitting.closed_set.natural"}, "exclude": None}
    assert read_split(config, source).digest() == natural(source).digest()


def test_a_file_of_indices_replaces_the_rule(tmp_path):
    source = file_source()
    np.savez(tmp_path / "own.npz", train=np.array([1, 4, 6]), test=np.array([9, 12]))
    split = read_split({"split": {"_target_": "not looked at"}, "split_file": str(tmp_path / "own.npz")}, source)
    assert split.train.tolist() == [1, 4, 6]
    assert split.test.tolist() == [9, 12]
    assert split.class_counts.tolist() == [1, 2]


def test_a_path_that_the_data_set_does_not_have_is_named(tmp_path):
    with pytest.raises(DataError, match=r"names 1 images that toy does not have: a/99\.jpg"):
        exclude_images(natural(file_source()), file_source(), written(tmp_path, "a/1.jpg", "a/99.jpg"))


def test_a_class_that_would_be_empty_is_named(tmp_path):
    with pytest.raises(DataError, match="leaves no training image of 1 classes: a"):
        exclude_images(natural(file_source()), file_source(), written(tmp_path, *(f"a/{n}.jpg" for n in range(4))))


def test_images_in_memory_have_no_paths(tmp_path):
    source = toy_source(train=[3, 3], test=[1, 1])
    with pytest.raises(ConfigError, match="is not read from image files"):
        exclude_images(natural(source), source, written(tmp_path))


def test_a_missing_list_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt cannot be read: it is not there"):
        exclude_images(natural(file_source()), file_source(), tmp_path / "nowhere.txt")


@pytest.mark.parametrize("spelling", ["./a/1.jpg", "a//1.jpg", "b/../a/1.jpg", "/a/1.jpg", "\ufeffa/1.jpg"])
def test_another_spelling_names_the_same_image(tmp_path, spelling):
    source = file_source()
    split = exclude_images(natural(source), source, written(tmp_path, spelling))
    assert split.train.tolist() == [0, 2, 3, 4, 5, 6, 7]


def test_a_name_in_another_unicode_form_is_found_if_there_is_no_other(tmp_path):
    composed, decomposed = "a/gr\u00e9be.jpg", "a/gre\u0301be.jpg"
    labels, parts = np.array([0, 1, 0, 1]), {"train": range(3), "test": range(3, 4)}

    def left(*paths: str, listed: str) -> list[int]:
        files = ImageFiles.from_paths("/", [*paths, "b/9.jpg"][:4])
        source = Source("toy", files, labels, ("a", "b"), parts)
        return exclude_images(natural(source), source, written(tmp_path, listed)).train.tolist()

    assert left("a/1.jpg", "b/2.jpg", decomposed, listed=composed) == [0, 1]
    assert left(composed, "b/2.jpg", decomposed, listed=decomposed) == [0, 1]


def test_a_list_that_is_a_pipe_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="it is not a regular file"):
        exclude_images(natural(file_source()), file_source(), tmp_path / "pipe")
